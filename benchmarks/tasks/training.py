"""A training step of RAVE v2 in both phases, random weights of the same sizes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side

ROW = "training"
# Of v2, there and here: one step in four trains the discriminator.
DISCRIMINATOR_EVERY = 4
PRECISIONS = {"bfloat16": "bf16-mixed", "float32": "32-true"}


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    batch_size, crop_samples = bench.size((8, 131072), (2, 65536))
    settings = list(bench.size((), inputs.QUICK_V2))
    shape = {"batch_size": batch_size, "crop_samples": crop_samples, "settings": settings}
    found = []
    for threads in bench.threads:
        for phase in (1, 2):
            given = {**shape, "phase": phase}
            sides = [
                Side(
                    f"ours, {name}",
                    "training:ours",
                    {**given, "precision": precision},
                    precision=name,
                    is_counted=True,
                )
                for name, precision in PRECISIONS.items()
            ]
            if bench.upstream is not None:
                sides.append(Side("acids-rave", "training:theirs", given, True, is_counted=True))
            what = f"step of phase {phase}, {batch_size} × {crop_samples}"
            num_steps = DISCRIMINATOR_EVERY if phase == 2 else 1
            found.append(
                Comparison(ROW, what, sides, num_steps, "steps", threads, 3, is_large=phase == 2)
            )
    return found


def ours(
    batch_size: int,
    crop_samples: int,
    settings: list[str],
    phase: int,
    precision: str,
    device: str,
) -> Callable[[], None]:
    """Return what makes one step, in phase 2 a round of the two kinds."""
    import torch

    from benchmarks.tasks.bare import without_trainer
    from rave import experiment
    from rave.training import RaveSystem

    torch.manual_seed(inputs.SEED)
    experiment.parse_recipe("rave", "v2", [*settings, f"BATCH_SIZE={batch_size}"])
    model, training = experiment.build_model(), experiment.build_training()
    system = without_trainer(RaveSystem)(model, training).to(device).train()
    system.all_optimizers = system.configure_optimizers()
    audio = 0.1 * torch.randn(batch_size, 1, crop_samples, device=device)
    first = 0 if phase == 1 else training.phase_1_steps

    def run() -> None:
        for step in _steps(phase):
            system.global_step = first + step
            is_half = precision == "bf16-mixed"
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_half):
                system.training_step(audio, step)

    return run


def theirs(
    batch_size: int, crop_samples: int, settings: list[str], phase: int, device: str
) -> Callable[[], None]:
    """Return what makes the same steps with acids-rave."""
    import torch

    from benchmarks.tasks.bare import without_trainer
    from benchmarks.tasks.theirs import new_model

    torch.manual_seed(inputs.SEED)
    model = new_model(settings, without_trainer)
    import_module("rave.core").get_rave_receptive_field(model)  # as its `rave train` begins
    model = model.to(device).train()
    model.all_optimizers = [each["optimizer"] for each in model.configure_optimizers()]
    model.warmed_up = phase == 2
    audio = 0.1 * torch.randn(batch_size, 1, crop_samples, device=device)

    def run() -> None:
        for step in _steps(phase):
            model.training_step(audio.detach().clone(), step)

    return run


def _steps(phase: int) -> range:
    return range(DISCRIMINATOR_EVERY if phase == 2 else 1)
