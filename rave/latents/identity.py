"""Which codec latents are of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CodecIdentity:
    """Which codec latents are of; they mean nothing to another.

    Attributes:
        fingerprint: Of the codec's weights.
        sample_rate_hz: Of the audio.
        hop_samples: Audio samples per latent frame.
        latent_size: D.
        path: Where the codec was, if known; only for messages.
    """

    fingerprint: str
    sample_rate_hz: int
    hop_samples: int
    latent_size: int
    path: str = field(default="", compare=False)

    @property
    def frame_rate_hz(self) -> float:
        """Return latent frames per second."""
        return self.sample_rate_hz / self.hop_samples

    def __str__(self) -> str:
        path = f"'{self.path}', " if self.path else ""
        return (
            f"{path}fingerprint {self.fingerprint}, "
            f"{self.latent_size} dimensions, hop {self.hop_samples} at {self.sample_rate_hz} Hz"
        )

    def check_same(
        self,
        other: CodecIdentity,
        this: str,
        that: str,
        remedy: str = "Encode the audio again, or give the codec that encoded it.",
    ) -> None:
        """Check that two things are of one codec.

        Args:
            other: The identity to compare with.
            this: What to call the first in the message.
            that: What to call the other.
            remedy: What the user should do.

        Raises:
            ValueError: If anything but the path differs; the message names both sides.
        """
        if self != other:
            raise ValueError(f"{this} is of another codec ({self}) than {that} ({other}). {remedy}")
