"""The bottleneck between encoder and decoder: the kinds of latents.

| kind | latents | what keeps them in order |
|---|---|---|
| Gaussian | a normal distribution | KL divergence from N(0, 1) |
| Wasserstein | points | distance of their distribution from N(0, 1) |
| Discrete | sums of codes | the codebooks; rows of the encoder stay near them |
| Spherical | points on the unit sphere | the sphere |

B batch, D latent size, N latent frames, A rows of noise that the decoder sees beside the latents.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from rave.blocks.posterior import STD_FLOOR, DiagonalGaussian, Point
from rave.blocks.quantizer import ResidualQuantizer
from rave.compute.distributed import ONE_PROCESS, GlobalBatch


class Bottleneck(nn.Module):
    """One kind of latents.

    Attributes:
        rows_per_latent: Encoder outputs per latent: 2 (mean and scale) or 1 (points).
        num_noise_rows: A; the decoder takes D + A rows.
        is_encoder_frozen_in_phase_2: Whether the adversarial phase leaves the latents alone.
        penalty_name: Name of `penalty` in the curves.
    """

    rows_per_latent = 1
    is_encoder_frozen_in_phase_2 = False
    penalty_name = "penalty"

    def __init__(self, num_noise_rows: int = 0) -> None:
        super().__init__()
        self.num_noise_rows = num_noise_rows
        self.std_floor = STD_FLOOR  # TorchScript reads attributes, but no globals

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return posterior mean and std, each (B, D, N), of the encoder's rows."""
        return rows, torch.full_like(rows, self.std_floor)

    def posterior(self, rows: Tensor) -> DiagonalGaussian:
        """Return the posterior of the encoder's rows (B, rows_per_latent·D, N)."""
        mean, std = self(rows)
        return Point(mean, std)

    def project(self, latents: Tensor) -> Tensor:
        """Return latents (B, D, N) as the decoder was trained on; applied to latents of a user."""
        return latents

    def penalty(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return what training adds to the loss, times beta, a scalar ≥ 0."""
        return torch.zeros((), device=posterior.mean.device)

    def learn(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> None:
        """Learn from a posterior what no gradient teaches."""


class Gaussian(Bottleneck):
    """A normal distribution of independent latents (arXiv:2111.05011)."""

    rows_per_latent = 2
    is_encoder_frozen_in_phase_2 = True
    penalty_name = "kl"

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return posterior mean and std, each (B, D, N), of mean and scale (B, 2·D, N)."""
        mean, scale = rows.chunk(2, dim=1)
        return mean, functional.softplus(scale) + self.std_floor

    def posterior(self, rows: Tensor) -> DiagonalGaussian:
        """Return the posterior of the encoder's rows (B, 2·D, N)."""
        return DiagonalGaussian(*self(rows))

    def penalty(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return the KL divergence of a frame from N(0, 1), nats."""
        return posterior.kl().sum(dim=1).mean()


class Wasserstein(Bottleneck):
    """Points whose distribution is held near N(0, 1).

    Source: Tolstikhin et al. 2018, arXiv:1711.01558, section 3, with maximum mean discrepancy;
        kernel of Gretton et al. 2012, JMLR 13, with bandwidth as in acids-rave.
    """

    is_encoder_frozen_in_phase_2 = True
    penalty_name = "mmd"

    def penalty(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return the squared maximum mean discrepancy of all frames from as many normal draws."""
        points = batch.all_gather(posterior.mean).transpose(1, 2).flatten(0, 1)
        normal = torch.randn(points.shape, generator=generator).to(points)
        return mean_discrepancy(points, normal)


class Discrete(Bottleneck):
    """Sums of codes, one of each stage of a residual quantizer.

    Until the codebooks are learnt, which the first step of training does, rows pass as they are.

    Args:
        quantizer: Quantizer of vectors of size D.
        num_noise_rows: A.

    Attributes:
        is_enabled: (), 1 once rows are quantized.
    """

    penalty_name = "commitment"
    is_enabled: Tensor

    def __init__(self, quantizer: ResidualQuantizer, num_noise_rows: int = 0) -> None:
        super().__init__(num_noise_rows)
        self.quantizer = quantizer
        self.register_buffer("is_enabled", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of codes and the least std, each (B, D, N), of rows (B, D, N)."""
        mean = rows
        if bool(self.is_enabled):
            _, sums = self.quantizer(rows)
            mean = sums + (rows - rows.detach())  # the gradient passes through
        return mean, torch.full_like(mean, self.std_floor)

    def fixed(self) -> Bottleneck:
        """Return what it is now, without the branch and without gradients."""
        noise_rows = self.num_noise_rows
        return (
            Coded(self.quantizer, noise_rows) if bool(self.is_enabled) else Bottleneck(noise_rows)
        )

    def posterior(self, rows: Tensor) -> DiagonalGaussian:
        """Return the posterior of the encoder's rows (B, D, N)."""
        mean, std = self(rows)
        return Point(mean, std, rows)

    def indices(self, rows: Tensor) -> Tensor:
        """Return the codes of the encoder's rows, (B, Q, N) int64.

        Raises:
            ValueError: If the codebooks are not learnt.
        """
        if not bool(self.is_enabled):
            raise ValueError("The codebooks are not learnt, so there are no indices. Train first.")
        indices: Tensor = self.quantizer(rows)[0]
        return indices

    def penalty(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return how far the rows are from their codes."""
        if not bool(self.is_enabled):
            return super().penalty(posterior, generator, batch)
        return self.quantizer.commitment(_rows(posterior))

    def learn(
        self, posterior: DiagonalGaussian, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> None:
        """Learn the codebooks; the first time, begin with the k-means of these rows."""
        is_first = not bool(self.is_enabled)
        rows = batch.all_gather(_rows(posterior).detach())
        self.quantizer.learn(rows, generator, is_first=is_first)
        self.is_enabled.fill_(1)


class Coded(Bottleneck):
    """`Discrete` once its codebooks are learnt."""

    def __init__(self, quantizer: ResidualQuantizer, num_noise_rows: int) -> None:
        super().__init__(num_noise_rows)
        self.quantizer = quantizer

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of codes and the least std, each (B, D, N), of rows (B, D, N)."""
        mean = self.quantizer(rows)[1]
        return mean, torch.full_like(mean, self.std_floor)


class Spherical(Bottleneck):
    """Points on the unit sphere.

    Source: acids-rave. Differs: a frame of zeros stays zeros instead of NaN.
    """

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows scaled to length 1 and the least std, each (B, D, N), of rows (B, D, N)."""
        mean = self.project(rows)
        return mean, torch.full_like(mean, self.std_floor)

    def project(self, latents: Tensor) -> Tensor:
        """Return latents (B, D, N) scaled to length 1."""
        return functional.normalize(latents, dim=1)


def mean_discrepancy(points: Tensor, others: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of two sets of points, (P, D) and (R, D)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        # The mean of the squares over D, once more over D: kept from acids-rave, whose beta it is.
        return torch.exp(-squares.clamp_min(0) / a.shape[1] ** 2).mean()

    return kernel(points, points) + kernel(others, others) - 2 * kernel(points, others)


def _rows(posterior: DiagonalGaussian) -> Tensor:
    assert isinstance(posterior, Point)
    assert posterior.rows is not None
    return posterior.rows
