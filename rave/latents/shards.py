"""The sharded set of latents: millions of clips in a few tar files, read in place.

    SHARDS_DIR/
      shards.json           header: that of latents.json, without files; and clips, frames and
                            bytes of each shard
      index.npy             32 bytes per clip: where its frames begin, and their number
      shard-00000.tar       a.npy, a.json, sub/b.npy, sub/b.json …

A .npy member is that of the latent folder, byte for byte; its .json names its source. tar and numpy
alone can read it; so can WebDataset. D is the latent size, N a number of frames.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, overload
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from rave.audio.io import MAX_SAMPLE_RATE_HZ
from rave.compute.arrays import Float32Array
from rave.files.atomic import built, check_inside, digest, read_header, regular, write_json
from rave.held_out import Origin, key_of
from rave.latents.folder import MAX_GAIN_DB, SHARDS_NAME, LatentFile, LatentHeader, open_array
from rave.latents.storage import LocalStorage, RemoteStorage, open_storage

FORMAT, VERSION, INDEX_NAME = "rave-latent-shards", 1, "index.npy"
BLOCK_BYTES = tarfile.BLOCKSIZE
# Largest size of a clip's .json.
MAX_SOURCE_BYTES = 1 << 20
MAX_SHARD_BYTES = 1 << 60
# Shards that are read from at the same time (diffwave.clips). With 128 MB each, they hold thousands
# of clips from the whole set; of a remote set, twice as many copies (4 GB) are kept.
WINDOW_SHARDS = 16

INDEX = np.dtype(
    [
        ("offset", "<i8"),  # of the first frame in the shard, bytes
        ("recording", "<u8"),  # first 8 bytes of its digest, see rave.held_out
        ("folder", "<u8"),  # the same of the folder at the top of its path; 0: none
        ("num_frames", "<u4"),
        ("head", "<u2"),  # bytes from the member's begin to the first frame
        ("is_original", "u1"),  # 1: may be held out, see rave.held_out.originals
        ("spare", "u1"),
    ]
)


def shard_name(number: int) -> str:
    """Return the name of a shard, numbered from 0."""
    return f"shard-{number:05d}.tar"


def padded(num_bytes: int) -> int:
    """Return the size of so many bytes in a tar."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def top_folder(path: str) -> str | None:
    """Return the folder at the top of a relative path, None for a bare name: a clip's label."""
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def folder_key(path: str) -> int:
    """Return the number of a path's top folder in the index; 0 if it has none."""
    folder = top_folder(path)
    if folder is None:
        return 0
    return key_of(sha256(folder.encode(errors="surrogateescape")).digest())


@dataclass(frozen=True)
class Shard:
    """Entry of one shard in shards.json."""

    num_clips: int
    num_frames: int
    num_bytes: int


@dataclass(frozen=True)
class ShardsHeader:
    """Content of shards.json.

    Attributes:
        latents: Header of the latent folder, without files and skipped files.
        shards: One entry per shard file.
        has_escaped_names: True: names in the shards come from
            `rave.latents.shard_writer.key_of_path`.
    """

    latents: LatentHeader
    shards: list[Shard]
    has_escaped_names: bool

    def write(self, folder: Path) -> None:
        """Write shards.json into `folder`, whole or not at all."""
        write_json(folder / SHARDS_NAME, {"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> ShardsHeader:
        """Return the header of a sharded set, given its shards.json.

        Raises:
            ValueError: If there is none, or one that this program cannot read.
        """

        def build(content: dict[str, Any]) -> ShardsHeader:
            header = built(cls, content)
            header.latents.check()
            if not header.has_escaped_names:
                raise ValueError("has_escaped_names is False")
            for number, shard in enumerate(header.shards):
                if min(shard.num_clips, shard.num_frames, shard.num_bytes) < 0:
                    raise ValueError(f"{shard_name(number)} has a negative size")
                if shard.num_bytes > MAX_SHARD_BYTES:
                    raise ValueError(f"{shard_name(number)} has {shard.num_bytes} bytes")
            return header

        return read_header(
            path, "a sharded set", build, "Copy or make it again.", format=FORMAT, version=VERSION
        )


@dataclass(frozen=True)
class ShardedFile:
    """One clip of a sharded set.

    Attributes:
        shards: The set.
        shard: Number of its shard.
        offset: Offset of its first frame there, in bytes.
        head: Bytes before it that belong to the clip.
        num_frames: N.
    """

    shards: LatentShards
    shard: int
    offset: int
    head: int
    num_frames: int

    @property
    def path(self) -> str:
        """Return its name in the latent folder; read from the shard.

        Raises:
            ValueError: If the stored name is invalid.
        """
        with self.shards.opened(self.shard) as file:
            return self._path(file)

    @property
    def entry(self) -> LatentFile:
        """Return its entry in the latent folder; read from the shard.

        Raises:
            ValueError: If the stored entry is invalid.
        """
        end = padded(self.offset + self.num_frames * 4 * self.shards.header.latent_size)
        with self.shards.opened(self.shard) as file:
            path = self._path(file)
            _, num_bytes = self._named(file, end, MAX_SOURCE_BYTES)
            try:
                source = built(Source, json.loads(file.read(min(num_bytes, MAX_SOURCE_BYTES))))
            except (ValueError, TypeError, RecursionError) as error:
                raise self._damaged(f"its .json is invalid ({error})") from error
        rate_hz, num_samples = source.source_sample_rate_hz, source.source_num_samples
        if not 0 < rate_hz <= MAX_SAMPLE_RATE_HZ or num_samples < 0:
            raise self._damaged(f"it states {rate_hz} Hz and {num_samples} samples")
        if abs(source.gain_db) > MAX_GAIN_DB:
            raise self._damaged(f"it has a gain of {source.gain_db} dB")
        return LatentFile(path, self.num_frames, **vars(source))

    @property
    def origin(self) -> Origin:
        """Return its recording, and whether it is a version of it; read from the shard."""
        return self.entry.origin

    @property
    def source(self) -> str | None:
        """Return the audio file that it was made from; read from the shard."""
        return self.entry.source

    @property
    def array(self) -> Float32Array:
        """Return its raw latents (D, N), memory-mapped and read-only.

        Raises:
            ValueError: If the shard is shorter than its header says.
        """
        return self.shards.array(self)

    def _path(self, file: IO[bytes]) -> str:
        name, _ = self._named(file, self.offset - self.head, self.head)
        try:
            check_inside(path := unquote(name))
        except ValueError as error:
            raise self._damaged(str(error)) from error
        return path

    def _named(self, file: IO[bytes], start: int, num_bytes: int) -> tuple[str, int]:
        """Return name and size of the tar member at `start`; the file is left after its header."""
        file.seek(start)
        name = None
        while file.tell() < start + num_bytes:
            try:
                info = tarfile.TarInfo.frombuf(file.read(BLOCK_BYTES), "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise self._damaged(str(error)) from error
            if info.type == tarfile.GNUTYPE_LONGNAME and 0 < info.size <= num_bytes:
                raw = file.read(padded(info.size))[: info.size].rstrip(b"\0")
                name = raw.decode("utf-8", "surrogateescape")
            elif info.isreg():
                name = info.name if name is None else name
                try:
                    check_inside(name)
                except ValueError as error:
                    raise self._damaged(str(error)) from error
                return name, info.size
            else:
                break
        raise self._damaged("it has no name")

    def _damaged(self, why: str) -> ValueError:
        return ValueError(
            f"The clip at byte {self.offset} of {self.shards.place_of(self.shard)} is damaged: "
            f"{why}. Copy or make the set again."
        )


@dataclass(frozen=True)
class Source:
    """Content of the .json beside a clip, as in `LatentFile`."""

    source: str | None
    source_sample_rate_hz: int
    source_num_samples: int
    gain_db: float = 0.0
    recording: str | None = None


class LatentShards(Sequence[ShardedFile]):
    """The clips of a sharded set, in the order of their shards.

    Its memory use does not grow with their number; the index is memory-mapped.

    Args:
        place: A folder, or an address that fsspec supports, such as s3://bucket/set.

    Attributes:
        place: Folder or address.
        digest: Digest of shards.json, taken before it was read.
        header: Header of the latent folder, without files.
        shards: Header entry of each shard.
        firsts: (S + 1,) the first clip of each shard, and the number of clips.
        table: (clips,) of `INDEX`.

    Raises:
        ValueError: If there is no sharded set, or it is incomplete or without clips.
        OSError: If an address cannot be read.
    """

    def __init__(self, place: Path | str) -> None:
        self.place = place
        self.storage: LocalStorage | RemoteStorage = open_storage(
            place, 2 * WINDOW_SHARDS, (SHARDS_NAME, INDEX_NAME)
        )
        path = self.storage.path(SHARDS_NAME)
        self.digest = digest(path)
        header = ShardsHeader.read(path)
        self.header, self.shards = header.latents, header.shards
        self.firsts = np.cumsum([0, *(shard.num_clips for shard in self.shards)])
        self.table = self._opened_table()
        for number in range(len(self.shards)):
            self._check(number)
        if not len(self):
            raise ValueError(f"'{place}' holds no latents. Make it again from latents.")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "table"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.table = self._opened_table()

    def _opened_table(self) -> NDArray[Any]:
        path = self.storage.path(INDEX_NAME)
        try:
            index = open_array(path)
        except ValueError as error:
            raise self._not_whole(f"{INDEX_NAME} cannot be read ({error})") from error
        needed = (int(self.firsts[-1]),)
        if index.dtype != INDEX or index.shape != needed:
            raise self._not_whole(f"{INDEX_NAME} holds {index.dtype} {index.shape}, not {needed}")
        return index

    def _check(self, number: int) -> None:
        """Check that all clips of a shard lie inside it; the index may be untrusted."""
        shard, rows = self.shards[number], self.rows(number)
        if isinstance(self.storage, LocalStorage):
            path = self.storage.path(shard_name(number))
            found = path.stat().st_size if path.is_file() else 0
            if found != shard.num_bytes:
                raise self._not_whole(f"{path.name} has {found} of {shard.num_bytes} bytes")
        num_frames = rows["num_frames"].astype(np.int64)
        if num_frames.sum() != shard.num_frames:
            raise self._not_whole(
                f"{shard_name(number)} has {num_frames.sum()} frames in the index"
            )
        frame_bytes, longest = 4 * self.header.latent_size, int(num_frames.max(initial=0))
        is_inside = longest * frame_bytes <= shard.num_bytes and bool(
            (rows["offset"] <= shard.num_bytes - num_frames * frame_bytes).all()
            and (rows["offset"] >= rows["head"]).all()
        )
        if not is_inside:
            raise self._not_whole(f"{INDEX_NAME} leads out of {shard_name(number)}")

    def _not_whole(self, why: str) -> ValueError:
        return ValueError(
            f"'{self.place}' is not a complete sharded set: {why}. Copy or make it again."
        )

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> ShardedFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardedFile]: ...
    def __getitem__(self, index: int | slice) -> ShardedFile | list[ShardedFile]:
        """Return a clip."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self.firsts, index, side="right")) - 1
        row = self.table[index]
        return ShardedFile(
            self, shard, int(row["offset"]), int(row["head"]), int(row["num_frames"])
        )

    def __iter__(self) -> Iterator[ShardedFile]:
        return (self[index] for index in range(len(self)))

    def rows(self, shard: int) -> NDArray[Any]:
        """Return the index of the clips of a shard, memory-mapped."""
        return self.table[self.firsts[shard] : self.firsts[shard + 1]]

    def place_of(self, shard: int) -> str:
        """Return the name of a shard for messages."""
        return f"'{self.place}/{shard_name(shard)}'"

    def opened(self, shard: int) -> IO[bytes]:
        """Return a shard, opened for reading."""
        try:
            return regular(self.storage.path(shard_name(shard))).open("rb")
        except FileNotFoundError:  # another process removed the copy to make room
            return regular(self.storage.path(shard_name(shard))).open("rb")

    def array(self, file: ShardedFile) -> Float32Array:
        """Return the raw latents of a clip (D, N), memory-mapped and read-only."""
        shape = (self.header.latent_size, file.num_frames)
        if not file.num_frames:
            return np.zeros(shape, np.float32)
        with self.opened(file.shard) as opened:
            try:
                return np.memmap(opened, "<f4", "r", file.offset, shape, "F")
            except ValueError as error:
                raise self._not_whole(f"{shard_name(file.shard)}: {error}") from error
