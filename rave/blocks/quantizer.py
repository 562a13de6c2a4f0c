"""Residual vector quantization: each stage codes what the stages before it left.

B batch, D latent size, N latent frames, Q stages, K codes per stage, V vectors per batch (B·N).

Source: Zeghidour et al. 2021, SoundStream, arXiv:2107.03312, section III-C; codebooks as moving
averages by van den Oord et al. 2017, arXiv:1711.00937, appendix A.1.
"""

from typing import cast

import torch
from torch import Tensor, nn

DECAY = 0.99  # arXiv:2107.03312
SMOOTHING = 1e-5  # of the counts; arXiv:1711.00937's code
KMEANS_STEPS = 50
# A code is dead if it is used less than this share of a uniform use. A share instead of a count, so
# that it has the same meaning for every batch size.
DEAD_SHARE = 0.1


class Codebook(nn.Module):
    """One stage.

    Args:
        num_codes: K.
        latent_size: D.

    Attributes:
        codes: (K, D); zeros until learnt.
        counts: (K) moving average of the number of vectors per batch that use a code.
        sums: (K, D) moving average of the sum of these vectors.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, latent_size: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(num_codes, latent_size))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, latent_size))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest code of each vector (V, D): its index, (V) int64, and itself."""
        indices = nearest(vectors, self.codes)
        return indices, self.codes[indices]

    def begin(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set the codes to the k-means of vectors (V, D)."""
        codes = vectors[_draw(len(vectors), len(self.codes), generator).to(vectors.device)]
        counts = torch.zeros_like(self.counts)
        for _ in range(KMEANS_STEPS):
            counts, sums = _totals(vectors, nearest(vectors, codes), len(codes))
            codes = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], codes)
        self.codes.copy_(codes)
        self.counts.copy_(counts)
        self.sums.copy_(codes * counts[:, None])

    def learn(self, vectors: Tensor, indices: Tensor, generator: torch.Generator) -> None:
        """Move the codes towards the vectors (V, D) that they stand for, and replace dead codes.

        Differs: acids-rave replaces codes before it computes the averages, which undo it.
        """
        counts, sums = _totals(vectors, indices, len(self.codes))
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(sums, 1 - DECAY)
        total, num_codes = self.counts.sum(), len(self.codes)
        smoothed = (self.counts + SMOOTHING) / (total + num_codes * SMOOTHING) * total
        self.codes.copy_(self.sums / smoothed[:, None])
        share = total / num_codes
        is_dead = self.counts < DEAD_SHARE * share
        drawn = vectors[_draw(len(vectors), num_codes, generator).to(vectors.device)]
        self.codes.copy_(torch.where(is_dead[:, None], drawn, self.codes))
        # Counted as in use, so that it has time to attract vectors before it counts as dead again.
        self.counts.copy_(torch.where(is_dead, share, self.counts))
        self.sums.copy_(torch.where(is_dead[:, None], drawn * share, self.sums))


class ResidualQuantizer(nn.Module):
    """Sums of codes, one of each stage.

    Args:
        num_stages: Q.
        num_codes: K.
        latent_size: D.
    """

    def __init__(self, num_stages: int, num_codes: int, latent_size: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Codebook(num_codes, latent_size) for _ in range(num_stages))
        self.num_codes, self.latent_size = num_codes, latent_size

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of rows (B, D, N); no gradient.

        Returns:
            Their index in each stage, (B, Q, N) int64, and their sum, (B, D, N).
        """
        residual = _vectors(rows.detach())
        total = torch.zeros_like(residual)
        found: list[Tensor] = []
        for stage in self.stages:
            indices, coded = stage(residual)
            residual, total = residual - coded, total + coded
            found.append(indices.reshape(rows.shape[0], rows.shape[2]))
        sums = total.reshape(rows.shape[0], rows.shape[2], rows.shape[1]).transpose(1, 2)
        return torch.stack(found, dim=1), sums

    def dequantize(self, indices: Tensor) -> Tensor:
        """Return the sums of codes, (B, D, N), of indices (B, Q, N) int64.

        Raises:
            ValueError: If `indices` has another number of stages, or a code does not exist.
        """
        stages = self._stages()
        if indices.dim() != 3 or indices.shape[1] != len(stages):
            raise ValueError(
                f"Indices have shape {tuple(indices.shape)}; (batch, {len(stages)}, frames) is "
                "needed."
            )
        if int(indices.min()) < 0 or int(indices.max()) >= self.num_codes:
            raise ValueError(
                f"Indices reach from {int(indices.min())} to {int(indices.max())}; this codec has "
                f"codes 0 to {self.num_codes - 1}."
            )
        coded = [stage.codes[indices[:, number]] for number, stage in enumerate(stages)]
        return torch.stack(coded).sum(0).transpose(1, 2)

    def commitment(self, rows: Tensor) -> Tensor:
        """Return how far rows (B, D, N) are from their codes.

        The mean square of the residual after each stage, summed over stages; its gradient moves the
        rows, never the codes (arXiv:1711.00937, eq. 3, third term).

        Differs: in acids-rave only the gradient of the first stage reaches the rows.
        """
        residual = _vectors(rows)
        loss = torch.zeros((), device=rows.device)
        for stage in self._stages():
            residual = residual - stage(residual.detach())[1]
            loss = loss + residual.square().mean()
        return loss

    @torch.no_grad()
    def learn(self, rows: Tensor, generator: torch.Generator, *, is_first: bool) -> None:
        """Learn from rows (B, D, N).

        Args:
            rows: Output of the encoder.
            generator: Draws the vectors that replace dead codes.
            is_first: Begin with the k-means of these rows.
        """
        residual = _vectors(rows)
        for stage in self._stages():
            if is_first:
                stage.begin(residual, generator)
            indices, coded = stage(residual)
            if not is_first:
                stage.learn(residual, indices, generator)
            residual = residual - coded

    def _stages(self) -> list[Codebook]:
        return [cast(Codebook, stage) for stage in self.stages]


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Return the index, (V) int64, of the code (K, D) nearest to each vector (V, D)."""
    # |v − c|² without |v|², which is the same for all codes
    return (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(1)


def _vectors(rows: Tensor) -> Tensor:
    """Return (V, D) for (B, D, N)."""
    return rows.transpose(1, 2).reshape(-1, rows.shape[1])


def _totals(vectors: Tensor, indices: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Return for each code the number (K) and the sum (K, D) of its vectors."""
    counts = torch.bincount(indices, minlength=num_codes).to(vectors)
    sums = torch.zeros(num_codes, vectors.shape[1]).to(vectors).index_add_(0, indices, vectors)
    return counts, sums


def _draw(num_vectors: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` indices of vectors, each vector once before any is drawn again."""
    rounds = -(-count // num_vectors)
    drawn = [torch.randperm(num_vectors, generator=generator) for _ in range(rounds)]
    return torch.cat(drawn)[:count]
