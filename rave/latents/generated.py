"""Shared by all models of latents: the header in a run, and the folder of generated latents.

    RUN/latents.json                        header of the training latents, without files
    OUT/latents.json, generated_000.npy     a latent folder, with statistics of the training latents

`rave sample_prior` and `python -m diffwave.inference` write the same folder.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from rave.files.atomic import remove_partials
from rave.held_out import Split
from rave.latents.folder import GENERATED, HEADER_NAME, LatentFile, LatentHeader

CLIPS = "generated_*.npy"


def save_header(folder: Path, header: LatentHeader) -> None:
    """Write the header of the training latents, which generation needs, into a new run."""
    header = replace(header, files=[], skipped={})
    path = folder / HEADER_NAME
    if not path.exists():
        header.write(folder)


def check_header(folder: Path, header: LatentHeader) -> None:
    """Check that an existing run may continue on these latents, of which some may be new.

    Raises:
        ValueError: If they are of another codec; or differ from the first ones in a run whose
            held-out recordings are not known, such as a released model.
    """
    if not (folder / HEADER_NAME).exists():
        return
    found = LatentHeader.read(folder)
    header.identity.check_same(found.identity, "The latent folder", f"run '{folder}'")
    if found.statistics != header.statistics and Split.read(folder) is None:
        raise ValueError(
            f"Run '{folder}' was started on other latents ({found.statistics.num_frames} frames; "
            f"these have {header.statistics.num_frames}), and does not state its held-out "
            "recordings. Give it the same latents, or another --out."
        )


def clip_name(index: int) -> str:
    """Return the name of a generated clip's file."""
    return CLIPS.replace("*", f"{index:03d}")


def check_output(folder: Path, is_forced: bool) -> None:
    """Check that generated latents may be written into a folder.

    Clips without a header are from an interrupted command; this one makes them again.

    Raises:
        ValueError: If it is a file, holds latents of real audio, or is not empty and not forced.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; a folder is needed for the latents.")
    if (folder / HEADER_NAME).exists() and LatentHeader.read(folder).contents != GENERATED:
        raise ValueError(
            f"'{folder}' holds latents of real audio, which are never overwritten. "
            "Choose another folder."
        )
    if is_forced or not folder.exists():
        return
    other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if HEADER_NAME not in other:
        other = [name for name in other if not fnmatch(name, CLIPS)]
    if other:
        what = "latents" if HEADER_NAME in other else f"other files (first: '{other[0]}')"
        raise ValueError(
            f"'{folder}' already holds {what}. Choose another folder, or add --force to write "
            "into it."
        )


def clear(folder: Path) -> None:
    """Remove the clips that an earlier command generated in a folder."""
    remove_partials(folder)
    (folder / HEADER_NAME).unlink(missing_ok=True)  # a header must not outlive its latents
    for path in folder.glob(CLIPS):
        path.unlink()


def write_header(
    folder: Path,
    num_frames: dict[str, int],
    header: LatentHeader,
    seed: int,
    gain_db: float = 0.0,
) -> None:
    """Write the header of generated latents.

    Args:
        folder: Folder of the latents.
        num_frames: Number of frames of each file.
        header: Header of the training latents.
        seed: Random seed of the generation.
        gain_db: Gain that brought their source audio to the training level.
    """
    files = [
        LatentFile(name, count, None, header.sample_rate_hz, count * header.hop_samples, gain_db)
        for name, count in num_frames.items()
    ]
    replace(header, contents=GENERATED, files=files, seed=seed).write(folder)
