"""The posterior over latents. B batch, D latent size, N latent frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rave.compute.distributed import ONE_PROCESS, GlobalBatch

STD_FLOOR = 1e-4  # least posterior std; that of points, which have none


@dataclass(frozen=True)
class DiagonalGaussian:
    """A normal distribution of independent latents.

    Attributes:
        mean: (B, D, N).
        std: (B, D, N), above 0.
    """

    mean: Tensor
    std: Tensor

    def sample(
        self, generator: torch.Generator | None = None, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return one draw, (B, D, N); a CPU generator draws the same on every device.

        Args:
            generator: Draws it.
            batch: Of which the posterior is a shard.
        """
        device = self.mean.device if generator is None else generator.device
        shape = (batch.size(len(self.mean)), *self.mean.shape[1:])
        noise = batch.shard(torch.randn(shape, generator=generator, device=device))
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """Return the KL divergence from N(0, 1) of every latent, (B, D, N), in nats.

        Source: Kingma & Welling 2014, arXiv:1312.6114, appendix B.
        Differs: acids-rave leaves out the factor 1/2, so its beta means twice ours.
        """
        return 0.5 * (self.mean.square() + self.std.square() - 1.0) - self.std.log()


@dataclass(frozen=True)
class Point(DiagonalGaussian):
    """The latents of an encoder that states no spread: `mean` are they, `std` the floor.

    Attributes:
        rows: (B, D, N) what the encoder gave before quantization, or None.
    """

    rows: Tensor | None = None

    def sample(
        self, generator: torch.Generator | None = None, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return the point, (B, D, N)."""
        return self.mean
