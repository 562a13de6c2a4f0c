"""The model of a checkpoint: standardizer, schedule, network and conditioners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffwave.conditioner import SPECTROGRAM, Conditioner, SpectrogramConditioner
from diffwave.denoiser import check_prediction, denoised_from
from diffwave.network import LatentNetwork
from diffwave.schedule import NoiseSchedule
from diffwave.standardizer import Standardizer
from rave.compute.backend import accelerated, choose_backend

# The network gets the position in the schedule on this scale, for any number of timesteps.
STEP_SCALE = 1000.0
# A weighted sum of predictions, each with its condition; the weights add up to 1.
Guided = Sequence[tuple[float, Tensor | None]]


class LatentDiffusion(nn.Module):
    """A denoising network with the schedule and the statistics it was trained on.

    Args:
        standardizer: Standardizer of the raw latents.
        network: Network over the K dimensions of the standardizer.
        schedule: Noise schedule of the training; saved with the weights, because sampling needs it.
        prediction: epsilon, v, x0 or flow.
        conditioner: Conditioner of spectrograms, in runs made before there were other conditioners.
        conditioners: Conditioners by name (spectrogram, loudness, chroma, onsets, label), or none.
            Their conditions are added up.

    Raises:
        ValueError: If the parts do not fit together.
    """

    def __init__(
        self,
        standardizer: Standardizer,
        network: LatentNetwork,
        schedule: NoiseSchedule,
        prediction: str,
        conditioner: SpectrogramConditioner | None = None,
        conditioners: Mapping[str, Conditioner] | None = None,
    ) -> None:
        super().__init__()
        if network.latent_size != standardizer.latent_size:
            raise ValueError(
                f"The network has {network.latent_size} channels, but the standardizer keeps "
                f"{standardizer.latent_size} dimensions; both must be the same."
            )
        self.prediction = check_prediction(prediction, schedule)
        self.standardizer = standardizer
        self.network = network
        self.schedule = schedule
        self._accelerated: list[nn.Module] = []  # in a list: the weights are the network's
        named = dict(conditioners or {})
        if conditioner is not None:
            named[SPECTROGRAM] = conditioner
        self.conditioners = nn.ModuleDict(dict(sorted(named.items())))

    def get_extra_state(self) -> Tensor:
        """Return the schedule for the checkpoint: (T,) float64 on the CPU."""
        return self.schedule.alpha_bar

    def set_extra_state(self, state: Tensor) -> None:
        """Set the schedule from a checkpoint."""
        self.schedule = NoiseSchedule(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a checkpoint's weights, also those of an older run with a single `conditioner`."""
        old, new = f"{prefix}conditioner.", f"{prefix}conditioners.{SPECTROGRAM}."
        for name in [name for name in state_dict if name.startswith(old)]:
            state_dict[new + name.removeprefix(old)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def is_conditional(self) -> bool:
        """Return whether the model takes conditions."""
        return len(self.conditioners) > 0

    @property
    def conditioner(self) -> SpectrogramConditioner | None:
        """Return the conditioner of spectrograms, or None."""
        if SPECTROGRAM not in self.conditioners:
            return None
        return cast(SpectrogramConditioner, self.conditioners[SPECTROGRAM])

    def named_conditioners(self) -> dict[str, Conditioner]:
        """Return the conditioners by name."""
        return {name: cast(Conditioner, module) for name, module in self.conditioners.items()}

    def check_conditions(self, names: Sequence[str]) -> None:
        """Check that the model takes conditions of these names.

        Raises:
            ValueError: If it does not take one; the message names it.
        """
        trained = ", ".join(self.conditioners) or "no conditions"
        for name in names:
            if name not in self.conditioners:
                raise ValueError(
                    f"The model was trained with {trained}, so it cannot follow {name}. "
                    "Leave it out, or train a model with it."
                )

    def condition(
        self,
        inputs: Mapping[str, Tensor],
        absent: Mapping[str, Tensor] | None,
        batch_size: int,
        num_frames: int,
    ) -> Tensor | None:
        """Return the condition of the network, (B, H, N); None for a model without conditions.

        Args:
            inputs: Input of each conditioner, by name; a missing one gives the null condition.
            absent: (B,) bool by name; items that get the null condition.
            batch_size: B.
            num_frames: N.

        Raises:
            ValueError: If the model has no conditioner of a name.
        """
        self.check_conditions(list(inputs))
        total = None
        for name, conditioner in self.named_conditioners().items():
            if name in inputs:
                part = conditioner(inputs[name], None if absent is None else absent.get(name))
            else:
                part = conditioner.absent(batch_size, num_frames)
            total = part if total is None else total + part
        return None if total is None else total.expand(batch_size, -1, num_frames)

    def guided(
        self,
        inputs: Mapping[str, Tensor],
        guidance: Mapping[str, float],
        batch_size: int,
        num_frames: int,
    ) -> Guided:
        """Return weights and conditions; the weighted sum of their predictions is the guided one.

        It is full + Σ (g - 1)·(full - full without k) over the conditions k with guidance scale g.

        Args:
            inputs: Input of each conditioner, by name.
            guidance: Guidance scale by name: 1 is off, more exaggerates a condition, 0 ignores it.
            batch_size: B.
            num_frames: N.

        Raises:
            ValueError: If a guidance scale has no input.

        Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6, with g = 1 + w; for several
        conditions Brooks et al. 2023, arXiv:2211.09800, equation 3. Differs: each condition is left
        out of all, not of those before it.
        """
        for name in guidance:
            if name not in inputs:
                raise ValueError(f"Guidance of {name} needs {name} as a condition.")
        full = self.condition(inputs, None, batch_size, num_frames)
        strengths = {name: scale - 1.0 for name, scale in guidance.items() if scale != 1.0}
        terms = [(1.0 + sum(strengths.values()), full)]
        for name, strength in strengths.items():
            others = {other: value for other, value in inputs.items() if other != name}
            without = self.condition(others, None, batch_size, num_frames)
            terms.append((-strength, without))
        return [term for term in terms if term[0] != 0.0]

    def alpha_bar(self, timestep: Tensor) -> Tensor:
        """Return the signal power at timesteps: (B,) int64 to (B,) float64 on the CPU."""
        return self.schedule.alpha_bar[timestep.cpu()]

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the network's prediction.

        Args:
            noisy: (B, K, N).
            timestep: (B,) int64, 0 to T - 1.
            condition: (B, H, N), if the model takes conditions.

        Returns:
            (B, K, N).
        """
        position = (timestep + 1).double().cpu() * (STEP_SCALE / len(self.schedule))
        step = position.to(device=noisy.device, dtype=torch.float32)
        is_accelerated = self._accelerated and not torch.is_grad_enabled()
        network = self._accelerated[0] if is_accelerated else self.network
        output: Tensor = network(noisy, step, condition)
        return output

    def accelerate(self, backend: str, precision: str) -> None:
        """Compute the network with a faster backend wherever no gradient is needed.

        Args:
            backend: Backend: auto, torch or openvino.
            precision: Precision of the backend: float32 or bfloat16.

        Raises:
            ValueError: If the backend or precision does not exist on this machine.
        """
        num_weights = sum(each.numel() for each in self.network.parameters())
        device = next(self.network.parameters()).device
        backend = choose_backend(backend, device, num_weights)
        self._accelerated = [accelerated(self.network, backend, precision)]

    def denoise(
        self,
        noisy: Tensor,
        timestep: Tensor,
        inputs: Mapping[str, Tensor] | None = None,
        guidance: Mapping[str, float] | None = None,
    ) -> Tensor:
        """Return the model's estimate of the latents without noise, (B, K, N).

        Args:
            noisy: (B, K, N).
            timestep: (B,) int64, 0 to T - 1.
            inputs: Input of each conditioner, by name; None without conditions.
            guidance: Guidance scale by name; None without guidance.
        """
        terms = self.guided(inputs or {}, guidance or {}, noisy.shape[0], noisy.shape[2])
        return self.denoise_guided(noisy, timestep, terms)

    def denoise_guided(self, noisy: Tensor, timestep: Tensor, terms: Guided) -> Tensor:
        """Return the model's estimate of the latents without noise, (B, K, N).

        Args:
            noisy: (B, K, N).
            timestep: (B,) int64, 0 to T - 1.
            terms: Weights and conditions, from `guided`.
        """
        if len(terms) == 1:
            output = self(noisy, timestep, terms[0][1])
        else:
            count = len(terms)
            outputs = self(
                noisy.repeat(count, 1, 1),
                timestep.repeat(count),
                torch.cat([condition for _, condition in terms if condition is not None]),
            )
            weights = [weight for weight, _ in terms]
            output = sum(w * part for w, part in zip(weights, outputs.chunk(count), strict=True))
        return denoised_from(self.prediction, output, noisy, self.alpha_bar(timestep))
