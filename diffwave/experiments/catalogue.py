"""All experiments, in the order of the diary."""

from __future__ import annotations

from dataclasses import replace

from diffwave.experiments.catalogue_flattened import flattened_experiments
from diffwave.experiments.catalogue_sampling import sampling_experiments
from diffwave.experiments.recipe import Base, Experiment, Row, Scale

# Enough to see the two closed forms met, sampling explained, and encodings measured.
QUICK_NAMES = (
    "learning-rate",
    "depth",
    "mse",
    "timesteps-50",
    "sampling-range",
    "encodings",
)

ZERO_WHY = (
    "The network has as many input channels as latent dimensions, and one output channel. PyTorch "
    "broadcasts this one against the noise of all dimensions. Its best prediction is then almost "
    "0: 0.798 is E|N(0, 1)|, the loss of a network that predicts 0."
)


def catalogue(scale: Scale, seed: int = 0) -> list[Experiment]:
    """Return all experiments at a scale."""
    base = Base(scale, seed)
    return [*_broadcast(base), *flattened_experiments(base), *sampling_experiments(base)]


def _broadcast(base: Base) -> list[Experiment]:
    ours = base.ours
    zero = "loss 0.8"
    cnn = base.broadcast(
        network=None, num_steps=6 * base.scale.zero_steps, batch_size=8, learning_rate=2e-3
    )
    return [
        Experiment(
            "learning-rate",
            "Learning rate",
            ("Low, standard and high learning rate: loss 0.8",),
            ZERO_WHY + " No learning rate changes what one channel can predict.",
            (
                Row(
                    "2e-6",
                    zero,
                    base.broadcast(learning_rate=2e-6),
                    ours(learning_rate=2e-6),
                    "zero",
                ),
                Row("2e-4", zero, base.broadcast(), ours(learning_rate=2e-4), "zero"),
                Row(
                    "2e-2",
                    zero,
                    base.broadcast(learning_rate=2e-2, num_steps=3 * base.scale.zero_steps),
                    ours(learning_rate=2e-2),
                    "zero",
                    note="Three times as many steps: it jumps about before it settles.",
                ),
                Row("ours, its own 2e-3", "", None, ours()),
            ),
        ),
        Experiment(
            "batch-size",
            "Batch size",
            ("Batches of 48, 24 and 6: loss 0.8",),
            ZERO_WHY,
            (
                Row(
                    "48, ours 16", zero, base.broadcast(batch_size=48), ours(batch_size=16), "zero"
                ),
                Row("24, ours 8", zero, base.broadcast(), ours(), "zero"),
                Row("6, ours 2", zero, base.broadcast(batch_size=6), ours(batch_size=2), "zero"),
            ),
            differs="Ours with a third of the batch.",
        ),
        Experiment(
            "depth",
            "Number of blocks",
            ("60, 30 and 10 blocks: loss 0.8",),
            ZERO_WHY,
            (
                Row(
                    "60, ours 16", zero, base.broadcast(num_blocks=60), ours(num_blocks=16), "zero"
                ),
                Row("30, ours 8", zero, base.broadcast(), ours(), "zero"),
                Row("10, ours 3", zero, base.broadcast(num_blocks=10), ours(num_blocks=3), "zero"),
            ),
            differs="Ours with about a quarter of the blocks.",
        ),
        Experiment(
            "width",
            "Hidden channels",
            ("256 and 64 residual channels: loss 0.8",),
            ZERO_WHY,
            (
                Row("256", zero, base.broadcast(channels=256), ours(hidden_channels=64), "zero"),
                Row("64", zero, base.broadcast(), ours(hidden_channels=16), "zero"),
            ),
            differs="Both models with a quarter of the channels.",
        ),
        Experiment(
            "timesteps",
            "Timesteps, one output channel",
            ("500 and 50 timesteps: loss 0.8",),
            ZERO_WHY + " More timesteps add noise, of which one channel can predict a little more.",
            tuple(
                Row(
                    f"T = {number}",
                    zero if number in (50, 500) else "",
                    base.broadcast(schedule=(1e-4, 0.05, base.scale.timesteps(number))),
                    ours(num_timesteps=base.scale.timesteps(number)),
                    "zero",
                )
                for number in (50, 500, 1000, 2000)
            ),
        ),
        Experiment(
            "conditioner",
            "With and without conditioner, one output channel",
            ("Conditioner True and False: loss 0.8",),
            ZERO_WHY + " One broadcast channel cannot express a condition either.",
            (
                Row(
                    "True",
                    zero,
                    base.broadcast(conditioner_channels=1),
                    ours(condition_channels=32),
                    "zero",
                ),
                Row("False", zero, base.broadcast(), ours(), "zero"),
            ),
            needs_spectrograms=True,
        ),
        Experiment(
            "cnn",
            "A small CNN instead of DiffWave",
            (
                "Simple CNN with three 2-D convolutions stays at 0.8",
                "Mini CNN to see if loss falls",
            ),
            "Input and output have the same shape, so there is no broadcast. Its sigmoid cannot "
            "output the half of the noise that is below 0, and the timestep is not an input. The "
            "prediction is the loss of the best output in [0, 1] for one noisy number, a little "
            "below 0.8.",
            (Row("L1", zero, cnn, ours(body="cnn"), "bounded"),),
            differs="Ours: three 1-D convolutions over channels, no sigmoid, with the timestep.",
        ),
        Experiment(
            "no-sqrt",
            "Mixing without square roots",
            ("Remove sqrt in the mixing of latents and noise: loss 0.8",),
            ZERO_WHY + " Without roots the mixture is that of another schedule, "
            "ᾱ² / (ᾱ² + (1 − ᾱ)²), at another scale.",
            (
                Row("with roots", zero, base.broadcast(), ours(), "zero"),
                Row(
                    "without", zero, base.broadcast(has_roots=False), ours(has_roots=False), "zero"
                ),
            ),
        ),
        Experiment(
            "mse",
            "MSE instead of L1",
            ("MSE loss, both models: loss 1.0",),
            "1.0 is E[N(0, 1)²]: the same prediction of 0, by another loss.",
            (
                Row("DiffWave", "loss 1.0", base.broadcast(loss="mse"), ours(), "zero"),
                Row(
                    "CNN",
                    "loss 1.0",
                    replace(cnn, loss="mse"),
                    ours(body="cnn"),
                    "bounded",
                ),
                Row("L1, to compare", "loss 0.8", base.broadcast(), ours(loss="l1"), "zero"),
            ),
        ),
        Experiment(
            "precision",
            "16 bit instead of 32",
            ("Floating point precision 32 and 16: loss 0.8",),
            ZERO_WHY + " Rounding is not the cause.",
            (
                Row("32", zero, base.broadcast(), ours(), "zero"),
                Row(
                    "16",
                    zero,
                    base.broadcast(precision="bfloat16"),
                    ours(precision="bfloat16"),
                    "zero",
                ),
            ),
            differs="bfloat16 by autocast, since the CPU has no fast float16.",
        ),
    ]
