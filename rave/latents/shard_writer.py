"""Write a sharded set of latents; rave.latents.shards describes the format.

A shard depends only on its clips, so that an interrupted command continues with the next shard.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rave.compute.arrays import Float32Array, Float64Array
from rave.files.atomic import atomic_write, check_inside
from rave.held_out import key_of, originals, recording_digest
from rave.latents.folder import GENERATED, SHARDS_NAME, LatentFile, LatentHeader, write_array_header
from rave.latents.shards import (
    INDEX,
    INDEX_NAME,
    Shard,
    ShardsHeader,
    folder_key,
    padded,
    shard_name,
)
from rave.latents.statistics import LatentStatistics

# About the bytes that a tar and the .json add to the frames of a clip.
CLIP_BYTES = 2048
# Frames written at once.
BLOCK_FRAMES = 65536
# Beside the set while it is written: the index of each finished shard.
PART = ".index-{:05d}.npy"


@dataclass(frozen=True)
class Clip:
    """A clip to write into a shard.

    Attributes:
        file: Its entry in the latent folder.
        array: (D, N) raw latents; may be memory-mapped.
        is_original: Whether it may be held out (`rave.held_out.originals`).
    """

    file: LatentFile
    array: Float32Array
    is_original: bool = True


def original_paths(files: Sequence[LatentFile]) -> set[str]:
    """Return the paths of the files with frames that may be held out, in their given order."""
    return set(originals({file.path: file.origin for file in files if file.num_frames}))


def shard_numbers(num_frames: NDArray[np.int64], latent_size: int, shard_bytes: int) -> list[int]:
    """Return where each shard of about `shard_bytes` begins, and the number of clips.

    Args:
        num_frames: Number of frames of the clips, in the order in which they are written.
        latent_size: D.
        shard_bytes: Size of a shard; a longer clip gets its own shard.
    """
    ends = np.cumsum(num_frames * (4 * latent_size) + CLIP_BYTES)
    numbers = np.concatenate([[0], ends[:-1]]) // shard_bytes
    return [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(num_frames)]


def write_shard(folder: Path, number: int, clips: Iterable[Clip], latent_size: int) -> Shard:
    """Write a shard, whole or not at all, and beside it a part of the index.

    Raises:
        ValueError: If a name is not that of an array in a latent folder.
    """
    rows = []
    with atomic_write(folder / shard_name(number)) as temporary:
        with temporary.open("wb") as file:
            rows = [_write_clip(file, clip, latent_size) for clip in clips]
            file.write(bytes(2 * tarfile.BLOCKSIZE))  # end of the tar
            num_bytes = file.tell()
        index = np.array(rows, INDEX)
        with atomic_write(folder / PART.format(number)) as part:
            np.save(part, index)
    return Shard(len(index), int(index["num_frames"].sum()), num_bytes)


def _write_clip(file: IO[bytes], clip: Clip, latent_size: int) -> tuple[int, ...]:
    """Write the two members of a clip; return its row of the index."""
    path, begin = clip.file.path, file.tell()
    check_inside(path)
    if not path.endswith(".npy"):
        raise ValueError(f"'{path}' is not the name of an array; it must end in .npy.")
    num_frames = clip.array.shape[1]
    array_header = _array_header(latent_size, num_frames)
    num_bytes = len(array_header) + 4 * latent_size * num_frames
    key = key_of_path(path)
    file.write(_member(f"{key}.npy", num_bytes) + array_header)
    offset = file.tell()
    for start in range(0, num_frames, BLOCK_FRAMES):
        block = clip.array[:, start : start + BLOCK_FRAMES]
        file.write(np.ascontiguousarray(block.T, "<f4").tobytes())
    file.write(bytes(padded(num_bytes) - num_bytes))
    source = {
        "source": clip.file.source,
        "source_sample_rate_hz": clip.file.source_sample_rate_hz,
        "source_num_samples": clip.file.source_num_samples,
        "recording": clip.file.recording,
        **({"gain_db": clip.file.gain_db} if clip.file.gain_db else {}),
    }
    text = json.dumps(source).encode()
    file.write(_member(f"{key}.json", len(text)) + text)
    file.write(bytes(padded(len(text)) - len(text)))
    recording = key_of(recording_digest(clip.file.origin.recording))
    may_be_held_out = int(clip.is_original)
    return offset, recording, folder_key(path), num_frames, offset - begin, may_be_held_out, 0


def key_of_path(path: str) -> str:
    """Return the key of a clip in its shard: its path without .npy, escaped for WebDataset.

    WebDataset ends a key at the first dot of the file's name, does not accept line feeds in folder
    names, and skips names that begin with __. These are escaped as in URLs.
    """
    folder, slash, name = path.removesuffix(".npy").rpartition("/")

    def escaped(pattern: str, text: str) -> str:
        return re.sub(pattern, lambda found: f"%{ord(found[0]):02X}", text)

    return escaped(r"\A_(?=_)", escaped(r"[%\n]", folder + slash) + escaped(r"[%\n.]", name))


def _member(name: str, num_bytes: int) -> bytes:
    """Return the header of a file in a tar."""
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _array_header(latent_size: int, num_frames: int) -> bytes:
    buffer = io.BytesIO()
    write_array_header(buffer, latent_size, num_frames)
    return buffer.getvalue()


def has_part(folder: Path, number: int) -> bool:
    """Return whether the index of a shard exists."""
    return (folder / PART.format(number)).is_file()


def finish(folder: Path, header: LatentHeader, shards: Sequence[Shard]) -> None:
    """Join the parts of the index, write the header, and remove files that are not in the set."""
    with atomic_write(folder / INDEX_NAME) as temporary, temporary.open("wb") as file:
        num_clips = sum(shard.num_clips for shard in shards)
        descr = np.lib.format.dtype_to_descr(INDEX)
        array: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": (num_clips,)}
        np.lib.format.write_array_header_1_0(file, array)
        for number in range(len(shards)):
            file.write(np.load(folder / PART.format(number), allow_pickle=False).tobytes())
    latents = replace(header, files=[], skipped={})
    ShardsHeader(latents, list(shards), has_escaped_names=True).write(folder)
    clear(folder, {shard_name(number) for number in range(len(shards))})


def clear(folder: Path, kept: Iterable[str] = ()) -> None:
    """Remove shards other than those named, and all parts of the index."""
    for path in [*folder.glob("shard-*.tar"), *folder.glob(PART.replace("{:05d}", "*"))]:
        if path.name not in kept:
            path.unlink()


def begin_anew(folder: Path) -> None:
    """Remove the header, so that an incomplete set is not read as one."""
    (folder / SHARDS_NAME).unlink(missing_ok=True)


def merged_statistics(headers: Sequence[LatentHeader]) -> LatentStatistics:
    """Return the statistics over the frames of several folders of one kind.

    For generated latents, whose statistics are those of the training latents: the first folder's.
    """
    found = [header.statistics for header in headers]
    if len(found) == 1 or headers[0].contents == GENERATED:
        return found[0]
    weights = np.array([max(each.num_frames, 0) for each in found], np.float64)
    weights /= max(weights.sum(), 1.0)

    def averaged(values: Iterator[Float64Array]) -> Float64Array:
        return np.sum([w * v for w, v in zip(weights, values, strict=True)], axis=0)

    mean = averaged(np.asarray(each.mean) for each in found)
    power = averaged(np.square(each.std) + np.square(each.mean) for each in found)
    noise = averaged(np.square(each.posterior_std) for each in found)
    return LatentStatistics(
        mean=mean.tolist(),
        std=np.sqrt(np.maximum(power - np.square(mean), 0.0)).tolist(),
        posterior_std=np.sqrt(noise).tolist(),
        kl=averaged(np.asarray(each.kl) for each in found).tolist(),
        num_frames=sum(each.num_frames for each in found),
    )
