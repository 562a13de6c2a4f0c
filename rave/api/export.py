"""A run → one TorchScript file, ONNX, or a run folder of acids-rave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave.api.result import Result
from rave.api.sample_prior import open_prior
from rave.files.atomic import atomic_folder, atomic_write, check_new_folder
from rave.parsing import path_or_none

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.codec import OpenedRun

TORCHSCRIPT, ACIDS_RAVE, ONNX = "torchscript", "acids-rave", "onnx"
FORMATS = (TORCHSCRIPT, ACIDS_RAVE, ONNX)
FIDELITY = 0.95  # as in acids-rave


def export_codec(
    run: str | Path,
    out: str | Path,
    *,
    format: str = TORCHSCRIPT,
    streaming: bool = False,
    fidelity: float | None = None,
    power_of_two: bool = False,
    noise_seed: int | None = None,
    host_rate: int | None = None,
    prior: str | Path | None = None,
    ema: bool = False,
    derivative: bool = False,
) -> Result:
    """Write a trained autoencoder for other programs, and check it against the run.

    Args:
        run: Run folder of `rave train` or of acids-rave.
        out: File to write (name.ts), or folder to write.
        format: torchscript: a .ts file; acids-rave: a folder with config.gin and checkpoint, which
            counts as another codec; onnx: a folder with encoder and decoder.
        streaming: Write a .ts file for nn~ that encodes and decodes a stream block by block. The
            parameters from here to `prior` need it.
        fidelity: Keep the principal latents that carry this share of the variance, in (0, 1]; 1
            keeps all. None: 0.95, or 1 if the latents have no posterior.
        power_of_two: Round the number of latents up to a power of two, as acids-rave does.
        noise_seed: Fixed seed of the noise in decode, 0 or more; None: new noise each time.
        host_rate: Sample rate of the host in Hz; None: the model's. Only forward is available
            unless it is 1, 2 or 4 times the model's.
        prior: Run of `rave train_prior`, ours or acids-rave's: adds a method `prior` that generates
            latents.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio (acids-rave).

    Returns:
        Size, fingerprint, and the largest difference from the run on noise.

    Raises:
        ValueError: If the run cannot be read, acids-rave has no such model, or the name of the
            output does not fit its format.
        OSError: If the output cannot be written.
    """
    run, out = Path(run), Path(out)
    prior = path_or_none(prior)
    of_streaming = {
        "fidelity": fidelity,
        "power-of-two": power_of_two or None,
        "noise-seed": noise_seed,
        "host-rate": host_rate,
        "prior": prior,
    }
    _check(out, format, streaming, [n for n, value in of_streaming.items() if value is not None])
    if format == ACIDS_RAVE and (ema or derivative):
        raise ValueError(
            "A run folder of acids-rave cannot store --ema or --derivative. Leave them out here, "
            "and give them when you open the folder."
        )
    import torch

    from rave.codec import Codec, load_codec, open_run
    from rave.codec_source import check_difference, largest_difference, noise_outputs

    cpu = torch.device("cpu")
    opened = open_run(run, ema=ema, derivative=derivative)
    codec_format = opened.format
    if codec_format.is_derivative and (streaming or format == ONNX):
        raise ValueError(
            f"'{run}' was trained on the derivative of audio; a stream or ONNX cannot integrate. "
            "Export it as TorchScript without --streaming."
        )
    if format == ONNX:
        from rave.export.onnx import export_onnx

        found, notes = export_onnx(opened.model, codec_format, out), list[str]()
        fingerprint = codec_format.fingerprint
    else:
        new = atomic_write if format == TORCHSCRIPT else atomic_folder
        with new(out) as path:
            wanted = noise_outputs(Codec(opened.model, codec_format, run, cpu))
            if streaming:
                stream = _Stream(fidelity, power_of_two, noise_seed, host_rate, prior)
                notes = _write_streaming(opened, path, out, run, stream)
            else:
                notes = _write(opened, path, run, format)
            export = load_codec(path, cpu, derivative=codec_format.is_derivative)
            found = largest_difference(wanted, noise_outputs(export, wanted))
            fingerprint = export.format.fingerprint
            check_difference(found, out)
    files = [p for p in (out, *out.rglob("*")) if p.is_file()]
    figures = {
        "file": str(out),
        "format": format,
        "fingerprint": fingerprint,
        "size_mib": sum(path.stat().st_size for path in files) / 2**20,
        "largest_difference": found,
    }
    text = "'{file}' ({size_mib:.1f} MiB) equals the run to {largest_difference:.1e}."
    return Result("\n".join([text.format(**figures), *notes]), figures)


def _check(out: Path, format: str, streaming: bool, of_streaming: Sequence[str]) -> None:
    """Refuse a name that does not fit the format, and options that would have no effect."""
    if format not in FORMATS:
        raise ValueError(f"There is no format '{format}'. Choose one of: {', '.join(FORMATS)}.")
    is_script = format == TORCHSCRIPT
    if is_script and out.suffix != ".ts":
        raise ValueError(
            f"'{out}' would be a TorchScript file; give a name that ends in .ts. "
            "For a run folder of acids-rave, add --format acids-rave."
        )
    if not is_script and out.suffix == ".ts":
        raise ValueError(f"'{out}' would be a folder; give a name that does not end in .ts.")
    if streaming and not is_script:
        raise ValueError(f"--streaming writes TorchScript; leave out --format {format}.")
    if of_streaming and not streaming:
        raise ValueError(f"--{of_streaming[0]} is for --streaming; add it.")
    if format == ACIDS_RAVE:
        check_new_folder(out)


def _write(opened: OpenedRun, path: Path, run: Path, format: str) -> list[str]:
    """Write TorchScript or a run of acids-rave, and return notes for the user."""
    from rave.export.acids_rave import export_run
    from rave.export.torchscript import export_torchscript

    if format == TORCHSCRIPT:
        export_torchscript(opened.model, opened.format, path)
        return []
    notes = ["It counts as another codec: encode with it what it is to decode."]
    if opened.format.is_derivative:
        notes.append("Open it with --derivative: the folder does not state that.")
    if not export_run(run, path, opened):
        notes.append("The discriminators were not exported.")
    return notes


@dataclass(frozen=True)
class _Stream:
    """The streaming parameters of `export_codec`."""

    fidelity: float | None
    power_of_two: bool
    noise_seed: int | None
    host_rate_hz: int | None
    prior: Path | None


def _write_streaming(
    opened: OpenedRun, path: Path, out: Path, run: Path, stream: _Stream
) -> list[str]:
    """Write a module for nn~, and return notes for the user."""
    from rave.export.torchscript import export_nn_tilde
    from rave.streaming.host_module import rate_note
    from rave.streaming.nn_tilde import NNTildePrior, latent_count
    from rave.streaming.noise import FRESH_NOISE

    model, codec_format = opened.model, opened.format
    is_normal = model.bottleneck.rows_per_latent == 2
    wanted = (FIDELITY if is_normal else 1.0) if stream.fidelity is None else stream.fidelity
    count = latent_count(model.fidelity, wanted, stream.power_of_two)
    seed = FRESH_NOISE if stream.noise_seed is None else stream.noise_seed
    prior = None if stream.prior is None else open_prior(stream.prior, run, codec_format)[0]
    module = export_nn_tilde(model, codec_format, path, count, seed, stream.host_rate_hz, prior)
    rate_hz = module.sample_rate_hz
    late, late_ms = module.latency_samples, 1000 * module.latency_samples / rate_hz
    note = rate_note(out, rate_hz)
    if "decode" not in module.methods:
        text = f"In nn~ at {rate_hz} Hz: forward only. Latency: {late} samples, {late_ms:.1f} ms."
        return [text, note]
    encode, decode = module.encode_latency_samples, module.decode_latency_samples
    text = (
        f"In nn~ at {rate_hz} Hz: {count} of {model.latent_size} latents. Latency: encode {encode} "
        f"samples, decode {decode}, both {late_ms:.1f} ms"
    )
    if isinstance(module, NNTildePrior):
        text += f", prior {module.prior_delay_frames * module.hop_samples} samples"
    return [f"{text}.", note]
