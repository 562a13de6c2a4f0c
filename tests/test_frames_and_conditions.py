"""Conditions belong to the frames they stand for, in all that makes latents.

Conditions are ramps, and the model that is asked makes what it is told: what comes out is the ramp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffwave_data import HOP, RATE_HZ, write_latent_folder
from planted import NUM_MELS, RATIO, ramp
from torch import Tensor, nn

from diffwave import inference
from diffwave.conditioner import (
    LABEL,
    SPECTROGRAM,
    Conditioner,
    ControlConditioner,
    LabelConditioner,
    SpectrogramConditioner,
)
from diffwave.conditions.controls import CONTROLS, NUM_CHANNELS
from diffwave.model import LatentDiffusion
from diffwave.run import DiffusionRun
from diffwave.sampling.overlap import Windows
from diffwave.schedule import named_schedule
from diffwave.standardizer import Standardizer
from diffwave.streaming.sampler import StreamingSampler

SIZE, NUM_FRAMES, WINDOW, REACH = 2, 150, 40, 9
PLACES = np.arange(NUM_FRAMES, dtype=np.float32)
OF_LABEL = 1000.0
CURVES = (*CONTROLS, SPECTROGRAM)
# What an obedient model makes of all curves and the second label.
WANTED = len(CURVES) * PLACES + OF_LABEL


class Obedient(nn.Module):
    """A network that guesses its condition, whatever it hears."""

    receptive_field_frames, condition_channels = REACH, 1

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the condition in all rows."""
        return 0 * noisy + self.weight * condition


class First(nn.Module):
    """The first channel of a curve, at the first of its frames in each latent frame."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, curve: Tensor) -> Tensor:
        """Return (B, 1, N)."""
        return curve[:, :1, :: self.ratio]


def obedient_model(*names: str, size: int = SIZE) -> LatentDiffusion:
    """Return a model that makes the sum of what it follows."""
    made: dict[str, Conditioner] = {
        **{name: ControlConditioner(count, 1) for name, count in NUM_CHANNELS.items()},
        SPECTROGRAM: SpectrogramConditioner(NUM_MELS, 1, HOP, HOP // RATIO),
        LABEL: LabelConditioner(["a", "b"], 1),
    }
    for conditioner in made.values():
        if isinstance(conditioner, LabelConditioner):
            conditioner.embedding.weight.data = torch.tensor([[0.0], [OF_LABEL]])
        else:
            conditioner.layers = First(conditioner.ratio)
    chosen = {name: made[name] for name in names}
    standardizer, schedule = Standardizer(size, size), named_schedule("cosine")
    model = LatentDiffusion(standardizer, Obedient(size), schedule, "x0", conditioners=chosen)
    return model.eval().requires_grad_(False)


# Every way of `diffwave.inference` to make latents, by the option that asks for it.
WAYS: dict[str, tuple[str, ...]] = {
    "generate": (),
    "vary": ("--strength", "0.5"),
    "inpaint": ("--from", "3", "--to", "5"),
    "continued": ("--seconds", "3.5"),
}
NUM_GIVEN = 90
FRAME_RATE_HZ = RATE_HZ / HOP


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Return a function that runs `diffwave.inference` with a model that makes what it is told."""
    header = write_latent_folder(tmp_path / "latents", {"a.npy": np.tile(WANTED, (SIZE, 1))})
    given = tmp_path / "given.npy"
    np.save(given, np.tile(WANTED[:NUM_GIVEN], (SIZE, 1)))
    model = obedient_model(*CURVES, LABEL)
    trained = DiffusionRun(tmp_path, model, header, 1)
    monkeypatch.setattr("diffwave.run.open_run", lambda _: trained)
    follow = ["--label", "b"]
    for name in CURVES:
        conditioner = model.named_conditioners()[name]
        np.save(tmp_path / f"{name}.npy", ramp(PLACES, conditioner.num_channels, conditioner.ratio))
        option, is_mel = f"{tmp_path / name}.npy", name == SPECTROGRAM
        follow += ["--spectrogram", option] if is_mel else ["--control", f"{name}={option}"]

    def make(way: str, *more: str) -> np.ndarray:
        option = {"generate": [], "continued": ["--continue", str(given)]}
        words = [*option.get(way, [f"--{way}", str(given)]), *WAYS[way], *follow, *more]
        words += ["--steps", "3", "--count", "2", "--force"]
        assert inference.main([str(tmp_path), str(tmp_path / "out"), *words]) == 0
        one, other = (np.load(tmp_path / "out" / f"generated_00{n}.npy") for n in range(2))
        np.testing.assert_array_equal(one, other)
        return one

    return make


def test_every_way_to_make_latents_is_listed_here() -> None:
    groups = inference.parser()._mutually_exclusive_groups
    (edits,) = ({action.dest for action in group._group_actions} for group in groups)
    assert edits | {"generate"} == set(WAYS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("window", [WINDOW, 10 * NUM_FRAMES])
def test_what_is_made_follows_the_conditions_of_its_own_frames(make, way, window) -> None:
    words = [] if way == "inpaint" else ["--window", f"{window / FRAME_RATE_HZ:.4f}"]
    found = make(way, *words)
    assert found.shape[1] >= NUM_GIVEN
    np.testing.assert_allclose(found, np.tile(WANTED[: found.shape[1]], (SIZE, 1)), rtol=1e-5)


def test_what_is_exaggerated_is_the_condition_of_the_same_frames(make) -> None:
    found = make("generate", "--window", f"{WINDOW / FRAME_RATE_HZ:.4f}", "--guidance", "2")
    np.testing.assert_allclose(found, np.tile(2 * WANTED, (SIZE, 1)), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("block", [1, 7, 64])
def test_a_stream_follows_what_comes_in_with_its_own_frames(block) -> None:
    names = [name for name in CURVES if name != SPECTROGRAM]
    model = obedient_model(*names, LABEL)
    windows = Windows.of(model, WINDOW)
    sampler = StreamingSampler(model, windows, "dpm-solver++", 4).eval()
    rows = {name: ramp(PLACES, count) for name, count in sampler.followed.items()}
    rows[LABEL] = np.ones((1, NUM_FRAMES), np.float32)
    given = torch.from_numpy(np.concatenate([rows[name] for name in sampler.followed]))[None]
    parts = [
        sampler(part, 2, 1.0, 1.0, [True] * len(rows), 0, index == 0)
        for index, part in enumerate(given.split(block, 2))
    ]
    made = torch.cat(parts, 2)[0, :, sampler.delay_frames :].numpy()
    wanted = len(names) * PLACES[: made.shape[1]] + OF_LABEL
    assert made.shape[1] > WINDOW
    np.testing.assert_allclose(made, np.tile(wanted, (SIZE, 1)), rtol=1e-5)
