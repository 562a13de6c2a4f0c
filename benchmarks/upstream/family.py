"""Build one model of acids-rave, tiny, with random weights, or open a run; write what it computes.

Runs where acids-rave is installed, and imports nothing of this project:

    python upstream_family.py build v2+causal+noise FOLDER    # +stereo: two channels
    python upstream_family.py open RUN.ckpt NUM_CHANNELS STAGES.npz [averages | derivative]

FOLDER gets a run as `rave train` leaves it (config.gin, version_0/checkpoints/best.ckpt), and
stages.npz: a seeded signal, what each stage makes of it, what the encoder makes of its first
samples at every place in a hop, and the random numbers that were drawn.
A run is opened strictly; of one trained on audio's derivative the signal's is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gin
import numpy as np
import torch

import rave

SEED, NUM_HOPS = 0, 12
# Small, but no channel of any family falls away.
SIZES = ("CAPACITY = 4", "LATENT_SIZE = 8")
FIDELITIES = (0.5, 0.7, 0.8, 0.9, 0.96, 0.98, 0.99, 1.0)
DRAWS = ("rand", "randn", "rand_like", "randn_like")
STEREO = "stereo"


class Draws:
    """Keeps the random tensors that are drawn while it is entered, or draws given ones again."""

    def __init__(self, given: Sequence[torch.Tensor] = ()) -> None:
        self.given = list(given)
        self.kept: list[torch.Tensor] = []

    def __enter__(self) -> Draws:
        self._functions = {name: getattr(torch, name) for name in DRAWS}
        for name, draw in self._functions.items():

            def keep(*args: Any, _draw: Any = draw, **kwargs: Any) -> torch.Tensor:
                self.kept.append(self.given.pop(0) if self.given else _draw(*args, **kwargs))
                return self.kept[-1].clone()

            setattr(torch, name, keep)
        return self

    def __exit__(self, *_: object) -> None:
        for name, draw in self._functions.items():
            setattr(torch, name, draw)


def build(kinds: Sequence[str]) -> Any:
    """Return the model of some configs, the later ones changing the earlier ones."""
    package = Path(str(rave.__file__)).parent
    for folder in (package, package / "configs"):
        gin.add_config_file_search_path(str(folder))
    sizes = [size for size in SIZES if "wasserstein" not in kinds and "spherical" not in kinds]
    gin.parse_config_files_and_bindings(
        [f"{kind}.gin" for kind in kinds if kind != STEREO], sizes or SIZES[:1], skip_unknown=False
    )
    torch.manual_seed(SEED)
    return vars(rave)["RAVE"](n_channels=2 if STEREO in kinds else 1).eval()


def fill(model: Any) -> None:
    """Give a model the statistics that training would have found."""
    size = len(model.fidelity)
    rotation, _ = torch.linalg.qr(torch.randn(size, size))
    model.latent_pca.copy_(rotation)
    model.latent_mean.copy_(0.1 * torch.randn(size))
    fidelity = np.interp(np.linspace(0, 1, size), np.linspace(0, 1, len(FIDELITIES)), FIDELITIES)
    model.fidelity.copy_(torch.from_numpy(fidelity))
    for name, buffer in model.named_buffers():
        if name.endswith("warmed_up"):
            buffer.fill_(1)
    if hasattr(model.encoder, "rvq"):
        fill_codebooks(model)


@torch.no_grad()
def fill_codebooks(model: Any) -> None:
    """Give each stage codes as large as what is left for it, and use them."""
    rows = model.encode(torch.randn(1, model.n_channels, 65536))[0]
    mean, std = rows.mean(1), rows.std(1)
    for layer in model.encoder.rvq.layers:
        codebook = layer._codebook
        codebook.embed.copy_(mean + std * torch.randn_like(codebook.embed))
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1)
        codebook.inited.fill_(1)
        mean, std = torch.zeros_like(mean), 0.8 * std
    model.encoder.enabled.fill_(1)


@torch.no_grad()
def stages(model: Any, is_derivative: bool = False) -> dict[str, Any]:
    """Return what each stage makes of a seeded signal."""
    hop = 65536 // model.encode(torch.zeros(1, model.n_channels, 65536)).shape[-1]
    rng = np.random.default_rng(SEED)
    time = np.arange(NUM_HOPS * hop) / 44100
    tone = np.sin(2 * np.pi * (110 + 2000 * time) * time)
    noise = rng.standard_normal((1, model.n_channels, len(time)))
    audio = (0.3 * tone + 0.05 * noise).astype(np.float32)
    found = {"audio": audio}
    if is_derivative:
        differentiate = import_module("rave.dataset").get_derivator_integrator(model.sr)[0]
        audio = differentiate(audio[0])[None].astype(np.float32)
    given = torch.from_numpy(audio)
    if model.pqmf is not None:
        rows = given.reshape(-1, 1, given.shape[-1])  # each channel has bands of its own
        bands = model.pqmf(rows)
        found["bands"] = bands.reshape(1, -1, bands.shape[-1]).numpy()
    for samples in range(hop, 3 * hop + 1, hop // 32 + 3):  # odd steps: every place in a hop
        found[f"ends_{samples}"] = model.encode(given[..., :samples]).numpy()
    encoded = model.encode(given)
    with Draws() as draws:
        latents = model.encoder.reparametrize(encoded)[0]
    found |= {"encoded": encoded.numpy(), "latents": latents.numpy()}
    found |= {f"latent_draw_{i}": draw.numpy() for i, draw in enumerate(draws.kept)}
    with Draws() as draws:
        found["decoded_bands"] = model.decoder(latents).numpy()
    found |= {f"draw_{i}": draw.numpy() for i, draw in enumerate(draws.kept)}
    with Draws(draws.kept):
        found["decoded"] = model.decode(latents).numpy()
    return found


def save(kind: str, out: str) -> None:
    """Write a new run and its stages."""
    folder = Path(out)
    model = build(kind.split("+"))
    fill(model)
    checkpoints = folder / "version_0" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    config = gin.operative_config_str()
    if STEREO in kind.split("+"):  # acids-rave does not say it, and so cannot export such a run
        config += "\nmodel.RAVE.n_channels = 2\n"
    (folder / "config.gin").write_text(config)
    checkpoint = {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": model.state_dict(),
    }
    torch.save(checkpoint, checkpoints / "best.ckpt")
    np.savez(folder / "stages.npz", **stages(model))


def read(checkpoint: str, num_channels: str, out: str, how: str = "") -> None:
    """Write the stages of a run."""
    gin.parse_config_file(import_module("rave.core").search_for_config(checkpoint))
    model = vars(rave)["RAVE"](n_channels=int(num_channels)).eval()
    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    weights = content["state_dict"]
    if how == "averages":
        weights = {**weights, **content["callbacks"]["EMA"]}
    model.load_state_dict(weights, strict=True)
    np.savez(out, **stages(model, how == "derivative"))


if __name__ == "__main__":
    (save if sys.argv[1] == "build" else read)(*sys.argv[2:])
