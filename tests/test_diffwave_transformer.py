"""Laws of the transformer: how far it sees, that places do not matter, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder

from diffwave import diagnose, export, inference, train
from diffwave.transformer import DiffusionTransformer

K, CHANNELS = 3, 4


def make_network(condition_channels: int = 0) -> DiffusionTransformer:
    """Return a network with random weights, also where a new one has zeros."""
    torch.manual_seed(0)
    network = DiffusionTransformer(K, 2, 32, 5, condition_channels).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # more, and attention sees one frame alone
    return network


def test_a_new_network_predicts_nothing_and_learns_in_all_its_weights() -> None:
    network = DiffusionTransformer(K, 2, 32, 5)
    noisy, step = torch.randn(2, K, 20), torch.tensor([3.0, 900.0])
    assert torch.equal(network(noisy, step), torch.zeros_like(noisy))
    torch.nn.init.normal_(network.output.weight)
    network(noisy, step).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_a_frame_depends_on_its_receptive_field_and_nothing_else() -> None:
    network = make_network(CHANNELS)
    reach = network.receptive_field_frames // 2
    noisy = torch.randn(1, K, 4 * reach, requires_grad=True)
    condition = torch.randn(1, CHANNELS, 4 * reach, requires_grad=True)
    middle = 2 * reach
    network(noisy, torch.tensor([500.0]), condition)[0, :, middle].sum().backward()
    for given in (noisy, condition):
        assert given.grad is not None
        seen = given.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
        assert (int(seen.min()), int(seen.max())) == (middle - reach, middle + reach)


def test_what_is_predicted_does_not_depend_on_the_place() -> None:
    network, step = make_network(), torch.tensor([200.0])
    clip = torch.randn(1, K, 90)
    reach, shift = network.receptive_field_frames // 2, 17
    whole, later = network(clip, step), network(clip[:, :, shift:], step)
    kept = whole[:, :, shift + reach :]
    torch.testing.assert_close(later[:, :, reach:], kept, atol=1e-4 * kept.std().item(), rtol=0)


def test_items_do_not_see_each_other() -> None:
    network = make_network()
    noisy, step = torch.randn(3, K, 24), torch.tensor([1.0, 40.0, 999.0])
    one_by_one = [network(noisy[i : i + 1], step[i : i + 1]) for i in range(3)]
    together = network(noisy, step)
    torch.testing.assert_close(together, torch.cat(one_by_one), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((K, 2, 40, 5), "hidden_channels is 40; the transformer needs a multiple of 32"),
        ((K, 0, 32, 5), "num_blocks is 0"),
        ((K, 2, 32, 0), "attention_frames is 0"),
    ],
)
def test_bad_sizes_are_refused(sizes: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionTransformer(*sizes)


def test_bad_shapes_are_refused() -> None:
    network = make_network(CHANNELS)
    noisy, step = torch.randn(1, K, 8), torch.tensor([1.0])
    with pytest.raises(ValueError, match=r"\(1, 4, 8\) is needed"):
        network(noisy, step)
    with pytest.raises(ValueError, match=r"\(batch, 3, frames\) is needed"):
        network(noisy[:, :2], step, None)


def test_the_recipe_trains_follows_and_makes_long_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, run = tmp_path / "latents", tmp_path / "run"
    names = [f"{folder}/{n}.npy" for folder in ("piano", "strings") for n in "ab"]
    arrays = {name: autoregression(4, 60, 0.9, seed) for seed, name in enumerate(names)}
    write_latent_folder(latents, arrays)
    small = settings("HIDDEN_CHANNELS=32", "ATTENTION_FRAMES=4")
    command = [str(latents), "--out", str(run), "--config", "transformer", "--labels", *small]
    assert train.main([*command, "--set", "HELD_OUT_FRACTION=0.5"]) == 0
    capsys.readouterr()
    few = ["--steps", "3", "--count", "1", "--label", "piano", "--guidance", "2", "--json"]
    out = tmp_path / "out"
    assert inference.main([str(run), str(out), *few, "--seconds", "9", "--window", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["followed"] == ["label"]
    assert np.isfinite(np.load(out / "generated_000.npy")).all()
    assert diagnose.main([str(run), "--json"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert network["readout_change"] is None and network["levels"][0]["skip_sum"] is None
    assert [block["x"] > 0 for block in network["levels"][0]["blocks"]] == [True, True]
    assert (run / "diagnosis" / "diagnosis.png").exists()
    assert export.main([str(run), str(tmp_path / "lmnt")]) == 2
    assert "is a transformer, which lmnt diffwave does not" in capsys.readouterr().err
