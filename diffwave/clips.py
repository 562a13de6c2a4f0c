"""Clips of latents from a folder or a sharded set: which are held out, and how to draw random ones.

From a folder, any clip may be drawn next. From a sharded set of more than W shards, items are drawn
from W shards at a time, which are local or copied to a local cache. In both cases item i depends
only on the seed and i.

    item         0      M      2M     3M     4M
    slot 0       shard 2 ───────────────── shard 0 ──────      W = 4 slots; after every M items one
    slot 1    ── shard 7 ── shard 5 ──────────────── sha      of them changes to another shard, with
    slot 2    ─ shard 9 ─────── shard 11 ───────────────      a probability in proportion to its
    slot 3    ─ shard 13 ───────────── shard 12 ────────      number of frames
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rave.held_out import Split, first_held_out, recording_keys, split_names
from rave.latent_dataset import Clip, ClipFile, keys_and_lengths
from rave.latents.folder import LatentFile
from rave.latents.shards import WINDOW_SHARDS, LatentShards, shard_name, top_folder

Integers = NDArray[np.int64]
# Largest number of frames of a sharded set on which the standardizer and the scales of conditions
# are fitted. For independent frames the standard error of a variance would be 0.14 %.
FIT_FRAMES = 1 << 20
# Part of the seed for drawing shards, so that these draws differ from those of items.
SLOTS = 0x5107


class ListedClips:
    """The clips of a list; any may be drawn next."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._clips = list(clips)
        self._ends = np.cumsum([clip.num_frames for clip in self._clips])

    def drawn(self, generator: np.random.Generator, seed: int, index: int, num_frames: int) -> Clip:
        """Return the clip of an item, drawn in proportion to its length."""
        position = generator.integers(self._ends[-1])
        return self._clips[int(np.searchsorted(self._ends, position, side="right"))]


@dataclass
class ShardedClips(Sequence[Clip]):
    """The training or the held-out clips of a sharded set; memory does not grow with their number.

    Attributes:
        shards: The sharded set.
        below: Recordings whose key is below this number are held out.
        is_held_out: Whether these are the held-out clips.
    """

    shards: LatentShards
    below: int
    is_held_out: bool
    _firsts: Integers = field(init=False, repr=False)  # (S + 1,) index of each shard's first clip
    _ends: Integers = field(init=False, repr=False)  # (S,) frames up to the end of each shard
    _cached: dict[int, tuple[Integers, Integers]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        counts, frames = [0], []
        for number in range(len(self.shards.shards)):
            rows, ends = self._chosen(number)
            counts.append(len(rows))
            frames.append(int(ends[-1]) if len(ends) else 0)
        self._firsts, self._ends = np.cumsum(counts), np.cumsum(frames)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        """Return a clip."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        rows, _ = self._rows(shard)
        return self._clip(int(rows[index - self._firsts[shard]]))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def _clip(self, row: int) -> Clip:
        file = self.shards[row]
        return Clip(file, 0, file.num_frames)

    def _chosen(self, shard: int) -> tuple[Integers, Integers]:
        """Return the rows of a shard's chosen clips, and the frames up to the end of each."""
        table = self.shards.rows(shard)
        is_held_out = table["recording"] < np.uint64(self.below)
        is_chosen = is_held_out & (table["is_original"] == 1) if self.is_held_out else ~is_held_out
        rows = np.flatnonzero(is_chosen & (table["num_frames"] > 0))
        ends = np.cumsum(table["num_frames"][rows], dtype=np.int64)
        return rows + self.shards.firsts[shard], ends

    def _rows(self, shard: int) -> tuple[Integers, Integers]:
        """Return `_chosen(shard)`, cached for the shards used last."""
        found = self._cached.pop(shard, None) or self._chosen(shard)
        while len(self._cached) >= 2 * WINDOW_SHARDS:
            del self._cached[next(iter(self._cached))]
        self._cached[shard] = found
        return found

    def drawn(self, generator: np.random.Generator, seed: int, index: int, num_frames: int) -> Clip:
        """Return the clip of an item, drawn in proportion to its length.

        Args:
            generator: Generator of the item; depends on `seed` and `index`.
            seed: Seed of the draws.
            index: Index of the item.
            num_frames: Frames of a segment.
        """
        total = int(self._ends[-1])
        if len(self._ends) <= WINDOW_SHARDS:
            position = int(generator.integers(total))
            shard = int(np.searchsorted(self._ends, position, side="right"))
            position -= int(self._ends[shard - 1]) if shard else 0
        else:
            turn = index // self.items_per_turn(num_frames)
            shard = self._shard(seed, int(generator.integers(WINDOW_SHARDS)), turn)
            position = int(generator.integers(self._rows(shard)[1][-1]))
            if index % self.items_per_turn(num_frames) == 0:  # copy the shard of the next turn
                following = self._shard(seed, -(turn + 2) % WINDOW_SHARDS, turn + 1)
                self.shards.storage.expect(shard_name(following))
        rows, ends = self._rows(shard)
        return self._clip(int(rows[np.searchsorted(ends, position, side="right")]))

    def items_per_turn(self, num_frames: int) -> int:
        """Return M: after M items, the items of one shard, one slot changes to another shard.

        So little more is read or copied than is trained on.

        Args:
            num_frames: Frames of a segment.
        """
        num_items = max(len(self), int(self._ends[-1]) // num_frames)
        return max(num_items // len(self._ends), 1)

    def _shard(self, seed: int, slot: int, turn: int) -> int:
        """Return the shard in a slot.

        Slot k of W is drawn from the k-th part of all frames, so that all frames are equally likely
        and two slots hold the same shard only where it crosses from one part to the next.
        """
        generator = np.random.default_rng([seed, slot, (turn + slot + 1) // WINDOW_SHARDS, SLOTS])
        position = (slot + generator.random()) / WINDOW_SHARDS * int(self._ends[-1])
        return int(np.searchsorted(self._ends, position, side="right"))

    def spread(self, count: int) -> Iterator[Clip]:
        """Yield `count` clips, or all if there are fewer, from as few shards as possible.

        The shards hold the clips in random order, so a few shards represent all.
        """
        chosen: list[Integers] = []
        for shard in range(len(self._ends)):
            chosen.append(self._rows(shard)[0])
            if shard + 1 >= WINDOW_SHARDS and sum(map(len, chosen)) >= count:
                break
        rows = np.concatenate(chosen)
        places = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(int)
        return (self._clip(int(row)) for row in rows[places])

    def sample(self) -> Iterable[Clip]:
        """Return the clips to measure: about `FIT_FRAMES` frames, or all clips."""
        total = int(self._ends[-1])
        return self if total <= FIT_FRAMES else self.spread(-(-FIT_FRAMES * len(self) // total))

    def labels(self) -> set[str | None]:
        """Return the top folders of the clips' paths."""
        found: dict[int, int] = {}  # a clip of each folder
        for shard in range(len(self._ends)):
            rows, _ = self._chosen(shard)
            keys, places = np.unique(self.shards.table["folder"][rows], return_index=True)
            found = dict(zip(keys.tolist(), rows[places].tolist(), strict=True)) | found
        return {top_folder(self.shards[row].path) for row in found.values()}


@overload
def split_clips(
    files: Sequence[LatentFile], held_out: float | Split
) -> tuple[list[Clip], list[Clip]]: ...
@overload
def split_clips(
    files: Sequence[ClipFile], held_out: float | Split
) -> tuple[Sequence[Clip], Sequence[Clip]]: ...
def split_clips(
    files: Sequence[ClipFile], held_out: float | Split
) -> tuple[Sequence[Clip], Sequence[Clip]]:
    """Return training and held-out clips: whole recordings, or the end of the only one.

    The held-out clips of a sharded set are the same as those of its folders.

    Args:
        files: Files to divide.
        held_out: Fraction of the recordings to hold out, or the split of a run.

    Raises:
        ValueError: If there are fewer than two frames, no clip can be held out, or one side of a
            run's split is empty.
    """
    split = Split.of(keys_and_lengths(files)[0], held_out)
    if isinstance(files, LatentShards) and split.only is None:
        training, kept_back = (ShardedClips(files, split.below, side) for side in (False, True))
        if held_out is split:
            split.check(len(training), len(kept_back))
        elif not kept_back:
            raise ValueError(f"'{files.place}' has no recording to hold out. Make the set again.")
        return training, kept_back
    files = [file for file in files if file.num_frames > 0]
    if sum(file.num_frames for file in files) < 2:
        raise ValueError("The latents hold fewer than 2 frames. Encode more audio.")
    whole = {file.path: Clip(file, 0, file.num_frames) for file in files}
    origins = {file.path: file.origin for file in files}
    keys = dict(zip(whole, recording_keys(origins.values()).tolist(), strict=True))
    cuts = {
        path: first_held_out(clip.num_frames, split.fraction)
        for path, clip in whole.items()
        if split.divides(keys[path])
    }
    names, others = split_names(origins, split)
    return (
        [Clip(whole[n].file, 0, cuts.get(n, whole[n].stop)) for n in names],
        [Clip(whole[n].file, cuts.get(n, 0), whole[n].stop) for n in others],
    )


def drawable(clips: Sequence[Clip]) -> ListedClips | ShardedClips:
    """Return the clips as an object that draws random ones."""
    return clips if isinstance(clips, ShardedClips) else ListedClips(clips)


def spread(clips: Sequence[Clip], count: int) -> Iterable[Clip]:
    """Return the clips; of a sharded set only `count` clips, evenly spread."""
    return clips.spread(count) if isinstance(clips, ShardedClips) else clips


def sample(clips: Sequence[Clip]) -> Iterable[Clip]:
    """Return the clips to measure; of a sharded set about `FIT_FRAMES` frames, evenly spread."""
    return clips.sample() if isinstance(clips, ShardedClips) else clips


def label_names(clips: Sequence[Clip]) -> list[str]:
    """Return the class labels of clips: the names of the top folders of the latents.

    Raises:
        ValueError: If there are fewer than two.
    """
    if isinstance(clips, ShardedClips):
        found = clips.labels()
    else:
        found = {top_folder(clip.file.path) for clip in clips}
    names = sorted(name for name in found if name is not None)
    if len(names) < 2:
        raise ValueError(
            f"The training latents are in {len(names)} labelled folders ({', '.join(names)}); "
            "--labels needs at least 2. Put the audio of each class into its own folder and encode "
            "it again."
        )
    return names
