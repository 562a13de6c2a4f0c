"""musicnn: a network that tags music; its embeddings show how similar two sets of recordings are.

Weights of the MagnaTagATune model (rave/weights, ISC licence beside them); the layers are written
from the papers.

B patches, N frames of a patch, F mel bands, C channels.

    log-mel ─┬─ timbral filters, as high as most of the spectrum ──┐
             └─ temporal filters, one band high ───────────────────┴─ front ─┬─ dense layers ─┐
                                                                             └────────────────┴─
    ─ max and mean over time ─ 200 (the embedding) ─ 50 tags

Source: Pons & Serra 2019, arXiv:1909.06654; Pons et al. 2018, arXiv:1711.02520, figures 2 and 3.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.compute.arrays import Float32Array
from rave.compute.numba_safe import librosa

# Input on which the weights were trained.
SAMPLE_RATE_HZ, FFT_SAMPLES, HOP_SAMPLES, NUM_MELS = 16000, 512, 256, 96
POWER_SCALE = 1e4
PATCH_FRAMES = 187  # 3 s
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_SAMPLES
# Outputs of the layer before the tags, and values that are pooled.
EMBEDDING_SIZE, POOLED_SIZE = 200, 1506
# Epsilon of TensorFlow's batch normalisation, with which the weights were trained.
NORM_EPSILON = 1e-3
# In the order of the last layer: the 50 most frequent of MagnaTagATune.
# fmt: off
TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male",
    "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman",
    "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice",
    "weird", "country", "metal", "female voice", "choral",
)
# fmt: on
# Patches computed at once.
BATCH_SIZE = 8


class _Filters(nn.Module):
    """A convolution over (time, bands), then ReLU and normalisation.

    Args:
        num_in: C of the input.
        num_out: C of the output.
        num_frames: Frames that a filter covers; time keeps its length.
        num_bands: Bands that a filter covers; it slides over the others.
    """

    def __init__(self, num_in: int, num_out: int, num_frames: int, num_bands: int) -> None:
        super().__init__()
        # As TensorFlow pads: the odd zero comes last.
        self._padding = (0, 0, (num_frames - 1) // 2, num_frames // 2)
        self.convolution = nn.Conv2d(num_in, num_out, (num_frames, num_bands))
        self.norm = nn.BatchNorm2d(num_out, eps=NORM_EPSILON)

    def forward(self, values: Tensor) -> Tensor:
        """Return (B, C, N) of (B, C', N, F): the maximum of each filter over bands."""
        found = self.norm(functional.relu(self.convolution(functional.pad(values, self._padding))))
        return found.amax(dim=3)


class Musicnn(nn.Module):
    """The network of musicnn, described above."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=NORM_EPSILON)
        self.front = nn.ModuleList(
            [_Filters(1, 204, 7, bands) for bands in (38, 67)]  # 0.4 and 0.7 of the bands
            + [_Filters(1, 51, frames, 1) for frames in (128, 64, 32)]
        )
        self.middle = nn.ModuleList(_Filters(num_in, 64, 7, 1) for num_in in (561, 64, 64))
        self.pool_norm = nn.BatchNorm1d(POOLED_SIZE, eps=NORM_EPSILON)
        self.dense = nn.Linear(POOLED_SIZE, EMBEDDING_SIZE)
        self.dense_norm = nn.BatchNorm1d(EMBEDDING_SIZE, eps=NORM_EPSILON)
        self.output = nn.Linear(EMBEDDING_SIZE, len(TAGS))

    def embed(self, patches: Tensor) -> Tensor:
        """Return embeddings (B, 200) of log-mel patches (B, N, F).

        Of all layers, this one separates codecs from recordings best (docs/evaluation.md).
        """
        values = self.input_norm(patches[:, None])
        front = torch.cat([filters(values) for filters in self.front], dim=1)
        dense = [self.middle[0](front[..., None])]
        for filters in list(self.middle)[1:]:
            dense.append(dense[-1] + filters(dense[-1][..., None]))
        every = torch.cat([front, *dense], dim=1)
        # Maximum and mean of each channel lie side by side.
        pooled = torch.stack([every.amax(dim=2), every.mean(dim=2)], dim=2).flatten(1)
        return functional.relu(self.dense(self.pool_norm(pooled)))

    def forward(self, patches: Tensor) -> Tensor:
        """Return the probability of each of `TAGS`, (B, 50), of log-mel patches (B, N, F)."""
        return torch.sigmoid(self.output(self.dense_norm(self.embed(patches))))


def log_mel_patches(audio: Float32Array) -> Float32Array:
    """Return the network's input (B, N, F) for audio (T,) at 16 kHz, in adjacent patches.

    A rest below 3 s at the end is dropped.
    """
    power = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE_HZ, n_fft=FFT_SAMPLES, hop_length=HOP_SAMPLES, n_mels=NUM_MELS
    )
    log_mel = np.log10(1.0 + POWER_SCALE * power).T
    count = len(log_mel) // PATCH_FRAMES
    patches = log_mel[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, NUM_MELS)
    return np.asarray(patches, dtype=np.float32)


@torch.inference_mode()
def embed(model: Musicnn, audio: Float32Array) -> Float32Array:
    """Return embeddings (B, 200) of the patches of audio (T,) at 16 kHz."""
    batches = torch.from_numpy(log_mel_patches(audio)).split(BATCH_SIZE)
    found = [model.embed(batch).numpy() for batch in batches if len(batch)]
    return np.concatenate(found) if found else np.zeros((0, EMBEDDING_SIZE), dtype=np.float32)


def load_musicnn() -> Musicnn:
    """Return the network with its weights, in evaluation mode."""
    model = Musicnn()
    path = resources.files("rave") / "weights" / "musicnn.npz"
    with path.open("rb") as file, np.load(file) as weights:
        arrays = {name: torch.from_numpy(np.array(weights[name])) for name in weights.files}
    filters: list[Any] = [*model.front, *model.middle]
    norms: list[Any] = [
        model.input_norm,
        *(each.norm for each in filters),
        model.pool_norm,
        model.dense_norm,
    ]
    for number, norm in enumerate(norms):
        prefix = "batch_normalization" + (f"_{number}" if number else "")
        state = {
            "weight": arrays[f"{prefix}__gamma"],
            "bias": arrays[f"{prefix}__beta"],
            "running_mean": arrays[f"{prefix}__moving_mean"],
            "running_var": arrays[f"{prefix}__moving_variance"],
            "num_batches_tracked": torch.tensor(0),
        }
        norm.load_state_dict(state)
    for number, each in enumerate(filters):
        prefix = "conv2d" + (f"_{number}" if number else "")
        kernel = arrays[f"{prefix}__kernel"]  # (frames, bands, C', C)
        weight = kernel.permute(3, 2, 0, 1)
        if each in model.middle:  # there channels are stored in place of bands
            weight = weight.transpose(1, 3)
        each.convolution.load_state_dict({"weight": weight, "bias": arrays[f"{prefix}__bias"]})
    for name, layer in (("dense", model.dense), ("dense_1", model.output)):
        layer.load_state_dict(
            {"weight": arrays[f"{name}__kernel"].T, "bias": arrays[f"{name}__bias"]}
        )
    return model.eval().requires_grad_(False)
