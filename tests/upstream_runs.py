"""Run folders in the form of acids-rave, made from the reference data in golden/."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from rave_models import SHORT, SMALL, build_model

from rave import experiment
from rave.codec import load_run
from rave.files.atomic import atomic_write
from rave.runs.checkpoint import last_checkpoint

GOLDEN = Path(__file__).parent / "golden"
CONFIG = (GOLDEN / "acids_rave_v2.gin").read_text()
CHECKPOINT = Path("version_0") / "checkpoints" / "last.ckpt"


@cache
def golden_arrays() -> dict[str, torch.Tensor]:
    """Return the reference arrays."""
    with np.load(GOLDEN / "acids_rave_v2.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def golden_weights() -> dict[str, torch.Tensor]:
    """Return the weights of acids-rave, by its names, with axes of the latents added."""
    prefix = "weights/"
    weights = {k[len(prefix) :]: v for k, v in golden_arrays().items() if k.startswith(prefix)}
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    return {
        **weights,
        "latent_pca": axes,
        "latent_mean": torch.randn(16, generator=generator),
        "fidelity": torch.linspace(0.1, 1, 16),
        "receptive_field": torch.tensor([27117, 26428]),
        "encoder.warmed_up": torch.tensor(0),
    }


def checkpoint_of(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    """Return a checkpoint of acids-rave with these weights."""
    return {"epoch": 0, "global_step": 60, "state_dict": weights, "callbacks": {}}


def write_upstream_run(
    folder: Path, config: str = CONFIG, weights: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a run folder of acids-rave, by default the reference one, and return it."""
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    (folder / "config.gin").write_text(config)
    content = checkpoint_of(golden_weights() if weights is None else weights)
    torch.save(content, folder / CHECKPOINT)
    return folder


def write_whole_run(
    folder: Path, *settings: str, step: int = 0, whole_v2: bool = False, recipe: str = "v2"
) -> Path:
    """Write a run of ours with its discriminators, as `rave train` does before it trains."""
    if not whole_v2:
        settings = (*SMALL, *(SHORT if recipe == "v2" else ()), *settings)
    model = build_model(recipe, *settings)
    discriminator = experiment.build_training().discriminator
    config = experiment.resolved_config()
    experiment.save_run(folder, "rave", config, config)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"discriminator.{name}": v for name, v in discriminator.state_dict().items()}
    with atomic_write(last_checkpoint(folder)) as temporary:
        torch.save({"state_dict": state, "global_step": step}, temporary)
    return folder


def assert_every_length_equals(model, name):
    """Assert that a model encodes audio of 1 to 3 hops as acids-rave does, every frame of it.

    Args:
        model: Of ours.
        name: Of its arrays in golden/acids_rave_ends.npz.

    Where acids-rave gives a frame less, ours is that of zeros behind the audio.
    """
    with np.load(GOLDEN / "acids_rave_ends.npz") as file:
        lengths, counts, rows = (file[f"{name}/{part}"] for part in ("lengths", "frames", "rows"))
    hop, starts = model.hop_samples, np.cumsum(counts)
    assert len({length % model.pqmf.num_bands for length in lengths}) == model.pqmf.num_bands
    shape = (1, model.num_channels, 3 * hop)
    audio = (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    audio = torch.from_numpy(audio)
    for length, needed in zip(lengths, np.split(rows, starts[:-1], axis=1), strict=True):
        cut = audio[..., :length]
        with torch.inference_mode():
            found = model.encoder_rows(cut)[0]
            assert found.shape[1] == -(-length // hop)
            count = needed.shape[1]
            if count < found.shape[1]:
                whole = torch.nn.functional.pad(cut, (0, -length % hop))
                assert torch.equal(found[:, count:], model.encoder_rows(whole)[0, :, count:])
        error = np.abs(found[:, :count].numpy() - needed).max()
        assert error <= 1e-6 * np.abs(rows).max(), length


def assert_refused(folder, config, weights, old, new, what):
    """Assert that a run whose config says `new` for `old` is refused, and that the reason is told.

    Args:
        folder: Of the run to write.
        config: That opens.
        weights: Of the run.
        old: What the config says.
        new: What it is to say.
        what: The words for it.
    """
    assert old in config
    run = write_upstream_run(folder, config.replace(old, new), weights)
    with pytest.raises(ValueError, match="which this version cannot open") as error:
        load_run(run)
    assert what in str(error.value)
