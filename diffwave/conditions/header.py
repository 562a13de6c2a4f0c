"""The common part of the headers of spectrograms and of controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from rave.files.atomic import built, read_header, write_json
from rave.latents.folder import LatentHeader
from rave.latents.identity import CodecIdentity


class ConditionHeader:
    """Header of a folder of conditions made for latents. Subclasses are dataclasses.

    Attributes:
        NAME: File name of the header.
        TAG: Format and version.
        WHAT: Name of the kind of condition, for messages.
        codec: Fingerprint of the codec of the latents.
        sample_rate_hz: Sample rate of the codec.
        hop_samples: Audio samples per latent frame.
        files: Number of latent frames of each array, by its path.
        sources: Audio file of each array; empty if not known.
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
            ValueError: If the header is missing or cannot be read.
        """
        path, what = folder / cls.NAME, f"a {cls.WHAT} folder"
        return read_header(path, what, lambda content: built(cls, content), _remedy(cls), **cls.TAG)

    def check_matches(self, latents: LatentHeader, this: str, that: str) -> None:
        """Check that the conditions were made for these latents.

        Args:
            latents: Header of the latents.
            this: Name of the conditions in the message.
            that: Name of the latents in the message.

        Raises:
            ValueError: If codec, rate or hop differ, files are missing or have another length, or
                they were made from other audio files.
        """
        what, remedy, size = self.WHAT, _remedy(type(self)), latents.latent_size
        identity = CodecIdentity(self.codec, self.sample_rate_hz, self.hop_samples, size)
        identity.check_same(latents.identity, this, that, remedy)
        other = [f.path for f in latents.files if self.files.get(f.path) != f.num_frames]
        if other:
            raise ValueError(
                f"{len(other)} of {len(latents.files)} clips of {that} have no {what} of the same "
                f"length in {this} (first: '{other[0]}'). {remedy}"
            )
        for file in latents.files:  # the name may have belonged to another audio file before
            if (source := self.sources.get(file.path, file.source)) != file.source:
                raise ValueError(
                    f"'{file.path}' of {that} was made from '{file.source}', but its {what} in "
                    f"{this} from '{source}'. {remedy}"
                )


def _remedy(kind: type[ConditionHeader]) -> str:
    return f"Make the {kind.WHAT}s again with python -m diffwave.preprocess."
