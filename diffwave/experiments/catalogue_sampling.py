"""The experiments on sampling, on magnitudes, on the draw of timesteps, and on encodings."""

from __future__ import annotations

from diffwave.experiments.catalogue_flattened import SCHEDULES, SHORT
from diffwave.experiments.measures import (
    Lab,
    Rows,
    foreign_schedule,
    power_transform,
    sampling_range,
    sampling_schedules,
)
from diffwave.experiments.measures_of_blocks import magnitudes
from diffwave.experiments.measures_of_data import encodings, timesteps
from diffwave.experiments.recipe import DIARY_BETAS, Base, Experiment

ITEMS = "Sampled are eight rows of 5 s, as the model was trained on."


def sampling_experiments(base: Base) -> list[Experiment]:
    """Return the experiments that look at more than a loss."""
    ours = base.ours()
    long = base.scale.timesteps(1000)
    low, large = (1e-5, 0.0085), DIARY_BETAS
    own = [
        (label, saw, base.flattened(1000, betas), base.ours(schedule=betas))
        for label, betas, saw in SCHEDULES
    ]
    short = (
        "1e-4…0.05, T = 50",
        "norm 220 at the first step, 200 at the last (audio)",
        base.flattened(50),
        base.ours(schedule=DIARY_BETAS, num_timesteps=base.scale.timesteps(50)),
    )
    from_large, from_low = base.flattened(1000, large), base.flattened(1000, low)
    ours_large, ours_low = base.ours(schedule=large), base.ours(schedule=low)
    each = base.flattened(1000)
    shared = base.flattened(1000, is_timestep_shared=True)
    our_pair = {"shared": base.ours(is_timestep_shared=True), "each": ours}
    return [
        Experiment(
            "sampling-range",
            "Samples within ±1, and times 4",
            (
                "Encoded samples have extremes about ±4, generated ones exactly ±1",
                "Generated × 4: no larger sound",
                "Does DiffWave clip to 1?",
                "Decoded samples are silent",
            ),
            "It does: the sampler cut x to ±1 after every step, right for audio and wrong for "
            "latents, of which it cuts a third. The model predicts nothing, so each step only "
            "divides by √α and adds noise: x ends as cut noise, or, without the clamp, as noise "
            "1/√ᾱ times too large. Times 4 makes large noise of cut noise, not music.",
            differs="One output channel, T = 50, as then.",
            measure=lambda lab: sampling_range(lab, base.broadcast(), ours),
            more=(base.broadcast(), ours),
        ),
        Experiment(
            "sampling-schedules",
            "Samples by schedule, and the size of x",
            (
                "Generated samples have very high minima, maxima and variance",
                "AudioLDM's schedule leads to smaller extremes, DiffWave's to far higher ones",
                "x_t starts at a norm of 220 and ends at 200",
            ),
            "A perfect model of white data would end at 1 with every schedule. An imperfect one's "
            "errors are amplified by up to 1/√ᾱ of the last timestep: 3.4e5 for 1e-4…0.05.",
            differs=ITEMS + " " + SHORT,
            measure=lambda lab: sampling_schedules(lab, [short, *own]),
            more=tuple(run for _, _, one, other in [short, *own] for run in (one, other)),
        ),
        Experiment(
            "foreign-schedule",
            "Sampling with another schedule than that of training",
            (
                "The norm explodes with each timestep",
                "When changing the variance schedule after training, the sampling is unstable",
            ),
            "The model takes away the noise that its own schedule has at a timestep, the "
            "sampler assumes another. Closed form, a recursion for the variance of x: a "
            "perfect model of white data would only end at another size, 0.6 to 3.2 for any "
            "two of the diary's schedules of 1000 timesteps. So the foreign schedule by itself "
            "does not explode; that takes a model that answers wrongly besides.",
            differs=ITEMS,
            measure=lambda lab: _foreign(lab, base),
            more=(from_large, from_low, ours_large, ours_low),
        ),
        Experiment(
            "power-transform",
            "Power transform on the prediction",
            ("Using PowerTransform on the inference model output",),
            "A prediction forced to variance 1 takes away much noise even where there is "
            "little. Closed form, for a prediction in the direction of x: the size of x "
            "shrinks, whatever the model says.",
            differs=ITEMS + " Yeo-Johnson by maximum likelihood, over the whole prediction.",
            measure=lambda lab: power_transform(lab, from_low, ours_low, (*large, long)),
            more=(from_low, ours_low),
        ),
        Experiment(
            "magnitudes",
            "Magnitudes by block",
            (
                "x and y shrink with the block's depth, condition and t stay the same",
                (
                    "To do: how large are skips, model output, layer output; how does the block's "
                    "index matter"
                ),
            ),
            "Each block divides by √2, so the input's share in the last of 30 blocks is 2^−15. "
            "What is left of x there is the blocks' own residuals.",
            differs="All 30 blocks, T = 50, a quarter of the channels.",
            measure=lambda lab: magnitudes(lab, base.deep(), ours),
            more=(base.deep(), base.deep(num_steps=0), ours),
        ),
        Experiment(
            "timestep-per-item",
            "One timestep for the batch, or one for each item",
            (
                "The loss curve is choppy",
                "With batches of 64 there are 141 steps an epoch, so the model only sees a "
                "fraction of 1000 timesteps: this should be tested!",
            ),
            "One timestep a batch makes the curve as choppy as the loss differs between "
            "timesteps, whatever the batch. It also means that few timesteps are met; the "
            "diary's step embedding has no slow wave (its slowest turns once in 6 timesteps) "
            "that could carry what is learnt at one timestep to the next. The rows 'above "
            "white' tell what that costs where training met a timestep, and where not.",
            differs=SHORT.replace(", in training each with its own timestep", ""),
            measure=lambda lab: timesteps(lab, shared, each, our_pair),
            more=(shared, each, *our_pair.values()),
        ),
        Experiment(
            "encodings",
            "Encodings: their law, means and blends",
            (
                "Encoded samples follow almost a perfect normal distribution",
                "The mean of several encodings sounds like a bad mashup of three songs",
                "Interpolate between two encoded samples: does the decoder make sense of it?",
            ),
            "Posterior samples are normal because most of what they hold is the posterior's own "
            "noise. A mean of n independent encodings has a length of 1/√n of theirs, and the "
            "decoder has never seen any so short; a great circle keeps the length.",
            measure=encodings,
        ),
    ]


def _foreign(lab: Lab, base: Base) -> Rows:
    long = base.scale.timesteps(1000)
    rows, pictures = [], []
    for trained, own, sampled in (
        ("1e-5…0.0085", (1e-5, 0.0085), ("1e-4…0.05", DIARY_BETAS)),
        ("1e-4…0.05", DIARY_BETAS, ("0.0015…0.0195", (0.0015, 0.0195))),
    ):
        label, betas = sampled
        others = [
            (f"trained {trained}, sampled the same", "stable", (*own, long)),
            (f"trained {trained}, sampled {label}", "norm explodes", (*betas, long)),
        ]
        found = foreign_schedule(lab, base.flattened(1000, own), base.ours(schedule=own), others)
        rows += found[0]
        pictures += found[1]
    return rows, pictures
