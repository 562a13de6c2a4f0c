"""What a held-out loss is said to mean: never more than its held-out music shows."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from diffwave_data import autoregression, settings, write_latent_folder

from diffwave import train
from diffwave.reference_loss import LossCurve, ReferenceLosses
from diffwave.skill import TOO_LITTLE, judge, units
from rave.latent_dataset import Clip
from rave.latents.folder import LatentFile

REFERENCES = ReferenceLosses(1.0, 1.0, 0.9)


def clips(num_recordings, num_segments):
    """Return the clips of held-out segments, evenly of some recordings."""
    files = [LatentFile(f"{n}.npy", 99, None, 1, 1) for n in range(num_recordings)]
    return [Clip(files[n * num_recordings // num_segments], 0, 99) for n in range(num_segments)]


def verdict(loss, spread, num_recordings, num_segments, seed=0):
    """Judge losses about one value, with a spread over recordings."""
    chosen = clips(num_recordings, num_segments)
    draw = np.random.default_rng(seed)
    offsets = {clip.file.path: draw.normal(0, spread) for clip in chosen}
    losses = np.array([loss + offsets[clip.file.path] for clip in chosen])
    losses += loss - losses.mean()
    ones = np.ones(num_segments)
    levels = LossCurve(0.5 * ones, ones, ones, 0.9 * ones)
    return judge(losses, levels, REFERENCES, chosen)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (0.70, "skill 0.222 ± 0.0.*: the model has learned structure that no linear denoiser has"),
        (0.90, "as good as the best linear denoiser"),
        (0.95, "has learned a part of what a linear denoiser knows"),
        (1.02, "no better than taking the latents for white noise"),
    ],
)
def test_a_verdict_says_what_the_loss_means(loss, words):
    found = verdict(loss, 0.01, 20, 40).verdict
    assert re.search(words, found), found


def test_a_verdict_on_too_little_music_says_so_whatever_the_loss():
    for loss in (0.1, 0.9, 1.5):
        for num_recordings, num_segments in ((1, 1), (1, 8), (4, 14)):
            found = verdict(loss, 0.0, num_recordings, num_segments)
            assert TOO_LITTLE in found.verdict
            assert "8 recordings or 16 segments are needed" in found.verdict
            assert found.skill_uncertainty is None


def test_a_skill_within_its_uncertainty_is_no_structure():
    assert "no linear denoiser has" in verdict(0.80, 0.02, 8, 32).verdict
    found = verdict(0.80, 0.5, 8, 32)
    assert found.skill_uncertainty > found.skill > 0.1
    assert f"{TOO_LITTLE} whether the model has learned anything" in found.verdict


def test_the_uncertainty_of_the_skill_is_that_of_drawing_other_recordings():
    draws = [verdict_of_draw(seed) for seed in range(300)]
    found = np.mean([each.skill_uncertainty for each in draws])
    assert found == pytest.approx(2 * np.std([each.skill for each in draws]), rel=0.15)


def verdict_of_draw(seed):
    draw = np.random.default_rng(seed)
    chosen = clips(20, 80)
    losses = 0.7 + np.repeat(draw.normal(0, 0.1, 20), 4)
    gaussian = np.full(80, 0.9)
    return judge(losses, LossCurve(gaussian, gaussian, gaussian, gaussian), REFERENCES, chosen)


def test_segments_count_as_one_with_those_that_resemble_them():
    assert len(set(units(clips(9, 90)).tolist())) == 9
    for num_segments in (16, 64, 256):
        found = units(clips(2, num_segments))
        assert (np.bincount(found) >= 2).all()
        assert 8 <= len(set(found.tolist())) <= 32


def test_the_verdict_of_a_training_is_kept_in_its_run(tmp_path: Path, capsys):
    arrays = {f"{name}.npy": autoregression(4, 64, 0.9, ord(name)) for name in "abcd"}
    write_latent_folder(tmp_path / "latents", arrays)
    run = tmp_path / "run"
    options = [*settings("HELD_OUT_SEGMENTS=1"), "--out", str(run), "--config", "tiny"]
    assert train.main([str(tmp_path / "latents"), *options]) == 0
    out = capsys.readouterr().out
    assert TOO_LITTLE in out
    skill = json.loads((run / "skill.json").read_text())
    assert skill["verdict"] in out
    assert skill["skill_uncertainty"] is None
