"""The method `prior` of a module for nn~."""

import pytest
import torch
from diffwave_data import autoregression, write_latent_folder
from nn_host import Host, check_methods_in_turn, unknown_operators
from rave_models import SHORT, small_model, write_run
from strangers import edit_header

from rave.codec import load_run
from rave.codec_format import CodecFormat
from rave.export.torchscript import export_nn_tilde
from rave.main_cli import main
from rave.prior import LatentPrior

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
V2 = ("v2", *SHORT)
COLD = -30.0  # as a control: a temperature of nearly 0


def prior_of(raw_size=4, latent_size=3):
    torch.manual_seed(0)
    prior = LatentPrior(raw_size, latent_size, 8, 6, 9, 5, 2).eval().requires_grad_(False)
    prior.mean.copy_(torch.arange(float(raw_size)))
    prior.scale.copy_(torch.arange(1.0, latent_size + 1))
    for parameter in prior.output.parameters():
        parameter.mul_(10)  # that some classes are much likelier than others
    return prior


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Return a host and the prior that it plays."""
    path, model, prior = tmp_path_factory.mktemp("prior") / "a.ts", small_model(*V2), prior_of()
    model.latent_pca.copy_(torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0])
    model.latent_mean.copy_(torch.arange(4.0))
    export_nn_tilde(model, CodecFormat.of(model), path, 4, 5, prior=prior)
    assert unknown_operators(path) == set()
    check_methods_in_turn(path)
    return Host(path), model, prior


def raw(host, model, control, cuts=None):
    """Return raw latents of a new stream, without the silence before them."""
    host.set("reset", 1)
    late = host.get("prior_latency") // model.hop_samples
    control = torch.cat([control[:, :, :1].expand(-1, -1, late), control], 2)
    pieces = [host.module.prior(part) for part in control.split(cuts or control.shape[2], 2)]
    assert not any(piece.any() for piece in torch.cat(pieces, 2)[..., :late])
    pieces = [torch.cat(pieces, 2)[..., late:]]
    return model.latent_pca.T @ torch.cat(pieces, 2) + model.latent_mean[:, None]


@torch.inference_mode()
def test_the_host_finds_the_prior(played):
    host = played[0]
    assert host.methods == ["encode", "decode", "forward", "prior"]
    assert host.params["prior"] == [1, 64, 4, 64]
    host.self_test("prior", 8192)


@torch.inference_mode()
def test_a_cold_prior_takes_the_likeliest_classes(played):
    host, model, prior = played
    found = prior.classes(raw(host, model, torch.full((1, 1, 20), COLD)))
    wanted = prior.classes(prior.sample(20, [(0,)], temperature=0.0))
    assert len(found.unique()) > 1
    assert torch.equal(found, wanted)


@torch.inference_mode()
def test_a_control_of_0_is_a_temperature_of_1(played):
    """Classes come as often as in the prior's own samples."""
    host, model, prior = played
    found = prior.classes(raw(host, model, torch.zeros(16, 1, 200)))
    wanted = prior.classes(prior.sample(200, [(n,) for n in range(16)]))
    counts = [torch.stack([(c == n).sum((0, 2)) for n in range(8)]) for c in (found, wanted)]
    shares = [count / count.sum(0) for count in counts]
    assert (shares[0] - shares[1]).abs().max() < 0.05
    assert shares[1].max() > 0.3


@torch.inference_mode()
def test_a_seed_is_one_music_however_it_is_cut_and_items_differ(played):
    host, model, _ = played
    control = torch.zeros(2, 1, 24)
    whole = raw(host, model, control)
    for size in (1, 5):
        assert torch.allclose(raw(host, model, control, size), whole, atol=1e-4)
    assert not torch.allclose(whole[0], whole[1])
    host.set("seed", 6)
    assert torch.allclose(raw(host, model, control)[0], whole[1], atol=1e-4)
    host.set("seed", 5)


@torch.inference_mode()
def test_axes_that_are_not_modelled_get_noise(tmp_path):
    model, prior = small_model(*V2), prior_of()
    prior.rest = torch.linalg.qr(torch.eye(4))[0][3:]
    export_nn_tilde(model, CodecFormat.of(model), tmp_path / "a.ts", 4, 5, prior=prior)
    found = raw(Host(tmp_path / "a.ts"), model, torch.zeros(8, 1, 200))[:, 3] - 3.0
    assert abs(float(found.mean())) < 0.1
    assert abs(float(found.var()) - 1) < 0.1


def test_rave_export_takes_a_prior_of_the_run_and_no_other(tmp_path, capsys):
    run = write_run(tmp_path / "run", *V2)
    arrays = {f"{name}.npy": autoregression(4, 60, 0.9, seed) for seed, name in enumerate("abcd")}
    sizes = (
        "MAX_STEPS=1",
        "SEGMENT_FRAMES=16",
        "NUM_BLOCKS=2",
        "HIDDEN_CHANNELS=4",
        "BATCH_SIZE=2",
    )
    settings = [part for size in sizes for part in ("--set", size)]
    form = load_run(run)[1]
    for name, codec in (("fits", form.fingerprint), ("other", "c0dec")):
        write_latent_folder(tmp_path / name / "latents", arrays, codec)
        rate_hz, hop = form.sample_rate_hz, form.hop_samples
        edit_header(tmp_path / name / "latents", sample_rate_hz=rate_hz, hop_samples=hop)
        out = ["--out", str(tmp_path / name / "prior"), *settings]
        assert main(["train_prior", str(tmp_path / name / "latents"), *out]) == 0
    command = ["export", str(run), str(tmp_path / "a.ts"), "--streaming", "--fidelity", "1"]
    assert main([*command, "--prior", str(tmp_path / "fits" / "prior")]) == 0
    assert "prior" in Host(tmp_path / "a.ts").methods
    capsys.readouterr()
    assert main([*command, "--prior", str(tmp_path / "other" / "prior")]) == 2
    assert "is of another codec" in capsys.readouterr().err
