"""A model that this machine cannot hold is refused before its weights are made."""

import re

import pytest
import torch
from rave_models import write_run
from rave_runs import prepare, train
from strangers import diffusion_run
from torch import nn
from upstream_runs import CONFIG, write_upstream_run

from diffwave.run import open_run
from rave.codec import load_run
from rave.runs import model_size
from rave.runs.model_size import MAX_TENSORS, limited_size


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(model_size, "_memory_bytes", lambda: 2**23)


def enlarge(run, name, value):
    path = run / "model.gin"
    text, num_found = re.subn(rf"(?m)^{name} = \d+", f"{name} = {value}", path.read_text())
    assert num_found == 1
    path.write_text(text)


@pytest.mark.parametrize(
    ("make", "name", "opened"),
    [(write_run, "CAPACITY", load_run), (diffusion_run, "HIDDEN_CHANNELS", open_run)],
)
def test_of_a_run(make, name, opened, tmp_path, small_machine):
    run = make(tmp_path / "run")
    opened(run)
    enlarge(run, name, 512)
    with pytest.raises(ValueError, match="GiB of weights; the limit is half of this machine"):
        opened(run)


def test_of_a_run_of_acids_rave(tmp_path, small_machine):
    run = write_upstream_run(tmp_path / "run")
    load_run(run)
    config = write_upstream_run(
        tmp_path / "large", CONFIG.replace("CAPACITY = 4", "CAPACITY = 512")
    )
    with pytest.raises(ValueError, match="GiB of weights; the limit is half of this machine"):
        load_run(config)


def test_of_a_recipe(tmp_path, capsys, small_machine):
    assert train(prepare(tmp_path), tmp_path / "run", "CAPACITY=512") == 2
    assert "GiB of weights; the limit is half of this machine's memory" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_that_has_more_layers_than_any(tmp_path):
    run = diffusion_run(tmp_path / "run")
    enlarge(run, "NUM_BLOCKS", 10**9)
    with pytest.raises(ValueError, match=f"more than {MAX_TENSORS} weights and buffers"):
        open_run(run)


def test_is_refused_before_its_weights_are_made(small_machine):
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(2**24))
            raise AssertionError("it was made")

    with pytest.raises(ValueError, match="GiB of weights"), limited_size():
        Large()
    with pytest.raises(AssertionError):
        Large()  # the limit ends with the block
