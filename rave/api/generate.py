"""Audio → its reconstruction by the autoencoder: encode and decode in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rave.api.decode import JOURNAL_NAME, decode_latents
from rave.api.encode import encode_files
from rave.api.result import Result
from rave.audio.io import list_audio_files
from rave.files.atomic import check_no_source, check_output_folder
from rave.jobs.journal import check_own
from rave.jobs.loop import result_names
from rave.latents.bending import Bend
from rave.latents.folder import LatentHeader
from rave.parsing import check_seed

LATENTS_NAME = ".latents"


def generate_audio(
    codec: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out_audio_dir: str | Path,
    *,
    sample: bool = False,
    as_encoded: bool = False,
    codec_rate: bool = False,
    shift: Mapping[int, float] | None = None,
    scale: Mapping[int, float] | None = None,
    match_level: bool = False,
    force: bool = False,
    ema: bool = False,
    derivative: bool = False,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    seed: int = 0,
) -> Result:
    """Write the autoencoder's reconstruction of each audio file as 16-bit WAV.

    Each has the name, length and sample rate of its source. The output folder keeps the latents in
    .latents. Sources are never overwritten.

    Args:
        codec: Run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only
            files you trust).
        inputs: Audio file or folder, or several of them.
        out_audio_dir: Folder to write.
        sample: Draw from the posterior instead of decoding its mean.
        as_encoded: Decode uninformative dimensions as stored, instead of as the noise that the
            decoder was trained on.
        codec_rate: Write at the codec's sample rate instead of each source's.
        shift: Value to add to the latents along each principal axis (0: largest variance).
        scale: Factor of their distance from the mean along each principal axis.
        match_level: Bring audio to the level of the codec's training audio, and undo the gain after
            decoding.
        force: Replace existing files.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio (acids-rave).
        device: auto, cpu, cuda, cuda:N or mps.
        backend: auto, torch or openvino.
        precision: float32 or bfloat16, of encoder and decoder.
        seed: Random seed of `sample` and of the decoder's noise.

    Returns:
        What `encode_folder` and `decode_folder` report.

    Raises:
        ValueError: If codec, inputs or folder cannot be used, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    check_seed(seed)
    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    input_paths, folder = [Path(path) for path in inputs], Path(out_audio_dir)
    latents_dir = folder / LATENTS_NAME
    sources = _sources(input_paths)
    _check_outputs(sources, input_paths, folder, is_forced=force)
    bend = Bend(shift or {}, scale or {})
    from rave.codec_source import CodecSource

    opener = CodecSource.of(codec, device, backend, precision, ema, derivative)
    encoded = encode_files(
        opener,
        sources,
        latents_dir,
        seed=seed if sample else None,
        match_level=match_level,
        force=force,
    )
    decoded = decode_latents(
        opener,
        LatentHeader.read(latents_dir),
        latents_dir,
        folder,
        as_encoded=as_encoded,
        codec_rate=codec_rate,
        bend=bend,
        force=force,
        seed=seed,
    )
    levels = encoded.figures["levels"]
    summary, figures = decoded.summary, {**decoded.figures, "levels": levels}
    if encoded.num_skipped or any(each["remark"] for each in levels.values()):
        summary = f"{encoded.summary}\n{summary}"
    if encoded.num_skipped:
        figures["skipped"] = encoded.figures["skipped"] | decoded.figures["skipped"]
        figures["num_skipped"] = len(figures["skipped"])
    num_skipped = encoded.num_skipped + decoded.num_skipped
    return Result(summary, figures, num_skipped, warnings=decoded.warnings)


def _sources(inputs: Sequence[Path]) -> dict[str, Path]:
    """Return all audio files of some files and folders, by the names of their results."""
    sources: dict[str, Path] = {}
    for path in inputs:
        found = {path.name: path} if path.is_file() else list_audio_files(path)
        for name, source in found.items():
            if name in sources and not sources[name].samefile(source):
                raise ValueError(
                    f"'{sources[name]}' and '{source}' would both be written as '{name}'. "
                    "Give them in two calls with two output folders."
                )
            sources[name] = source
    return sources


def _check_outputs(
    sources: Mapping[str, Path], inputs: Sequence[Path], folder: Path, *, is_forced: bool
) -> None:
    """Check that only files of this command would be overwritten."""
    for path in inputs:
        if path.is_dir():
            check_output_folder(folder, path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; the output is a folder. Choose another name.")
    latents = result_names(sources, ".npy").values()
    outputs = [folder / path for path in result_names(latents, ".wav").values()]
    check_no_source(outputs, sources.values())
    check_own(outputs, folder / JOURNAL_NAME, "rave generate", is_forced=is_forced)
