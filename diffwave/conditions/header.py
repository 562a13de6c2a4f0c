"""What the headers of spectrograms and of controls have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from rave.files.atomic import built, read_header, write_json
from rave.latents.folder import LatentHeader
from rave.latents.identity import CodecIdentity


class ConditionHeader:
    """Header of a folder of conditions that were made for latents; a dataclass completes it.

    Attributes:
        NAME: Of the file.
        TAG: Format and version.
        WHAT: What one of the conditions is.
        codec: Fingerprint of the codec of the latents.
        sample_rate_hz: Of the codec.
        hop_samples: Audio samples per latent frame.
        files: Each array's path with its number of latent frames.
        sources: The audio file of each array; empty: not known.
    """

    NAME: ClassVar[str]
    TAG: ClassVar[dict[str, Any]]
    WHAT: ClassVar[str]
    codec: str
    sample_rate_hz: int
    hop_samples: int
    files: dict[str, int]
    sources: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write the header into `folder`, whole or not at all."""
        write_json(folder / self.NAME, {**self.TAG, **vars(self)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the header of a folder.

        Raises:
            ValueError: If the folder has none, or one that this program cannot read.
        """
        path, what = folder / cls.NAME, f"a {cls.WHAT} folder"
        return read_header(path, what, lambda content: built(cls, content), _remedy(cls), **cls.TAG)

    def check_matches(self, latents: LatentHeader, this: str, that: str) -> None:
        """Check that the conditions were made for these latents.

        Args:
            latents: Header of the latents.
            this: What to call the conditions in the message.
            that: What to call the latents.

        Raises:
            ValueError: If codec, rate or hop differ, or files are missing, of another length or
                made of other audio files.
        """
        what, again, size = self.WHAT, _remedy(type(self)), latents.latent_size
        found = CodecIdentity(self.codec, self.sample_rate_hz, self.hop_samples, size)
        found.check_same(latents.identity, this, that, again)
        other = [f.path for f in latents.files if self.files.get(f.path) != f.num_frames]
        if other:
            raise ValueError(
                f"{len(other)} of {len(latents.files)} clips of {that} have no {what} of "
                f"their length in {this} (first: '{other[0]}'). {again}"
            )
        for file in latents.files:  # a name of theirs may have been another file's before
            if (source := self.sources.get(file.path, file.source)) != file.source:
                raise ValueError(
                    f"'{file.path}' of {that} was made of '{file.source}', but its {what} in "
                    f"{this} of '{source}'. {again}"
                )


def _remedy(kind: type[ConditionHeader]) -> str:
    return f"Make the {kind.WHAT}s again with python -m diffwave.preprocess."
