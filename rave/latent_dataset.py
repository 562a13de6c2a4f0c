"""The clips of a latent folder or of a sharded set, one like the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rave.held_out import recording_keys
from rave.latents.folder import LatentFile, LatentHeader, OpenArrays, is_sharded, read_latents
from rave.latents.shards import LatentShards, ShardedFile
from rave.latents.storage import is_address

ClipFile: TypeAlias = LatentFile | ShardedFile


@dataclass(frozen=True)
class Clip:
    """A stretch of one latent file, from frame `start` up to frame `stop`."""

    file: ClipFile
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        """Return the length."""
        return self.stop - self.start


class LatentDataset(torch.utils.data.Dataset[Tensor]):
    """The clips of a latent folder, in the order of its header, or of a sharded set.

    Args:
        place: A latent folder; or a sharded set (see rave.latents.shards), a folder or an address
            that fsspec knows, such as s3://bucket/set.
        takes_shards: Whether a sharded set will do.

    Attributes:
        place: Folder or address.
        header: Header of the latents; that of a sharded set lists no files.
        files: The clips.

    Raises:
        ValueError: If it is none that will do, or holds no clips.
        OSError: If an address cannot be read.

    Example:
        >>> latents = LatentDataset(Path("latents"))[0]   # (D, N), raw latents
    """

    def __init__(self, place: Path | str, *, takes_shards: bool = True) -> None:
        self.place, self._arrays = place, OpenArrays()
        self.files: Sequence[ClipFile]
        if takes_shards and (is_address(place) or is_sharded(Path(place))):
            shards = LatentShards(place)
            self.header, self.files = shards.header, shards
        else:
            self.header = LatentHeader.read(Path(place))
            self.files = self.header.files
        if not self.files:
            raise ValueError(f"'{place}' holds no latents. Encode some audio into it.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """Return the raw latents of a clip, (D, N)."""
        return torch.from_numpy(np.array(self.array(index)))

    def array(self, index: int) -> NDArray[np.float32]:
        """Return the raw latents of a clip, (D, N), memory-mapped."""
        return self._opened(self.files[index])

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """Return the raw latents of a stretch of one of the files, (D, n), memory-mapped.

        Raises:
            ValueError: If they cannot be read, or are not what the header says.
        """
        return self._opened(clip.file)[:, clip.start : clip.stop]

    def _opened(self, file: ClipFile) -> NDArray[np.float32]:
        if isinstance(file, ShardedFile):
            return file.array
        path = Path(self.place, file.path)
        size = self.header.latent_size
        return self._arrays.get(path, lambda: read_latents(path, size, file.num_frames))


def keys_and_lengths(files: Sequence[ClipFile]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the key of each clip's recording, and its frames; of the clips that have any."""
    if isinstance(files, LatentShards):
        keys, lengths = files.table["recording"], files.table["num_frames"]
    else:
        keys = recording_keys(file.origin for file in files)
        lengths = np.array([file.num_frames for file in files], np.int64)
    return keys[lengths > 0], lengths[lengths > 0]
