"""Export a trained autoencoder as ONNX: `encoder.onnx`, `decoder.onnx` and `codec.json`.

encoder.onnx   audio (1, C, n·hop) → mean, std (1, D, n)
decoder.onnx   latents (1, D + A, n), the lowest A rows from N(0, 1) (num_noise_rows in codec.json),
               and for those with noise (1, noise_rows, n·noise_steps_per_frame) uniform in [-1, 1),
               where has_clock (1, 1, n·noise_steps_per_frame) instead, the number of each step
               → audio (1, C, n·hop)

Learnt statistics of source and target (AdaIN) are fixed in them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rave.blocks.adain import AdaIN
from rave.blocks.bottleneck import Discrete
from rave.blocks.convolution import fold_weight_norm
from rave.codec_format import TORCHSCRIPT_HEADER, CodecFormat
from rave.codec_source import check_difference, largest_difference
from rave.files.atomic import atomic_write
from rave.model import RAVE

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
EXAMPLE_FRAMES, CHECKED_FRAMES = 8, 13  # another length than the traced one


class _Encoder(nn.Module):
    def __init__(self, model: RAVE) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.posterior_parameters(audio)


class _Decoder(nn.Module):
    def __init__(self, model: RAVE) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.model.decode(latents, noise)


def _inputs(model: RAVE, codec_format: CodecFormat, num_frames: int) -> list[dict[str, Tensor]]:
    """Return inputs of encoder and decoder by name."""
    draw = torch.Generator().manual_seed(num_frames)
    size = 1, model.num_channels, num_frames * model.hop_samples
    audio = 0.3 * torch.randn(size, generator=draw)
    num_rows = model.latent_size + model.num_noise_rows
    latents = {"latents": torch.randn(1, num_rows, num_frames, generator=draw)}
    steps = num_frames * codec_format.noise_steps_per_frame
    if codec_format.has_clock:
        latents["noise"] = torch.arange(steps, dtype=torch.float32).expand(1, 1, -1)
    elif codec_format.noise_rows:
        rows = torch.rand(1, codec_format.noise_rows, steps, generator=draw)
        latents["noise"] = 2 * rows - 1
    return [{"audio": audio}, latents]


def export_onnx(model: RAVE, codec_format: CodecFormat, folder: Path) -> float:
    """Write a model as ONNX and compare it with torch. Its layers are fixed in place.

    Args:
        model: Model to write.
        codec_format: Format to state in codec.json.
        folder: Folder to write into.

    Returns:
        The largest difference of any output, relative to its largest value.

    Raises:
        ValueError: If the packages of the extra [onnx] are missing, or the difference is too large.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports each use to its makers
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ValueError(
            f"ONNX needs a package that is not installed ({error.name}). "
            "Install it with pip install -c constraints.txt -e '.[onnx]'."
        ) from error
    fold_weight_norm(model.eval().requires_grad_(False))
    for part in list(model.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, (AdaIN, Discrete)):
                setattr(part, name, layer.fixed())
    frames = torch.export.Dim("frames", min=2)
    per_frame = {"audio": model.hop_samples, "latents": 1}
    per_frame["noise"] = codec_format.noise_steps_per_frame
    examples = _inputs(model, codec_format, EXAMPLE_FRAMES)
    checks = _inputs(model, codec_format, CHECKED_FRAMES)
    contents: dict[str, bytes] = {}
    wanted: list[Any] = []
    found: list[Any] = []
    parts = (_Encoder(model), ENCODER, ["mean", "std"]), (_Decoder(model), DECODER, ["audio"])
    for (part, name, outputs), example, check in zip(parts, examples, checks, strict=True):
        shapes = {key: {2: per_frame[key] * frames} for key in example}
        with _quiet():
            program: Any = torch.onnx.export(
                part,
                tuple(example.values()),
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=shapes,
                dynamo=True,
                # 2026-12: its optimiser takes what is at most 1e-8 for 0, and so drops the floor
                # of a logarithm. ONNX Runtime optimises anyway.
                optimize=False,
                verbose=False,
            )
        contents[name] = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(contents[name])
        found += session.run(None, {key: value.numpy() for key, value in check.items()})
        expected = part(**check)
        wanted += [each.numpy() for each in (expected if len(outputs) > 1 else [expected])]
    difference = largest_difference(wanted, found)
    check_difference(difference, folder)
    contents[TORCHSCRIPT_HEADER] = codec_format.to_json().encode()
    for name, content in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch.onnx's messages about packages that are not used here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # 2026-11: torch.onnx uses functions of onnxscript and copyreg that are deprecated.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
