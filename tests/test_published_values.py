"""Constants that others have published, and roundings: each is what its source says."""

from __future__ import annotations

import math
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffwave.sampling.editing import steps_of
from diffwave.sampling.request import Request
from diffwave.schedule import LINEAR_SCHEDULES, SCHEDULES, named_schedule
from rave.audio.blocks import STEREO_GAINS, mixing_matrix
from rave.blocks.noise import amplitude
from rave.blocks.snake import Snake

ROOT = Path(__file__).resolve().parents[1]
# First and last beta, and how many: Kong et al. 2020 (arXiv:2009.09761), section 5 and table 1; the
# configuration that Liu et al. 2023 (arXiv:2301.12503) published; and those of the diary, by name.
LINEAR = {
    "diffwave": (0.0001, 0.05, 50),
    "audioldm": (0.0015, 0.0195, 1000),
    "linear-low-0.0085": (0.00001, 0.0085, 1000),
    "linear-low-0.005": (0.00001, 0.005, 1000),
    "linear-low-0.0195": (0.00001, 0.0195, 1000),
}
# ITU-R BS.775-4, annex 4, table 2: what left and right get of each channel.
HALF_POWER = 1 / math.sqrt(2)
BS_775 = {
    "FL": (1, 0),
    "FR": (0, 1),
    "FC": (HALF_POWER, HALF_POWER),
    "LFE": (0, 0),
    "SL": (HALF_POWER, 0),
    "SR": (0, HALF_POWER),
}


def test_every_linear_schedule_has_a_source():
    assert LINEAR.keys() == LINEAR_SCHEDULES.keys()
    assert set(SCHEDULES) == {"cosine", "flow", *LINEAR}


@pytest.mark.parametrize("name", LINEAR)
def test_betas_of_a_linear_schedule_rise_evenly_between_those_of_its_source(name):
    first, last, count = LINEAR[name]
    betas = named_schedule(name).betas.numpy()
    np.testing.assert_allclose(betas, np.linspace(first, last, count), rtol=1e-9)


def test_the_cosine_schedule_is_equation_17_of_nichol_and_dhariwal():
    t = np.arange(1, 1000) / 1000
    f = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    wanted = f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    alpha_bar = named_schedule("cosine").alpha_bar.numpy()
    np.testing.assert_allclose(alpha_bar, [*wanted, 0.0], rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 100, 1000])
def test_a_variation_makes_the_nearest_number_of_steps(num_steps):
    for share in np.linspace(0, 1, 97):
        assert abs(steps_of(float(share), num_steps) - share * num_steps) <= 0.5 + 1e-9
    # A share that is typed is seldom the very fraction: 0.29 · 100 is 28.999….
    exact = [steps_of(round(number / num_steps, 4), num_steps) for number in range(num_steps + 1)]
    assert exact == list(range(num_steps + 1))


@pytest.mark.parametrize("rate_hz", [21.533203125, 43.06640625, 344.53125])
@pytest.mark.parametrize("off", [-0.45, 0.0, 0.45])
def test_seconds_are_the_nearest_frame(rate_hz, off, monkeypatch, tmp_path):
    clip = np.zeros((2, 400), np.float32)
    monkeypatch.setattr("diffwave.sampling.request._read_clip", lambda path, trained: (clip, 0.0))
    trained: Any = SimpleNamespace(header=SimpleNamespace(frame_rate_hz=rate_hz))

    def task(**options: Any) -> Any:
        return Request(**options).task(trained, None)

    for count in (1, 10, 99, 333):
        seconds = (count + off) / rate_hz
        assert task(seconds=seconds).num_frames == count
        assert task(seconds=seconds, continued=tmp_path).num_frames == 400 + count
        later = (count + 3 + off) / rate_hz
        assert task(inpaint=tmp_path, from_s=seconds, to_s=later).span == (count, count + 3)


def test_channels_are_mixed_as_bs_775_says():
    gains = np.array([BS_775[name] for name in BS_775]).T
    wanted = gains / gains.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixing_matrix(6, 2, list(BS_775)), wanted, rtol=1e-6)
    np.testing.assert_allclose(mixing_matrix(6, 1, list(BS_775))[0], wanted.mean(axis=0), rtol=1e-6)


def test_each_position_is_mixed_as_its_mirror_image():
    mirrored = str.maketrans("LR", "RL")
    for name, (left, right) in STEREO_GAINS.items():
        if name not in ("LFE", "LFE2"):  # their L says low
            assert STEREO_GAINS[name.translate(mirrored)] == (right, left)
            assert left + right > 0
        else:
            assert left == right == 0


def test_amplitudes_of_noise_are_the_exponentiated_sigmoid_of_ddsp():
    x = torch.linspace(-20, 20, 41, dtype=torch.float64)
    wanted = 2 * (1 / (1 + torch.exp(-x))) ** 2.3 + 1e-7
    torch.testing.assert_close(amplitude(x), wanted)


def test_snake_is_equation_3_of_ziyin_et_al():
    x = torch.linspace(-3, 3, 61)[None, None]
    snake = Snake(1)
    for a in (0.5, 1.0, 4.0):
        with torch.no_grad():
            snake.alpha.fill_(a)
            torch.testing.assert_close(snake(x), x + torch.sin(a * x) ** 2 / a)


# Of files on users' disks: another number here refuses all that were written before.
VERSIONS = {
    "rave.audio.prepared:VERSION": 1,
    "rave.codec_format:TORCHSCRIPT_VERSION": 1,
    "rave.experiment:RUN_VERSION": 1,
    "rave.held_out:SPLIT_VERSION": 1,
    "rave.latents.folder:VERSION": 1,
    "rave.latents.shards:VERSION": 1,
    "rave.training_audio:VERSION": 1,
    "diffwave.conditions.controls:VERSION": 1,
    "diffwave.conditions.spectrogram:VERSION": 1,
    "diffwave.evaluation.figures:VERSION": 1,
    "diffwave.experiments.laboratory:VERSION": 1,
    "diffwave.run:DATA_VERSION": 1,
}


def test_formats_of_files_have_the_versions_that_were_published():
    found = {}
    for path in (p for package in ("rave", "diffwave") for p in Path(ROOT, package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in re.findall(r"\b((?:[A-Z]+_)?VERSION)\b[A-Z_, ]* = ", path.read_text()):
            found[f"{module}:{name}"] = getattr(import_module(module), name)
    of_others = {"rave.upstream.lmdb_file:VERSION", "rave.runs.checkpoint_file:OLD_VERSION"}
    assert {name: found[name] for name in found.keys() - of_others} == VERSIONS
