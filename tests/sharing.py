"""Compute one step of training alone, and shared by two processes; print how far they are apart.

Prints one JSON object: for each case the largest difference of a gradient, of what is learnt
without gradients, and of what is logged, each relative to the largest value of its kind.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from rave_models import FEW_OSCILLATORS, SMALL
from rave_runs import RATE_HZ

from rave import experiment
from rave.compute.distributed import GlobalBatch
from rave.training import RaveSystem

BATCH_SIZE, NUM_PROCESSES, CROP_SAMPLES = 4, 2, 4096
FIRST, SECOND = "PHASE_1_STEPS=4", "PHASE_1_STEPS=0"
FEW_CODES = ("NUM_CODES=8", "NUM_STAGES=2")
RAVE = {
    "v2": ("v2", FIRST),
    "v2, phase 2": ("v2", SECOND),
    "v2, phase 2, discriminator": ("v2", SECOND),
    "noise": ("v2+noise", FIRST),
    "batch normalisation": ("v1", FIRST),
    "decibels": ("waveform", FIRST),
    "oscillators": ("small", FIRST, *FEW_OSCILLATORS),
    "points": ("wasserstein", FIRST),
    "codebooks begin": ("discrete", FIRST, *FEW_CODES),
    "codebooks go on": ("discrete", FIRST, *FEW_CODES),
    "spectral discriminator": ("v2+spectral_discriminator", SECOND),
}


class Outcome(dict[str, torch.Tensor]):
    """What a step computed, by kind and name."""

    def difference(self, other: Outcome, kind: str) -> float:
        names = [name for name in self if name.startswith(kind)]
        assert names
        assert self.keys() == other.keys()
        largest = max(float(self[name].abs().max()) for name in names)
        return max(float((self[n] - other[n]).abs().max()) for n in names) / largest


def step(case: str) -> Outcome:
    """Return gradients, buffers and logged values of the first step of a training."""
    recipe, *settings = RAVE[case]
    batch = GlobalBatch.of_processes()
    torch.manual_seed(batch.rank)  # they are made equal below
    sizes = [*SMALL, "SCALES=[256, 128]", f"CROP_SAMPLES={CROP_SAMPLES}"]
    sizes.append(f"SAMPLE_RATE_HZ={RATE_HZ}")
    experiment.parse_recipe("rave", recipe, [*sizes, *settings])
    system = RaveSystem(experiment.build_model(), experiment.build_training())
    outcome = Outcome()
    system.log = lambda *_, **__: None
    system.log_dict = lambda values: outcome.update({f"log {k}": v for k, v in values.items()})
    system.manual_backward = lambda loss: loss.backward()
    system.setup("fit")
    if batch.world_size > 1:
        batch.begin_equal(system)
    draw = torch.Generator().manual_seed(1)
    # As loud as music, and no item as loud as another: means of shares are not those of the whole.
    audio = torch.randn(BATCH_SIZE, 1, CROP_SAMPLES, generator=draw)
    audio = audio * torch.tensor([0.3, 0.1, 0.03, 0.01])[:, None, None]
    generator = torch.Generator().manual_seed(2)
    if case == "codebooks go on":
        system.model.bottleneck.is_enabled.fill_(1)
    if case.endswith("discriminator") and "phase 2" in case:
        system._discriminator_backward(batch.shard(audio), generator)
    else:
        system._generator_loss(batch.shard(audio), generator).backward()
    batch.average_gradients(system.parameters())
    for name, parameter in system.named_parameters():
        if parameter.grad is not None:
            outcome[f"gradient {name}"] = parameter.grad
    outcome |= {f"learnt {name}": value.double() for name, value in system.named_buffers()}
    return outcome


def normalise() -> Outcome:
    """Return what a layer of batch normalisation computes in double precision."""
    batch, layer = GlobalBatch.of_processes(), torch.nn.BatchNorm1d(6).double()
    if batch.world_size > 1:
        batch.begin_equal(layer)
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH_SIZE, 6, 50, generator=draw, dtype=torch.float64)
    x = (x * torch.arange(1, BATCH_SIZE + 1)[:, None, None] + 1).requires_grad_()
    layer(batch.shard(x)).pow(3).mean().backward()
    assert x.grad is not None
    gradient = batch.all_gather(batch.shard(x.grad)) / batch.world_size
    batch.average_gradients(layer.parameters())
    outcome = Outcome({"gradient x": gradient, "log": torch.ones(1)})
    outcome |= {f"gradient {name}": p.grad for name, p in layer.named_parameters()}
    outcome |= {f"learnt {name}": value.double() for name, value in layer.named_buffers()}
    return outcome


def compute(rank: int, folder: str) -> None:
    """Compute each step as one of the processes, and compare with the step of one alone."""
    torch.set_num_threads(1)
    if rank == 0:
        alone = {case: step(case) for case in RAVE}
        alone["layer"] = normalise()
        torch.save({case: dict(outcome) for case, outcome in alone.items()}, f"{folder}/alone")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES
    )
    shared = {case: step(case) for case in RAVE}
    shared["layer"] = normalise()
    alone = {case: Outcome(found) for case, found in torch.load(f"{folder}/alone").items()}
    kinds = "gradient", "learnt", "log"
    found = {
        case: {kind: alone[case].difference(shared[case], kind) for kind in kinds} for case in alone
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            compute, (folder,), NUM_PROCESSES, start_method="fork"
        )
        found = [json.loads(Path(folder, f"{r}.json").read_text()) for r in range(NUM_PROCESSES)]
    assert found[0] == found[1], found
    json.dump(found[0], sys.stdout, indent=1)
