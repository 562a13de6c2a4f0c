"""Every figure that a training logs is what closed form says of it; one without a law fails."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from known_training import (
    BETA,
    HELD_OUT,
    LOGITS,
    LOUDNESS,
    MEANS,
    MOVED,
    STEPS,
    TRAINING,
    VARIANCES,
    WAVEFORM_WEIGHT,
    Knower,
    crops,
    events,
    kl_nats,
    logged,
    train_known,
    train_rave,
)
from rave_runs import RATE_HZ

from diffwave import training
from diffwave.objective import Objective
from diffwave.recipe import diffusion_recipe
from diffwave.reference_loss import LossCurve, ReferenceLosses
from diffwave.training import DiffusionSystem
from rave.api.train import _result
from rave.blocks import bottleneck
from rave.experiment import training_of
from rave.prior_training import PriorSystem, PriorTraining


@pytest.fixture(scope="module")
def rave_run(tmp_path_factory):
    """A training of both phases in which all is known, and its folder."""
    folder = tmp_path_factory.mktemp("known")
    return train_rave(folder), folder


def per_crop(value):
    """Return the mean over held-out crops of what follows from gain and std, not over batches."""
    total = sum(count * value(gain, std) for count, gain, std in HELD_OUT)
    return total / sum(count for count, *_ in HELD_OUT)


def decibels(gain):
    return 20 * math.log10(gain)


def distance(gain, num_scales):
    """Of audio and the same with a gain, at each scale: relative power, and ratio in nepers."""
    return num_scales * ((1 - gain) ** 2 - math.log(gain))


KL_OF_DIMENSION = [
    per_crop(lambda _, std, m=mean, v=variance: kl_nats(m, v, std))
    for mean, variance in zip(MEANS, VARIANCES, strict=True)
]
MOVED_BY = {
    shift: 1 - off**2 * VARIANCES[1] / sum(VARIANCES) for shift, off in sorted(MOVED.items())
}
NUM_SCALES = 2
COUNT, GAIN, STD = TRAINING
KL = sum(kl_nats(mean, variance, STD) for mean, variance in zip(MEANS, VARIANCES, strict=True))
POWER = LOUDNESS**2 * (1 + 0.25) / 2  # of both channels
BETAS = [1e-6 * (BETA / 1e-6) ** ((step + 1) / 20000) for step in range(STEPS)]
DECAY = [1.0, 1.0, 1.0, 0.1]  # a warm-up of 2 steps, then the end of phase 1
WAVEFORM = (1 - GAIN) ** 2
# Of features, the audio; and of logits, its power.
MATCHING = ((1 - GAIN) + (1 - GAIN**2)) / 2
ADVERSARIAL = -sum(LOGITS) * POWER * GAIN**2
ADDED = {0: BETAS[0] * KL, 1: BETAS[1] * KL, 3: 20 * MATCHING + ADVERSARIAL}
LOSSES = {
    step: 2 * distance(GAIN, NUM_SCALES) + WAVEFORM_WEIGHT * DECAY[step] * WAVEFORM + added
    for step, added in ADDED.items()
}
# By step; step 2 trains the discriminator alone.
OF_RAVE = {
    "train/spectral_distance": dict.fromkeys(ADDED, distance(GAIN, NUM_SCALES)),
    "train/band_spectral_distance": dict.fromkeys(ADDED, distance(GAIN, NUM_SCALES)),
    "train/waveform_distance": dict.fromkeys(ADDED, WAVEFORM),
    "train/kl": dict.fromkeys(ADDED, KL),
    "train/beta": {step: BETAS[step] for step in ADDED},
    "train/loss": LOSSES,
    "train/feature_matching": {3: MATCHING},
    "train/adversarial": {3: ADVERSARIAL},
    "train/discriminator_loss": {2: sum(2 - f * POWER * (1 - GAIN**2) for f in LOGITS)},
    "held_out/spectral_distance": {3: per_crop(lambda gain, _: distance(gain, NUM_SCALES))},
    "held_out/log_spectral_distance_db": {3: per_crop(lambda gain, _: -decibels(gain))},
    "held_out/level_db": {3: per_crop(lambda gain, _: decibels(gain))},
    "latents/dimensions_80": {3: 1},
    "latents/dimensions_90": {3: 2},
    "latents/dimensions_95": {3: 3},
    "latents/dimensions_99": {3: 4},
    "latents/moved_16_samples": {3: MOVED_BY[16]},
    "latents/moved_half_a_hop": {3: MOVED_BY[32]},
    "latents/kl": {3: sum(KL_OF_DIMENSION)},
}


@pytest.mark.parametrize("tag", OF_RAVE)
def test_what_rave_train_logs_follows_from_gains_and_posteriors(tag, rave_run):
    values = OF_RAVE[tag]  # a level halved is -6.02 dB
    found = logged(rave_run[1])[tag]
    # Where a step has no such figure, Lightning repeats the last one.
    assert {step: found[step] for step in values} == pytest.approx(values, rel=2e-3)


def test_rave_train_logs_nothing_without_a_law(rave_run):
    assert logged(rave_run[1]).keys() == OF_RAVE.keys()


def test_the_end_of_rave_train_says_what_was_logged(rave_run):
    system, folder = rave_run
    result = _result(system, folder, 0)
    needed = {tag: of[3] for tag, of in OF_RAVE.items() if tag.startswith(("held_out", "latents"))}
    needed |= {"steps": STEPS, "resumed_from": 0}
    needed["held_out_loss"] = needed["held_out/spectral_distance"]
    assert result.figures.pop("run") == str(folder)
    assert result.figures == pytest.approx(needed, rel=2e-3)
    level = needed["held_out/level_db"]
    assert f"log-spectral distance {-level:.1f}" in result.summary
    assert f"level {level:+.1f} dB; 3 of 4 latent dimensions carry 95 %, 4 carry" in result.summary


def test_histograms_and_audio_are_those_of_the_held_out_crops(rave_run):
    board = events(rave_run[1])
    fidelity = np.cumsum(sorted(VARIANCES, reverse=True)) / sum(VARIANCES)
    needed = {
        "latents/latent_mean": MEANS,
        "latents/fidelity": fidelity,
        "latents/kl_of_dimension": KL_OF_DIMENSION,
    }
    assert set(board.Tags()["histograms"]) == set(needed)
    for tag, values in needed.items():
        (event,) = board.Histograms(tag)
        found = event.histogram_value
        assert (event.step, found.num) == (STEPS, len(values))
        measured = [found.min, found.max, found.sum]
        assert measured == pytest.approx([min(values), max(values), sum(values)], abs=1e-4), tag
    mono = crops(HELD_OUT[0][0], 0).mean(dim=1).flatten()
    gains = {"held_out/original": 1.0, "held_out/reconstruction": HELD_OUT[0][1]}
    assert set(board.Tags()["audio"]) == set(gains)
    for tag, gain in gains.items():
        (event,) = board.Audio(tag)
        audio, rate_hz = soundfile.read(io.BytesIO(event.encoded_audio_string))
        assert rate_hz == event.sample_rate == RATE_HZ
        assert audio == pytest.approx(gain * mono.clamp(-1, 1).numpy(), abs=1e-3), tag


LOGS = re.compile(r"self\.log(_dict)?\(|\.add_(scalars?|histogram|audio|image|figure|text)\(")
PRIOR = PriorTraining(0, 1, 2, 1, 1e-9, 1.0, 0.5, 1, 1)


def test_a_prior_logs_nats_per_value_of_all_segments_not_of_batches(tmp_path):
    held_out = [torch.tensor([1.0, 2.0]), torch.tensor([6.0])]
    train_known(PriorSystem(Knower(), PRIOR), tmp_path, [torch.tensor([2.0, 4.0])], held_out)
    needed = {"train_loss": 3.0, "held_out_loss": 3.0, "reference/uniform": math.log(7)}
    assert {tag: list(of.values()) for tag, of in logged(tmp_path).items()} == {
        tag: pytest.approx([value]) for tag, value in needed.items()
    }


def test_a_diffusion_logs_its_loss_and_skill_beside_their_references(tmp_path, monkeypatch):
    """Of each segment and noise level against its own reference, and over all against the whole."""
    monkeypatch.setattr(training, "standardized", lambda _, batch: batch["errors"][:, None, None])
    monkeypatch.setattr(
        Objective, "losses", lambda _, model, errors, *rest: model.loss(errors.flatten())
    )
    monkeypatch.setattr(
        training, "held_out_errors", lambda model, batch, *rest: model.loss(batch["errors"])
    )
    # Two segments at a log-SNR of 2, one of -4.
    alpha_bar = 1 / (1 + np.exp(-np.array([2.0, -4.0, 2.0])))
    gaussian = np.array([0.5, 0.8, 0.7])
    levels = LossCurve(alpha_bar, np.ones(3), np.ones(3), gaussian)
    references = ReferenceLosses(zero=1.5, white=1.25, gaussian=0.8)
    settings = training_of(diffusion_recipe("tiny", ["LEARNING_RATE=1e-9"]).bind({"SEED": 0}))
    system = DiffusionSystem(Knower(), settings, references, levels)
    errors = torch.tensor([0.1, 0.6, 0.5])
    held_out = [{"errors": errors[:2]}, {"errors": errors[2:]}]
    trained_on = torch.tensor([0.2, 0.4])
    train_known(system, tmp_path, [{"errors": trained_on, "mask": trained_on}], held_out)
    needed = {
        "train_loss": 0.3,
        "held_out_loss": 0.4,
        "skill": 0.5,
        "reference/zero": 1.5,
        "reference/white": 1.25,
        "reference/gaussian": 0.8,
        "held_out_loss_at_log_snr/+2": 0.3,
        "held_out_loss_at_log_snr/-4": 0.6,
        "skill_at_log_snr/+2": 0.5,
        "skill_at_log_snr/-4": 0.25,
    }
    assert {tag: list(of.values()) for tag, of in logged(tmp_path).items()} == {
        tag: pytest.approx([value]) for tag, value in needed.items()
    }


def test_nothing_else_is_logged_and_every_penalty_has_a_law():
    found = {
        path.as_posix()
        for folder in ("rave", "diffwave")
        for path in Path(folder).rglob("*.py")
        if LOGS.search(path.read_text())
    }
    # What these log is all of it above.
    assert found == {"rave/training.py", "rave/prior_training.py", "diffwave/training.py"}
    penalties = {each.penalty_name for each in vars(bottleneck).values() if is_bottleneck(each)}
    # The penalty is 0; of the others see test_rave_bottleneck.py.
    assert penalties == {"kl", "penalty", "mmd", "commitment"}
    posterior = bottleneck.Bottleneck().posterior(torch.ones(1, 2, 3))
    assert bottleneck.Spherical().penalty(posterior, torch.Generator()) == 0


def is_bottleneck(each):
    return isinstance(each, type) and issubclass(each, bottleneck.Bottleneck)
