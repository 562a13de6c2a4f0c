"""Runs of acids-rave whose latents are no normal distributions; golden/README.md."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from upstream_runs import CONFIG, assert_refused, golden_weights, write_upstream_run

from rave.blocks.bottleneck import Discrete, Spherical, Wasserstein, mean_discrepancy
from rave.codec import load_run
from rave.main_cli import main

GOLDEN = Path(__file__).parent / "golden" / "acids_rave_latents.npz"
DELAY_SAMPLES = 16  # that acids-rave leaves in its output
SIZES = {
    "CAPACITY = 4": "CAPACITY = 2",
    "LATENT_SIZE = 16": "LATENT_SIZE = 4",
    "RATIOS = [4, 4, 4, 2]": "RATIOS = [2, 2]",
    "DILATIONS = [[1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3]]": "DILATIONS = [[1, 3], [1]]",
    "variational/blocks": "blocks",
    "n_out = 2": "n_out = 1",
}
NOISE = {"NOISE_AUGMENTATION = 0": "NOISE_AUGMENTATION = 2"}
VARIATIONAL = """blocks.VariationalEncoder.beta = 1.0
blocks.VariationalEncoder.encoder = @blocks.EncoderV2"""
CHANGES = {
    "wasserstein": {
        **NOISE,
        VARIATIONAL: """blocks.WasserteinEncoder.encoder_cls = @blocks.EncoderV2
blocks.WasserteinEncoder.noise_augmentation = %NOISE_AUGMENTATION""",
        "encoder = @blocks.VariationalEncoder": "encoder = @blocks.WasserteinEncoder",
    },
    "spherical": {
        VARIATIONAL: "blocks.SphericalEncoder.encoder_cls = @blocks.EncoderV2",
        "encoder = @blocks.VariationalEncoder": "encoder = @blocks.SphericalEncoder",
    },
    "discrete": {
        **NOISE,
        VARIATIONAL: """blocks.DiscreteEncoder.encoder_cls = @blocks.EncoderV2
blocks.DiscreteEncoder.noise_augmentation = %NOISE_AUGMENTATION
blocks.DiscreteEncoder.num_quantizers = 3
blocks.DiscreteEncoder.vq_cls = @quantization.ResidualVectorQuantization
quantization.ResidualVectorQuantization.codebook_size = 8
quantization.ResidualVectorQuantization.dim = %LATENT_SIZE
quantization.ResidualVectorQuantization.num_quantizers = 3""",
        "encoder = @blocks.VariationalEncoder": "encoder = @blocks.DiscreteEncoder",
        "from rave import pqmf\n": "from rave import pqmf\nfrom rave import quantization\n",
    },
}
CLASSES = {"wasserstein": Wasserstein, "spherical": Spherical, "discrete": Discrete}


def config_of(kind):
    """Return the reference config with the settings of a kind."""
    text = CONFIG
    for old, new in {**SIZES, **CHANGES[kind]}.items():
        assert old in text
        text = text.replace(old, new)
    return text


@cache
def golden(kind):
    """Return the reference arrays and weights of a kind."""
    with np.load(GOLDEN) as file:
        found = {n: torch.from_numpy(file[n]) for n in file.files if n.startswith(f"{kind}/")}
    arrays = {name.removeprefix(f"{kind}/"): value for name, value in found.items()}
    prefix = "weights/"
    weights = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
    bank = {n: v for n, v in golden_weights().items() if n.startswith("pqmf.")}
    return arrays, {**weights, **bank}


@pytest.fixture(scope="module", params=CHANGES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / kind
    return write_upstream_run(folder, config_of(kind), golden(kind)[1])


def assert_equals(found, needed, relative=1e-5):
    assert found.shape == needed.shape
    assert (found - needed).abs().max() <= relative * needed.abs().max()


def test_latents_equal_those_of_acids_rave(kind, run):
    arrays, _ = golden(kind)
    model, _ = load_run(run)
    assert type(model.bottleneck) is CLASSES[kind]
    audio = arrays["audio"][None]
    assert_equals(model.encoder_rows(audio)[0], arrays["rows"])
    assert_equals(model.encode(audio).mean[0], arrays["latents"][:4])


def test_decoded_audio_equals_that_of_acids_rave_without_its_delay(kind, run):
    arrays, _ = golden(kind)
    model, _ = load_run(run)
    decoded = model.decode(arrays["decoder_input"][None])[0]  # with its noise below the latents
    assert_equals(decoded[:, :-DELAY_SAMPLES], arrays["decoded"][:, DELAY_SAMPLES:])


def test_indices_equal_those_of_acids_rave(tmp_path):
    arrays, weights = golden("discrete")
    model, _ = load_run(write_upstream_run(tmp_path / "run", config_of("discrete"), weights))
    indices = model.bottleneck.indices(arrays["rows"][None])
    assert torch.equal(indices[0], arrays["indices"].long())
    assert_equals(model.bottleneck.quantizer.dequantize(indices)[0], arrays["latents"][:4])


def test_discrepancy_equals_that_of_acids_rave():
    arrays, _ = golden("wasserstein")
    points = arrays["rows"].T
    torch.manual_seed(5)  # the draws are those of this memory layout
    found = float(mean_discrepancy(points, torch.randn_like(points)))
    assert found == pytest.approx(float(arrays["regularisation"]), rel=1e-4)


def test_codebooks_that_acids_rave_never_used_leave_the_rows_as_they_are(tmp_path):
    arrays, weights = golden("discrete")
    weights = {**weights, "encoder.enabled": torch.tensor(0)}
    model, _ = load_run(write_upstream_run(tmp_path / "run", config_of("discrete"), weights))
    assert_equals(model.encode(arrays["audio"][None]).mean[0], arrays["rows"])


def test_codebooks_in_use_that_were_not_learnt_are_refused(tmp_path):
    _, weights = golden("discrete")
    weights = {**weights, "encoder.rvq.layers.1._codebook.inited": torch.zeros(1)}
    run = write_upstream_run(tmp_path / "run", config_of("discrete"), weights)
    with pytest.raises(ValueError, match="in use, but not learnt"):
        load_run(run)


@pytest.mark.parametrize(
    ("kind", "old", "new", "what"),
    [
        ("discrete", "codebook_size = 8", "codebook_dim = 2", "codebook_dim = 2"),
        ("discrete", "num_quantizers = 3\nblocks", "num_quantizers = 4\nblocks", "= 4"),
        ("discrete", "ResidualVector", "GroupedVector", "GroupedVectorQuantization"),
        ("wasserstein", "n_out = 1", "n_out = 2", "n_out = 2"),
        ("wasserstein", "AUGMENTATION = 2", "AUGMENTATION = -1", "noise_augmentation = -1"),
        ("spherical", "NOISE_AUGMENTATION = 0", "NOISE_AUGMENTATION = 2", "noise_augmentation = 2"),
    ],
)
def test_what_our_layers_cannot_compute_is_refused_by_name(tmp_path, kind, old, new, what):
    assert_refused(tmp_path / "run", config_of(kind), golden(kind)[1], old, new, what)


def test_codebooks_count_in_the_fingerprint(tmp_path):
    _, weights = golden("discrete")
    name = "encoder.rvq.layers.0._codebook.embed"
    others = {**weights, name: weights[name] + 1}
    prints = {
        load_run(write_upstream_run(tmp_path / str(i), config_of("discrete"), w))[1].fingerprint
        for i, w in enumerate((weights, others))
    }
    assert len(prints) == 2


def test_commands_take_the_run(kind, run, tmp_path):
    from audio_files import sine, write

    write(tmp_path / "audio" / "a.wav", sine(440, 44100, 0.2), 44100)
    latents, audio = str(tmp_path / "latents"), str(tmp_path / "decoded")
    assert main(["encode", str(run), str(tmp_path / "audio"), latents]) == 0
    assert main(["decode", str(run), latents, audio]) == 0
    assert (tmp_path / "decoded" / "a.wav").exists()
