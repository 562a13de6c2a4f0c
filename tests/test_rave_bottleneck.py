"""The kinds of latents: what they are, how they are learnt, and the way through every command."""

import json

import numpy as np
import pytest
import torch
from rave_models import SHORT, codec_of, small_model
from rave_runs import RATE_HZ, TINY, checkpoint, prepare

from rave import experiment
from rave.blocks.bottleneck import mean_discrepancy
from rave.blocks.quantizer import Codebook, ResidualQuantizer, nearest
from rave.codec import load_codec, load_run
from rave.latents.folder import LatentHeader
from rave.main_cli import main
from rave.noise import DecoderNoise
from rave.training import RaveSystem

NOISE = "NUM_NOISE_ROWS=2"
KINDS = {
    "discrete": (NOISE, "NUM_STAGES=3", "NUM_CODES=8"),
    "wasserstein": (NOISE,),
    "spherical": (),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def kind_of(recipe, *settings):
    return small_model(recipe, *SHORT, *KINDS[recipe], *settings)


def audio_of(num_samples, seed=0):
    return 0.1 * torch.randn(2, 1, num_samples, generator=seeded(seed))


def clusters(num_vectors, seed=0):
    """Return (V, 2) vectors around eight far points, and their points."""
    angles = torch.arange(8) * torch.pi / 4
    points = 10 * torch.stack([angles.cos(), angles.sin()], dim=1)
    which = torch.randint(0, 8, (num_vectors,), generator=seeded(seed))
    return points[which] + 0.1 * torch.randn(num_vectors, 2, generator=seeded(seed + 1)), points


def is_found(points, codes):
    return torch.cdist(points, codes).min(dim=1).values < 0.2


# The quantizer


def test_the_nearest_code_is_that_of_the_least_distance():
    vectors, codes = torch.randn(50, 3, generator=seeded()), torch.randn(7, 3, generator=seeded(1))
    assert torch.equal(nearest(vectors, codes), torch.cdist(vectors, codes).argmin(1))


def test_the_first_codes_are_means_of_clusters():
    vectors, points = clusters(400)
    book = Codebook(32, 2)  # room for bad starts
    book.begin(vectors, seeded())
    assert is_found(points, book.codes).all()
    assert float(book.counts.sum()) == 400
    assert torch.allclose(book.sums.sum(0), vectors.sum(0), atol=1e-2)


def test_codes_follow_their_vectors():
    vectors, _ = clusters(100)
    book = Codebook(8, 2)
    book.begin(vectors, seeded())
    for _ in range(400):  # 0.99^400: 2 % is left of the start
        moved = vectors + 3.0
        book.learn(moved, book(moved)[0], seeded())
    indices, _ = book(vectors + 3.0)
    for code in indices.unique():
        mean = (vectors + 3.0)[indices == code].mean(0)
        assert torch.allclose(book.codes[code], mean, atol=0.3)


def test_a_dead_code_finds_vectors_of_its_own_and_stays():
    vectors, points = clusters(200)
    book = Codebook(24, 2)
    book.begin(vectors[:1], seeded())  # all codes are one
    assert int(is_found(points, book.codes).sum()) == 1
    for step in range(100):
        book.learn(vectors, book(vectors)[0], seeded(step))
    assert is_found(points, book.codes).all()
    assert len(book(vectors)[0].unique()) >= 20


def test_each_stage_codes_what_the_stages_before_it_left():
    rows = torch.randn(2, 4, 200, generator=seeded())
    quantizer = ResidualQuantizer(4, 16, 4)
    quantizer.learn(rows, seeded(), is_first=True)
    indices, sums = quantizer(rows)
    assert indices.shape == (2, 4, 200)
    assert torch.allclose(quantizer.dequantize(indices), sums, atol=1e-6)
    errors = []
    for count in range(1, 5):
        part = sum(
            stage.codes[indices[:, i]] for i, stage in enumerate(list(quantizer.stages)[:count])
        )
        errors.append(float((rows - part.transpose(1, 2)).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]
    needed = torch.tensor(errors).sum()
    assert float(quantizer.commitment(rows)) == pytest.approx(float(needed), rel=1e-4)


def test_commitment_moves_rows_towards_their_codes():
    rows = torch.randn(1, 4, 100, generator=seeded(), requires_grad=True)
    quantizer = ResidualQuantizer(1, 8, 4)
    quantizer.learn(rows.detach(), seeded(), is_first=True)
    quantizer.commitment(rows).backward()
    difference = rows.detach() - quantizer(rows)[1]
    assert torch.allclose(rows.grad, 2 * difference / rows.numel(), atol=1e-7)


def test_indices_that_no_code_has_are_refused():
    quantizer = ResidualQuantizer(2, 8, 4)
    with pytest.raises(ValueError, match=r"from 0 to 8; this codec has codes 0 to 7"):
        quantizer.dequantize(torch.tensor([[[0], [8]]]))
    with pytest.raises(ValueError, match=r"shape \(1, 1, 1\); \(batch, 2, frames\)"):
        quantizer.dequantize(torch.tensor([[[0]]]))


def test_learning_repeats_with_the_seed():
    rows = torch.randn(1, 4, 100, generator=seeded())

    def learnt(seed):
        quantizer = ResidualQuantizer(2, 64, 4)
        generator = seeded(seed)
        for step in range(3):
            quantizer.learn(rows, generator, is_first=step == 0)
        return quantizer.state_dict()

    first, again, other = learnt(0), learnt(0), learnt(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# The kinds


@pytest.mark.parametrize("kind", KINDS)
def test_points_have_no_spread(kind):
    model = kind_of(kind)
    posterior = model.encode(audio_of(1000))
    assert torch.equal(posterior.sample(seeded()), posterior.mean)
    assert torch.equal(posterior.std, torch.full_like(posterior.mean, 1e-4))
    mean, std = model.posterior_parameters(audio_of(1000))
    assert torch.equal(mean, posterior.mean)
    assert torch.equal(std, posterior.std)


def test_gradient_passes_the_quantizer_as_if_it_were_not_there():
    bottleneck = kind_of("discrete").bottleneck
    rows = torch.randn(1, 4, 50, generator=seeded(), requires_grad=True)
    assert torch.equal(bottleneck.posterior(rows).mean, rows)  # not learnt yet
    assert torch.equal(bottleneck.fixed()(rows)[0], rows)
    bottleneck.learn(bottleneck.posterior(rows), seeded())
    latents = bottleneck.posterior(rows).mean
    assert torch.equal(latents, bottleneck.quantizer(rows)[1])
    assert torch.equal(bottleneck.fixed()(rows)[0], latents)
    weights = torch.randn(latents.shape, generator=seeded(1))
    (weights * latents).sum().backward()
    assert torch.equal(rows.grad, weights)


def test_indices_of_codebooks_that_are_not_learnt_are_refused():
    with pytest.raises(ValueError, match="not learnt, so there are no indices"):
        kind_of("discrete").bottleneck.indices(torch.zeros(1, 4, 3))


def test_the_discrepancy_from_a_normal_distribution_tells_it_from_others():
    normal, other = (torch.randn(2000, 4, generator=seeded(seed)) for seed in (0, 1))
    same = float(mean_discrepancy(normal, other))
    assert 0 <= same < 1e-3
    for wrong in (other + 1, 3 * other, torch.zeros_like(other)):
        assert float(mean_discrepancy(wrong, normal)) > 10 * same
    assert float(mean_discrepancy(normal, normal)) == pytest.approx(0, abs=1e-6)


def test_points_on_the_sphere_have_length_1_and_the_decoder_sees_no_others():
    model = kind_of("spherical")
    latents = model.encode(audio_of(1000)).mean
    assert torch.allclose(latents.norm(dim=1), torch.ones(2, 16))
    assert torch.allclose(model.decode(5 * latents), model.decode(latents), atol=1e-6)


@pytest.mark.parametrize("kind", ["discrete", "wasserstein"])
def test_the_decoder_hears_the_noise_below_the_latents(kind):
    model = kind_of(kind)
    latents = model.encode(audio_of(1000)).mean
    whole = model.with_noise_rows(latents, seeded())
    assert whole.shape[1] == 6
    assert torch.equal(whole[:, :4], latents)
    assert torch.equal(model.decode(whole), model.decode(whole))
    assert not torch.equal(model.decode(whole), model.decode(latents))


@pytest.mark.parametrize("kind", ["discrete", "wasserstein"])
def test_decoding_in_windows_hears_the_noise_of_decoding_at_once(kind):
    codec = codec_of(kind_of(kind))
    latents = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)

    def decoded(window_frames, seed=0):
        noise = DecoderNoise(codec.format, seed)
        return np.concatenate(list(codec.decode_blocks(latents, noise, window_frames)), axis=1)

    whole = decoded(50)
    assert np.abs(decoded(7) - whole).max() < 1e-5
    assert np.abs(decoded(50, seed=1) - whole).max() > 1e-4


@pytest.mark.parametrize(
    ("recipe", "num_encoder", "num_decoder"),
    [
        ("discrete", 14_287_328, 14_889_248),
        ("wasserstein", 14_950_768, 15_552_800),
        ("spherical", 14_950_768, 14_962_976),
    ],
)
def test_recipes_have_as_many_parameters_as_those_of_acids_rave(recipe, num_encoder, num_decoder):
    experiment.parse_recipe("rave", recipe)
    model = experiment.build_model()
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder)]
    assert counts == [num_encoder, num_decoder]


# Training, and every command


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


def train(kind, prepared, out, *settings):
    sets = [part for s in (*TINY, *KINDS[kind], *settings) for part in ("--set", s)]
    where = ["--data", str(prepared), "--out", str(out), "--device", "cpu"]
    return main(["train", kind, *where, *sets])


@pytest.fixture(scope="module", params=KINDS)
def run(request, prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    assert train(request.param, prepared, out) == 0
    return out


def test_audio_goes_through_every_command_and_the_export_says_the_same(run, prepared, tmp_path):
    tones = prepared.parent / "tones"
    assert main(["export", str(run), str(tmp_path / "codec.ts")]) == 0
    for name, codec in (("run", run), ("ts", tmp_path / "codec.ts")):
        assert main(["encode", str(codec), str(tones), str(tmp_path / f"{name} latents")]) == 0
        where = str(tmp_path / f"{name} latents"), str(tmp_path / f"{name} audio")
        assert main(["decode", str(codec), *where]) == 0
    for path in (tmp_path / "run audio").glob("*.wav"):
        assert path.read_bytes() == (tmp_path / "ts audio" / path.name).read_bytes()
    header = LatentHeader.read(tmp_path / "run latents")
    assert np.isfinite(header.statistics.kl).all()
    json.loads((tmp_path / "run latents" / "latents.json").read_text())


def test_codebooks_are_learnt_and_their_latents_are_sums_of_codes(prepared, tmp_path):
    assert train("discrete", prepared, tmp_path / "run") == 0
    model = load_run(tmp_path / "run")[0]
    assert int(model.bottleneck.is_enabled) == 1
    audio = audio_of(4000)
    indices = model.bottleneck.indices(model.encoder_rows(audio))
    latents = model.bottleneck.quantizer.dequantize(indices)
    assert torch.allclose(model.encode(audio).mean, latents, atol=1e-6)
    assert load_codec(tmp_path / "run", torch.device("cpu")).format.num_noise_rows == 2


def test_other_codebooks_are_another_fingerprint():
    def fingerprint(scale):
        model = kind_of("discrete")
        model.bottleneck.quantizer.stages[0].codes.fill_(scale)
        return codec_of(model).format.fingerprint

    assert fingerprint(1.0) == fingerprint(1.0) != fingerprint(2.0)


def test_a_run_with_codebooks_stopped_and_resumed_equals_one_that_was_not(prepared, tmp_path):
    assert train("discrete", prepared, tmp_path / "whole") == 0
    assert train("discrete", prepared, tmp_path / "resumed", "MAX_STEPS=3") == 0
    assert train("discrete", prepared, tmp_path / "resumed") == 0
    found, needed = (checkpoint(tmp_path / name)["state_dict"] for name in ("resumed", "whole"))
    assert all(torch.equal(found[name], value) for name, value in needed.items())


@pytest.mark.parametrize(
    ("kind", "is_frozen"), [("discrete", False), ("spherical", False), ("wasserstein", True)]
)
def test_phase_2_freezes_the_encoder_of_distributions_held_near_a_prior(kind, is_frozen):
    torch.manual_seed(0)
    sets = [*TINY, *KINDS[kind], f"SAMPLE_RATE_HZ={RATE_HZ}", "PHASE_1_STEPS=0"]
    experiment.parse_recipe("rave", kind, sets)
    system = RaveSystem(experiment.build_model(), experiment.build_training())
    system.log = system.log_dict = lambda *args, **kwargs: None
    system._generator_loss(audio_of(4096), seeded()).backward()
    moved = any(
        p.grad is not None and bool(p.grad.any()) for p in system.model.encoder.parameters()
    )
    assert moved != is_frozen
