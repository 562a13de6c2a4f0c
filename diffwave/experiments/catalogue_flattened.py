"""The experiments from 24 August: latents flattened to one channel."""

from __future__ import annotations

from typing import Any

from diffwave.experiments.diary_training import DiaryRun
from diffwave.experiments.measures import Lab, Rows, sample_conditions
from diffwave.experiments.measures_of_data import early
from diffwave.experiments.our_model import OurRun
from diffwave.experiments.recipe import DIARY_BETAS, Base, Experiment, Row

# First and last beta of the diary's schedules of 1000 timesteps, with what it saw.
SCHEDULES = (
    ("1e-4…0.05", (1e-4, 0.05), "low loss, norm explodes"),
    ("0.0015…0.0195", (0.0015, 0.0195), "smaller extremes"),
    ("1e-5…0.0195", (1e-5, 0.0195), ""),
    ("1e-5…0.0085", (1e-5, 0.0085), "better sound, but always the same"),
    ("1e-5…0.005", (1e-5, 0.005), "loss much higher"),
)
SHORT = (
    "Items are single rows of the flattened clip (one latent dimension, 5 s), in training each "
    "with its own timestep; 6 blocks instead of 30, a quarter of the channels: the white loss "
    "depends on none of these. The comparison is on the uninformative dimensions."
)
WHITE_WHY = (
    "Flattening gives input and output the same shape, so the model can learn. It learns how much "
    "noise there is: 'white' is the best loss when latents are white noise, √(2/π)·mean √ᾱ. It "
    "follows from the schedule alone."
)


def flattened_experiments(base: Base) -> list[Experiment]:
    """Return the experiments on losses of the flattened model."""
    return [*_losses(base), *_conditions(base), *_inside(base)]


def _losses(base: Base) -> list[Experiment]:
    def row(number: int, saw: str) -> Row:
        timesteps = base.scale.timesteps(number)
        ours = base.ours(schedule=DIARY_BETAS, num_timesteps=timesteps)
        return Row(f"T = {number}", saw, base.flattened(number), ours, "white")

    counted = [row(*pair) for pair in ((50, "0.65"), (500, "0.25"), (1000, "0.21"), (2000, ""))]
    pair = [run.diary for run in counted[2:] if run.diary is not None]
    return [
        Experiment(
            "timesteps-50",
            "Latents flattened",
            ("Flattening input: loss about 0.65",),
            WHITE_WHY,
            (counted[0],),
            differs=SHORT,
        ),
        Experiment(
            "flattened",
            "Latents flattened, more timesteps",
            (
                "Flattened, 500 steps: loss about 0.25; 1000 steps: about 0.21",
                "From 1000 to 2000 steps the loss of epoch 1 falls from 0.37 to 0.24",
            ),
            WHITE_WHY
            + " With more timesteps of the same betas, more of them are nearly all noise, "
            "which is easy to predict: the loss falls without any gain.",
            (
                *counted,
                Row(
                    "ours, flattened too",
                    "",
                    None,
                    base.ours(body="flattened", hidden_channels=16),
                    note="One channel of all standardized latents, the cosine schedule.",
                ),
            ),
            differs=SHORT + " Ours with the same betas and timesteps, not flattened.",
            measure=lambda lab: early(lab, pair, ("0.37", "0.24")),
        ),
        Experiment(
            "schedules",
            "Schedules of 1000 timesteps",
            (
                "Training on 1e-5…0.005, the loss is much higher than on 0.0015…0.0195",
                "With large variance schedules the loss goes much lower",
            ),
            WHITE_WHY + " Each schedule has its own, so losses of different schedules cannot be "
            "compared; skills can.",
            tuple(
                Row(
                    label,
                    saw,
                    base.flattened(1000, betas),
                    base.ours(schedule=betas),
                    "white",
                )
                for label, betas, saw in SCHEDULES
            ),
            differs=SHORT,
        ),
        Experiment(
            "flattened-learning-rate",
            "Learning rate, flattened",
            ("Doubling the learning rate increased the loss", "2e-4 to 6e-5: the same pattern"),
            "The white loss is the same for all. A learning rate changes only how soon and how "
            "noisily training reaches it.",
            (
                Row(
                    "× 2",
                    "higher",
                    base.flattened(50, learning_rate=4e-3),
                    base.ours(learning_rate=4e-3),
                ),
                Row("× 1", "", base.flattened(50), base.ours(), "white"),
                Row(
                    "× 0.3",
                    "same pattern",
                    base.flattened(50, learning_rate=6e-4),
                    base.ours(learning_rate=6e-4),
                ),
            ),
            differs=SHORT + " T = 50, 1e-4…0.05; learning rates 10 times the diary's.",
        ),
        Experiment(
            "flattened-size",
            "Size, flattened",
            (
                "Batch 18 and 128 residual channels: lower loss",
                "50 blocks, 128 channels: higher loss in the first two epochs",
                "30 blocks, 256 channels: only slightly lower",
            ),
            "A larger network cannot go below the white loss either where there is only noise.",
            (
                Row("64 channels", "", base.flattened(50), base.ours(hidden_channels=16), "white"),
                Row(
                    "128 channels, half the batch",
                    "lower",
                    base.flattened(50, channels=128, batch_size=8),
                    base.ours(hidden_channels=32, batch_size=4),
                    "white",
                ),
                Row(
                    "128 channels, 50 blocks",
                    "higher at first",
                    base.flattened(50, channels=128, blocks=50),
                    base.ours(hidden_channels=32, num_blocks=13),
                ),
                Row(
                    "256 channels",
                    "slightly lower",
                    base.flattened(50, channels=256),
                    base.ours(hidden_channels=64),
                    "white",
                ),
            ),
            differs=SHORT + " T = 50. Channels of both models a quarter.",
        ),
    ]


def _conditions(base: Base) -> list[Experiment]:
    """Return the experiments on the conditioner of the flattened model."""

    def diary(**changes: Any) -> DiaryRun:
        steps = base.scale.deep_steps * 3 // 10
        return base.flattened(50, batch_size=2, item_rows=None, num_steps=steps, **changes)

    def ours(**changes: Any) -> OurRun:
        return base.ours(**{"condition_channels": 32, **changes})

    plain, gain = diary(conditioner_channels=1), diary(conditioner_channels=1, condition_gain=5.0)
    our_gain = ours(condition_gain=5.0)
    differs = (
        "T = 50, 6 blocks, a quarter of the channels, whole flattened clips in batches of 2, few "
        "steps. The spectrogram is resampled to the number of frames that the diary's strides need."
    )

    def swap(lab: Lab) -> Rows:
        return sample_conditions(
            lab,
            [
                ("standard", "the same audio whatever the condition", plain, ours()),
                ("× 5", "two samples are identical", gain, our_gain),
            ],
        )

    return [
        Experiment(
            "conditioner-channels",
            "Channels and layers of the conditioner",
            (
                "More channels in the conditioner: smoother at first",
                "Batch halved and conditioner channels doubled to 128: lower, choppy",
                "Two more transposed convolutions: worse",
                "From 128 channels to 1 without them: about the same, faster",
            ),
            "The spectrogram is stretched over the flattened axis, on which neighbours in time "
            "are neighbours only within a row: place p stands for dimension p/N and frame p "
            "mod N, but gets the spectrogram of time p/(D·N). More channels do not fix that. "
            "The ratio of the loss with another clip's spectrogram to that with the right one "
            "shows whether the condition is used: 1.00 means that it is not.",
            (
                Row("1 channel", "about the same", plain, ours(condition_channels=1)),
                Row(
                    "64, ours 16",
                    "smoother",
                    diary(conditioner_channels=16),
                    ours(condition_channels=16),
                ),
                Row("128, ours 32", "lower, choppy", diary(conditioner_channels=32), ours()),
                Row(
                    "two more layers",
                    "worse",
                    diary(conditioner_channels=16, extra_conditioner_layers=2),
                    ours(extra_conditioner_layers=2),
                ),
            ),
            differs=differs,
            needs_spectrograms=True,
        ),
        Experiment(
            "conditioner-gain",
            "Condition times 5",
            (
                "The same audio regardless of the spectrogram",
                "The condition's magnitude is far smaller than the sample's",
                "(y + 5·condition) / 2: two samples are identical, no influence",
            ),
            "Magnitude is not the cause. The measure is the ratio of the loss with another clip's "
            "spectrogram to that with the right one: 1.00 means that the condition is not used.",
            (
                Row("standard", "no influence", plain, ours()),
                Row("× 5", "no influence", gain, our_gain),
            ),
            differs=differs,
            measure=swap,
            more=(plain, gain, ours(), our_gain),
            needs_spectrograms=True,
        ),
    ]


def _inside(base: Base) -> list[Experiment]:
    """Return the experiments on the inside of the blocks."""
    deep = (
        "All 30 blocks, T = 50, a quarter of the channels, rows of the flattened clip, few steps."
    )
    norms = (
        ("none", "", ""),
        ("everywhere", "loss does not go down", "everywhere"),
        ("on each block's output", "brings improvement", "output"),
        ("on y", "brings improvement", "y"),
        ("on output and skips", "no change", "output and skips"),
    )
    scaled = (
        ("none", "", ""),
        ("first block", "no effect", "first"),
        ("every block", "loss does not go down", "every"),
    )
    return [
        Experiment(
            "batch-norm",
            "Batch normalization",
            (
                "Batch norm before each activation of all blocks: loss does not go down; silence",
                "Batch norm on the y output of each block: improvement",
                "On skips too: no change",
            ),
            "Each block divides by √2, and the prediction is read from the output of the last. A "
            "batch norm on the output undoes the shrinking. The skips are summed and not used, so "
            "a batch norm on them changes nothing: the losses of those two rows are equal to the "
            "last digit. Ours reads the skips, so it has nothing to undo.",
            tuple(
                Row(label, saw, base.deep(batch_norm=kind), base.ours(batch_norm=kind))
                for label, saw, kind in norms
            ),
            differs=deep,
        ),
        Experiment(
            "scaled",
            "Tensors scaled to one magnitude",
            (
                "x, y, t and condition scaled alike in the first block: no effect",
                "In every block: loss does not go down",
            ),
            "The question is whether scaling moves the loss from 'none' towards white, or away "
            "from it.",
            tuple(
                Row(label, saw, base.deep(scaled=kind), base.ours(scaled=kind))
                for label, saw, kind in scaled
            ),
            differs=deep,
        ),
    ]
