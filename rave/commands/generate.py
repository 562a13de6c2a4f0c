"""`rave generate`: audio → the autoencoder's reconstruction of it, encode and decode in one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    CODEC,
    add_backend,
    add_decoding,
    add_device,
    add_level,
    add_seed,
    add_weights,
    command_parser,
)
from rave.parsing import existing

LATENTS_NAME = ".latents"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave generate`."""
    parser = command_parser(
        "rave generate",
        "Write what the autoencoder makes of audio files, as 16-bit WAV, with the name, length and "
        "sample rate of each. The same as `rave encode` and `rave decode`; the latents are kept in "
        f"{LATENTS_NAME} of the output folder, so that the same command continues. Sources are "
        "never written over.",
        "rave generate runs/piano recordings solo.flac reconstructions",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument(
        "inputs",
        type=existing("audio files, or folders of them"),
        nargs="+",
        help="audio files and folders of them",
    )
    parser.add_argument("out_audio_dir", type=Path, help="folder to write")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw from the posterior, as acids-rave does, instead of decoding its mean",
    )
    add_decoding(parser)
    add_level(parser)
    parser.add_argument("--force", action="store_true", help="replace what is in the way")
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_weights(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Encode, decode, and report both.

    Raises:
        ValueError: If codec, inputs or folder cannot be used, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    from rave.commands import decode, encode

    folder: Path = options.out_audio_dir
    sources = _sources(options.inputs)
    _check_outputs(sources, options.inputs, folder, is_forced=options.force)
    latents = folder / LATENTS_NAME
    # The options that this command does not have are at their defaults.
    anywhere = str(options.codec)  # the sources are listed above
    places = [str(options.codec), anywhere, str(latents)]
    encode_options = vars(encode.parser().parse_args(places)) | vars(options)
    encode_options["latents_dir"] = latents
    encoded = encode.encode_files(sources, argparse.Namespace(**encode_options))
    places = [str(options.codec), str(latents), str(folder)]
    decode_options = vars(decode.parser().parse_args(places)) | vars(options)
    decoded = decode.run(argparse.Namespace(**decode_options))
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
    """Return the audio files of some files and folders by the names that they will keep."""
    from rave.audio.io import list_audio_files

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
    """Check that nothing but what this command wrote before would be written over."""
    from rave.commands.decode import JOURNAL_NAME
    from rave.files.atomic import check_no_source, check_output_folder
    from rave.jobs.loop import result_names

    for path in inputs:
        if path.is_dir():
            check_output_folder(folder, path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; the output is a folder. Choose another name.")
    latents = result_names(sources, ".npy").values()
    outputs = [folder / path for path in result_names(latents, ".wav").values()]
    check_no_source(outputs, sources.values())
    existing = [path for path in outputs if path.exists()]
    if existing and not is_forced and not (folder / JOURNAL_NAME).exists():
        raise ValueError(
            f"'{existing[0]}' exists, and `rave generate` did not write it. "
            "Choose another output folder, or add --force to replace it."
        )
