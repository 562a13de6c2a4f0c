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
    """Return the experiments that measure more than a loss."""
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
            "It does: the sampler clipped x to ±1 after every step. That is right for audio and "
            "wrong for latents, a third of which it clips. The model predicts almost 0, so each "
            "step only divides by √α and adds noise: x ends as clipped noise, or, without the "
            "clip, as noise 1/√ᾱ times too large. Times 4 gives larger clipped noise, not music.",
            differs="One output channel, T = 50, as in the diary.",
            measure=lambda lab: sampling_range(lab, base.broadcast(), ours),
            more=(base.broadcast(), ours),
        ),
        Experiment(
            "sampling-schedules",
            "Samples by schedule, and the magnitude of x",
            (
                "Generated samples have very high minima, maxima and variance",
                "AudioLDM's schedule leads to smaller extremes, DiffWave's to far higher ones",
                "x_t starts at a norm of 220 and ends at 200",
            ),
            "A perfect model of white data would end at 1 with every schedule. The errors of "
            "another are amplified by up to 1/√ᾱ of the last timestep: 3.4e5 for 1e-4…0.05.",
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
            "The model removes the noise that its own schedule has at a timestep; the sampler "
            "assumes another. Closed form, a recursion for the variance of x: a perfect model of "
            "white data would only end at another magnitude, 0.6 to 3.2 for any two of the diary's "
            "schedules of 1000 timesteps. So the foreign schedule alone does not explode; the "
            "model must have errors too.",
            differs=ITEMS,
            measure=lambda lab: _foreign(lab, base),
            more=(from_large, from_low, ours_large, ours_low),
        ),
        Experiment(
            "power-transform",
            "Power transform on the prediction",
            ("Using PowerTransform on the inference model output",),
            "A prediction forced to variance 1 removes much noise even where there is little. "
            "Closed form, for a prediction in the direction of x: the magnitude of x shrinks, "
            "whatever the model predicts.",
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
            "The rest of x there comes from the residuals of the blocks.",
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
            "With one timestep per batch the curve is as choppy as the loss differs between "
            "timesteps. Few timesteps occur in training, too. The diary's step embedding has no "
            "slow wave (its slowest has a period of 6 timesteps), so the model cannot generalise "
            "from one timestep to the next. The rows 'above white' show the cost at timesteps that "
            "occurred in training, and at the others.",
            differs=SHORT.replace(", in training each with its own timestep", ""),
            measure=lambda lab: timesteps(lab, shared, each, our_pair),
            more=(shared, each, *our_pair.values()),
        ),
        Experiment(
            "encodings",
            "Encodings: distribution, means and blends",
            (
                "Encoded samples follow almost a perfect normal distribution",
                "The mean of several encodings sounds like a bad mashup of three songs",
                "Interpolate between two encoded samples: does the decoder make sense of it?",
            ),
            "Posterior samples are normal because most of their variance is the posterior's noise. "
            "A mean of n independent encodings has 1/√n of their norm, and the decoder was never "
            "trained on such a norm. A great circle keeps the norm.",
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
