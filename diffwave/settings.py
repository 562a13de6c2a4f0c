"""The training settings of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

from diffwave.denoiser import Prediction
from diffwave.objective import LossKind, Objective, Weighting


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training; the model is configured by `model.LatentDiffusion`.

    Attributes:
        seed: Seed of weights, segments, noise and timesteps.
        max_steps: Optimizer steps of the whole run.
        batch_size: Segments per step (global batch).
        segment_frames: Latent frames of a segment.
        fidelity: Share of the latents' variance to model.
        held_out_fraction: Share of the recordings held out for validation.
        held_out_segments: Segments per validation.
        validate_every_steps: Steps between validations.
        log_every_steps: Steps between points of the training curve.
        learning_rate: Highest learning rate of AdamW.
        warmup_steps: Steps in which the learning rate rises; then it falls as a cosine.
        weight_decay: Weight decay of AdamW.
        gradient_clip_norm: Largest norm of a gradient.
        ema_decay: Decay of the EMA weights, which are used for sampling.
        condition_dropout: Share of items trained without conditions; with several conditions, the
            same share is trained without some of them.
        loss: mse or l1.
        weighting: Weighting of the loss over noise levels: none or min-snr.
        precision: "32-true", "bf16-mixed", or "auto": bfloat16 if it is fast on the device.
    """

    seed: int
    max_steps: int
    batch_size: int
    segment_frames: int
    fidelity: float
    held_out_fraction: float
    held_out_segments: int
    validate_every_steps: int
    log_every_steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip_norm: float
    ema_decay: float
    condition_dropout: float
    loss: str
    weighting: str
    precision: str

    def __post_init__(self) -> None:
        kinds: dict[Any, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, kinds[field.type]) or isinstance(value, bool):
                raise ValueError(
                    f"{field.name} is {value!r}; a value of type {field.type} is needed."
                )
        self.objective("v")  # checks loss and weighting
        if self.seed < 0:
            raise ValueError(f"The seed is {self.seed}; a whole number from 0 is needed.")
        for name in (
            "max_steps",
            "batch_size",
            "segment_frames",
            "held_out_segments",
            "validate_every_steps",
            "log_every_steps",
        ):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; a whole number from 1 is needed.")
        for name in ("held_out_fraction", "ema_decay", "condition_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; a number in [0, 1) is needed.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0.")

    def objective(self, prediction: Prediction) -> Objective:
        """Return the training objective of a network with this prediction."""
        return Objective(prediction, cast(LossKind, self.loss), cast(Weighting, self.weighting))
