"""The diary's way to train, to judge and to sample: one timestep a batch, nothing to compare with.

B batch, D latent size, N latent frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffwave.experiments.closed_forms import posterior_variance
from diffwave.experiments.data import ClipSet, Data
from diffwave.experiments.diary_model import DiaryCNN, DiaryDiffWave, DiaryNetwork
from diffwave.objective import LossKind
from diffwave.schedule import NoiseSchedule, linear_schedule
from diffwave.training import generator_for

WEIGHTS_STREAM, TRAINING_STREAM, HELD_OUT_STREAM = 11, 12, 13
# Of the loss curve that is kept.
CURVE_POINTS = 40
# Beyond this a sampling counts as exploded and is stopped.
EXPLODED = 1e6
Predictor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DiaryRun:
    """One training as the diary did it.

    Attributes:
        network: Variation of the network; None for the small CNN.
        schedule: First beta, last beta, T.
        loss: l1 or mse.
        batch_size: Clips in a batch.
        learning_rate: Learning rate of Adam. It falls to 0 as a cosine, so that few steps suffice.
        num_steps: Steps of the optimizer.
        item_rows: Latent dimensions in a training item, at random; None for all. Only where a
            flattened item may be a stretch of the stream.
        precision: float32 or bfloat16.
        has_roots: False for the diary's mixing without square roots.
        is_timestep_shared: One timestep for the whole batch.
        seed: Seed of weights, clips, noise and timesteps.
    """

    network: DiaryNetwork | None = field(default_factory=DiaryNetwork)
    schedule: tuple[float, float, int] = (1e-4, 0.05, 50)
    loss: LossKind = "l1"
    batch_size: int = 24
    learning_rate: float = 2e-4
    num_steps: int = 100
    item_rows: int | None = None
    precision: str = "float32"
    has_roots: bool = True
    is_timestep_shared: bool = True
    seed: int = 0

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """Return the schedule."""
        return linear_schedule(*self.schedule)

    @property
    def is_conditional(self) -> bool:
        """Return whether the network takes spectrograms."""
        return self.network is not None and self.network.conditioner_channels > 0

    def build(self, latent_size: int) -> nn.Module:
        """Return the network with fresh weights that follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator_for(self.seed, WEIGHTS_STREAM).initial_seed()))
            if self.network is None:
                return DiaryCNN()
            return DiaryDiffWave(latent_size, self.network)


def mix(latents: Tensor, noise: Tensor, alpha_bar: Tensor, has_roots: bool) -> Tensor:
    """Return noisy latents (B, D, N); `alpha_bar` (B,). Without roots as the diary once tried."""
    power = alpha_bar.float()[:, None, None]
    if has_roots:
        return power.sqrt() * latents + (1.0 - power).sqrt() * noise
    return power * latents + (1.0 - power) * noise


def train(run: DiaryRun, data: Data) -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network, in evaluation mode, and the figures of the training."""
    network = run.build(data.latent_size)
    optimizer = torch.optim.Adam(network.parameters(), run.learning_rate, fused=True)
    alpha_bar = run.noise_schedule.alpha_bar
    losses, met, start = [], set[int](), time.process_time()
    for step in range(run.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / run.num_steps))
        generator = generator_for(run.seed, TRAINING_STREAM, step)
        latents, spectrogram = _batch(run, data.training, generator)
        num_draws = 1 if run.is_timestep_shared else run.batch_size
        timestep = torch.randint(len(alpha_bar), (num_draws,), generator=generator)
        met.update(timestep.tolist())
        timestep = timestep.expand(run.batch_size)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = mix(latents, noise, alpha_bar[timestep], run.has_roots)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bfloat16"):
            predicted = network(noisy, timestep, spectrogram)
        loss = diary_loss(run.loss, predicted.float(), noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    stride = max(run.num_steps // CURVE_POINTS, 1)
    network.eval().requires_grad_(False)
    figures = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "train_seconds": time.process_time() - start,
        "timesteps_met": sorted(met),
        "curve": [
            [at + stride, _finite(sum(losses[at : at + stride]) / stride)]
            for at in range(0, run.num_steps - stride + 1, stride)
        ],
    }
    return network, figures


def diary_loss(kind: LossKind, predicted: Tensor, noise: Tensor) -> Tensor:
    """Return the error of each number, as PyTorch broadcasts it: the fault is not refused here."""
    difference = predicted - noise
    return difference.square() if kind == "mse" else difference.abs()


def _batch(
    run: DiaryRun, clips: ClipSet, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    index = torch.randint(len(clips), (run.batch_size,), generator=generator)
    latents = clips.sampled[index]
    if run.item_rows is not None and run.item_rows < latents.shape[1]:
        last = latents.shape[1] - run.item_rows
        first = torch.randint(last + 1, (run.batch_size, 1), generator=generator)
        rows = first + torch.arange(run.item_rows)
        latents = latents[torch.arange(run.batch_size)[:, None], rows]
    if not run.is_conditional:
        return latents, None
    return latents, _spectrograms(clips)[index]


def _spectrograms(clips: ClipSet) -> Tensor:
    if clips.spectrograms is None:
        raise ValueError("This experiment needs spectrograms. Add --spectrograms DIR.")
    return clips.spectrograms


@torch.no_grad()
def evaluate(run: DiaryRun, network: nn.Module, data: Data, num_items: int) -> dict[str, Any]:
    """Return the held-out loss over the whole schedule.

    Args:
        run: The training.
        network: The network, in evaluation mode.
        data: Whose held-out clips are used.
        num_items: Item i meets the middle of the i-th of so many equal parts of the schedule.

    Returns:
        `loss`; `loss_collapsed` over the dimensions that carry nothing (None if there are none);
        `by_timestep`, pairs of timestep and loss over those dimensions, or all; and for a network
        with a condition `condition_gain` and `condition_effect`.
    """
    alpha_bar = run.noise_schedule.alpha_bar
    clips = data.held_out
    each, others, effects = [], [], []
    for item in range(num_items):
        index = torch.tensor([item % len(clips)])
        timestep = torch.tensor([int((item + 0.5) / num_items * len(alpha_bar))])
        noise = torch.randn(
            clips.sampled[index].shape, generator=generator_for(run.seed, HELD_OUT_STREAM, item)
        )
        noisy = mix(clips.sampled[index], noise, alpha_bar[timestep], run.has_roots)
        spectrogram = _spectrograms(clips)[index] if run.is_conditional else None
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bfloat16"):
            predicted = in_items(run, network, noisy, timestep, spectrogram).float()
        each.append(diary_loss(run.loss, predicted, noise)[0].mean(dim=1))
        if run.is_conditional:
            foreign = _spectrograms(clips)[(index + len(clips) // 2) % len(clips)]
            swapped = in_items(run, network, noisy, timestep, foreign)
            others.append(diary_loss(run.loss, swapped, noise).mean().item())
            effects.append(float((swapped - predicted).norm() / predicted.norm()))
    errors = torch.stack(each)  # (items, D)
    collapsed = data.is_collapsed
    kept = errors[:, collapsed] if bool(collapsed.any()) else errors
    figures: dict[str, Any] = {
        "loss": _finite(errors.mean().item()),
        "loss_collapsed": _finite(kept.mean().item()) if bool(collapsed.any()) else None,
        "by_timestep": [
            [int((item + 0.5) / num_items * len(alpha_bar)), _finite(loss)]
            for item, loss in enumerate(kept.mean(dim=1).tolist())
        ],
    }
    if run.is_conditional:
        figures["condition_gain"] = _finite(sum(others) / errors.mean().item() / len(others))
        figures["condition_effect"] = _finite(sum(effects) / len(effects))
    return figures


def in_items(
    run: DiaryRun,
    network: nn.Module,
    noisy: Tensor,
    timestep: Tensor,
    spectrogram: Tensor | None = None,
) -> Tensor:
    """Return the prediction of one clip (1, D, N), cut into items as long as those of training.

    Taps that reach beyond a training item were never trained, so longer items would be unfair.
    """
    rows = run.item_rows
    if rows is None or noisy.shape[1] % rows:
        predicted: Tensor = network(noisy, timestep, spectrogram)
        return predicted
    items = noisy.reshape(-1, rows, noisy.shape[2])
    parts: Tensor = network(items, timestep.expand(len(items)), spectrogram)
    return parts.reshape(noisy.shape)


def _finite(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return value if math.isfinite(value) else None


@torch.no_grad()
def ancestral(
    predict: Predictor,
    schedule: NoiseSchedule,
    noise: Tensor,
    seed: int,
    *,
    clamp: float | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Return the result of all T ancestral steps from noise, and measurements at each step.

    Args:
        predict: The noise in (B, D, N) at timesteps (B,).
        schedule: Schedule of the sampler; the diary changed it after training.
        noise: (B, D, N) to begin with.
        seed: Seed of the noise that the steps add.
        clamp: Cut x to ± this after every step, as the sampler did until 23 August.
        transform: Applied to each prediction.

    Returns:
        The last x, and root mean square of x and of the prediction: one pair before each step and
        one (x, the last prediction) at the end. A sampling beyond `EXPLODED` ends there.
    """
    generator = generator_for(seed, HELD_OUT_STREAM)
    alpha_bar, betas = schedule.alpha_bar.numpy(), schedule.betas.numpy()
    x, size, trace = noise, 0.0, []
    for timestep in reversed(range(len(schedule))):
        predicted = predict(x, torch.full((len(x),), timestep))
        if transform is not None:
            predicted = transform(predicted)
        size = _rms(predicted)
        trace.append((_rms(x), size))
        scale = betas[timestep] / math.sqrt(1.0 - alpha_bar[timestep])
        x = (x - float(scale) * predicted) / math.sqrt(1.0 - betas[timestep])
        if timestep:
            std = math.sqrt(posterior_variance(alpha_bar, betas, timestep))
            x = x + std * torch.randn(x.shape, generator=generator)
        if clamp is not None:
            x = x.clamp(-clamp, clamp)
        if not _rms(x) < EXPLODED:
            break
    trace.append((_rms(x), size))
    return x, trace


def _rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())
