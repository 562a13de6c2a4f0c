"""The clips of a latent folder or of a sharded set, one like the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rave.held_out import recording_keys
from rave.latents.folder import LatentFile, LatentHeader, is_sharded, read_latents
from rave.latents.shards import LatentShards, ShardedFile
from rave.latents.storage import is_address

ClipFile: TypeAlias = LatentFile | ShardedFile


class LatentDataset(torch.utils.data.Dataset[Tensor]):
    """The clips of a latent folder, in the order of its header, or of a sharded set.

    Args:
        place: A latent folder; or a sharded set (see rave.latents.shards), a folder or an address
            that fsspec knows, such as s3://bucket/set.
        files: Keep only these.

    Attributes:
        place: Folder or address.
        header: Header of the latents; that of a sharded set lists no files.
        files: The clips.

    Raises:
        ValueError: If it is neither of both, or holds no clips.
        OSError: If an address cannot be read.

    Example:
        >>> latents = LatentDataset(Path("latents"))[0]   # (D, N), raw latents
    """

    def __init__(self, place: Path | str, files: Sequence[ClipFile] | None = None) -> None:
        self.place = place
        self.files: Sequence[ClipFile]
        if is_address(place) or is_sharded(Path(place)):
            shards = LatentShards(place)
            self.header, self.files = shards.header, shards
        else:
            self.header = LatentHeader.read(Path(place))
            self.files = self.header.files
        self.files = self.files if files is None else list(files)
        if not self.files:
            raise ValueError(f"'{place}' holds no latents. Encode some audio into it.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """Return the raw latents of a clip, (D, N)."""
        return torch.from_numpy(np.array(self.array(index)))

    def array(self, index: int) -> NDArray[np.float32]:
        """Return the raw latents of a clip, (D, N), memory-mapped."""
        return array_of(self.files[index], self.place, self.header.latent_size)


def array_of(file: ClipFile, place: Path | str, latent_size: int) -> NDArray[np.float32]:
    """Return the raw latents of a clip (D, N), memory-mapped and read-only.

    Args:
        file: The clip.
        place: Its latent folder; a clip of a sharded set knows its own.
        latent_size: D.

    Raises:
        ValueError: If they cannot be read, or are not what the header says.
    """
    if isinstance(file, ShardedFile):
        return file.array
    return read_latents(Path(place) / file.path, latent_size, file.num_frames)


def keys_and_lengths(files: Sequence[ClipFile]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the key of each clip's recording, and its frames; of the clips that have any."""
    if isinstance(files, LatentShards):
        keys, lengths = files.table["recording"], files.table["num_frames"]
    else:
        keys = recording_keys(file.origin for file in files)
        lengths = np.array([file.num_frames for file in files], np.int64)
    return keys[lengths > 0], lengths[lengths > 0]
