"""With the weights of acids-rave 2.3.1 our layers compute what it computes; golden/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rave_models import build_model
from torch.nn import functional

from rave import experiment
from rave.losses import discriminator_hinge_loss, feature_matching

GOLDEN = Path(__file__).parent / "golden"
SIZES = ("CAPACITY=4", "LATENT_SIZE=16")
NAMES = {
    "pqmf.forward_conv.weight": "pqmf.analysis_weight",
    "pqmf.inverse_conv.weight": "pqmf.synthesis_weight",
    "encoder.encoder.": "encoder.",
    "decoder.net.21.": "decoder.wave.",
    "aligned.branches.0.": "",
}
DELAY_SAMPLES = 16  # that acids-rave leaves in its output


def our_name(name):
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "acids_rave_v2.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def figures():
    return json.loads((GOLDEN / "acids_rave_v2.json").read_text())


@pytest.fixture(scope="module")
def weights(arrays):
    prefix = "weights/"
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def model(weights):
    model = build_model("v2", *SIZES)
    ours = {our_name(k): v for k, v in weights.items() if not k.startswith("discriminator.")}
    found = model.load_state_dict(ours, strict=False)
    assert found.unexpected_keys == []
    axes = {"latent_mean", "latent_pca", "fidelity"}
    # torch's hook for the old names leaves the new ones in the list of what is missing.
    missing = {k for k in found.missing_keys if ".parametrizations." not in k}
    assert missing == axes
    return model


@pytest.fixture(scope="module")
def audio(arrays):
    return arrays["audio"][None, :, :65536]


@pytest.fixture(scope="module")
def training():
    experiment.parse_recipe("rave", "v2", SIZES)
    return experiment.build_training()


def assert_equals(found, needed, relative=1e-4):
    """Largest difference, relative to the largest value."""
    assert found.shape == needed.shape
    assert (found - needed).abs().max() <= relative * needed.abs().max()


def test_the_filters_we_design_are_those_we_load(weights):
    """Our search for the cut-off goes on for some digits more."""
    pqmf = build_model("v2", *SIZES).pqmf
    assert_equals(pqmf.analysis_weight, weights["pqmf.forward_conv.weight"], 1e-3)
    assert_equals(pqmf.synthesis_weight, weights["pqmf.inverse_conv.weight"], 1e-3)


def test_every_weight_of_acids_rave_is_a_weight_of_ours(model, weights):
    for name, value in weights.items():
        if name.endswith("weight_v") and not name.startswith("discriminator."):
            layer = model.get_submodule(our_name(name).removesuffix(".weight_v"))
            g = weights[name.removesuffix("v") + "g"]
            assert_equals(layer.weight, g * value / value.norm(dim=(1, 2), keepdim=True), 1e-6)


def test_bands_equal_those_of_acids_rave(model, audio, arrays):
    assert_equals(model.pqmf.analysis(audio)[0, :, :1024], arrays["pqmf_first_1024_steps"])


def test_posterior_equals_that_of_acids_rave(model, audio, arrays):
    posterior = model.encode(audio)
    assert_equals(posterior.mean[0], arrays["mean"])
    assert_equals(posterior.std[0], arrays["std"])


def test_half_our_kl_is_missing_in_acids_rave(model, audio, figures):
    kl = model.encode(audio).kl().sum(dim=1).mean()
    assert 2 * float(kl) == pytest.approx(figures["kl_without_half"], rel=1e-4)


def test_end_of_a_file_differs_from_acids_rave_only_within_reach(model, arrays):
    """New models see zeros behind the audio; its see them behind each layer's input."""
    ours = model.encode(arrays["audio"][None]).mean[0]
    theirs = arrays["mean_of_all_samples"]
    num_equal = theirs.shape[1] - 1 - model.encoder_reach_frames()[1]
    assert num_equal > 20
    assert_equals(ours[:, :num_equal], theirs[:, :num_equal])
    assert_equals(ours, theirs, 0.5)


def test_decoded_bands_equal_those_of_acids_rave(model, arrays):
    bands = model.decode_bands(arrays["mean"][None])[0, :, :1024]
    assert_equals(bands, arrays["bands_first_1024_steps"])


def test_decoded_audio_equals_that_of_acids_rave_without_its_delay(model, arrays):
    decoded = model.decode(arrays["mean"][None])[0]
    assert_equals(decoded[:, :-DELAY_SAMPLES], arrays["decoded"][:, DELAY_SAMPLES:])


def test_spectral_distances_equal_those_of_acids_rave(model, audio, arrays, figures, training):
    decoded = arrays["decoded"][None]
    distance = training.audio_distance(audio, decoded)
    assert float(distance) == pytest.approx(figures["spectral_distance"], rel=1e-4)
    bands = model.pqmf.analysis(audio), model.pqmf.analysis(decoded)
    distance = training.band_distance(*bands)
    assert float(distance) == pytest.approx(figures["band_spectral_distance"], rel=1e-4)


@pytest.fixture(scope="module")
def features(audio, arrays, weights, training):
    prefix = "discriminator."
    ours = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    training.discriminator.load_state_dict(ours, strict=False)
    with torch.inference_mode():
        return [training.discriminator(x) for x in (audio, arrays["decoded"][None])]


def test_features_of_every_discriminator_equal_those_of_acids_rave(features, figures):
    for real, fake, needed in zip(*features, figures["discriminator_features"], strict=True):
        for r, f, figure in zip(real, fake, needed, strict=True):
            both = torch.cat([r, f])
            assert list(both.shape) == figure["shape"]
            assert float(both.mean()) == pytest.approx(figure["mean"], rel=1e-3, abs=1e-5)
            assert float(both.std()) == pytest.approx(figure["std"], rel=1e-3)


def test_hinge_losses_equal_those_of_acids_rave(features, figures):
    found = [float(discriminator_hinge_loss(r[-1], f[-1])) for r, f in zip(*features, strict=True)]
    assert found == pytest.approx(figures["hinge_discriminator"], rel=1e-5)
    found = [-float(f[-1].mean()) for f in features[1]]
    assert found == pytest.approx(figures["hinge_generator"], rel=1e-4)


def test_feature_differences_equal_those_of_acids_rave(features, figures):
    found = [
        np.mean([float((x - y).abs().mean()) for x, y in zip(r[1:], f[1:], strict=True)])
        for r, f in zip(*features, strict=True)
    ]
    assert found == pytest.approx(figures["feature_difference"], rel=1e-5)


def test_feature_matching_is_the_difference_relative_to_the_real_features(features):
    real, fake = features
    distance = feature_matching(real, fake, num_skipped=1)
    relative = [
        np.mean([float((x - y).abs().mean() / x.abs().mean()) for x, y in pairs])
        for pairs in (list(zip(r[1:], f[1:], strict=True)) for r, f in zip(*features, strict=True))
    ]
    assert float(distance) == pytest.approx(np.mean(relative), rel=1e-5)
    louder = [[[100 * x for x in f] for f in side] for side in features]
    assert float(feature_matching(*louder, num_skipped=1)) == pytest.approx(float(distance))
    assert float(feature_matching(real, real, num_skipped=1)) == 0


def test_feature_matching_that_is_not_relative_is_the_difference(features, figures):
    distance = feature_matching(*features, num_skipped=1, is_relative=False)
    assert float(distance) == pytest.approx(np.mean(figures["feature_difference"]), rel=1e-5)


def test_a_silent_target_gives_a_finite_distance_and_gradient(training):
    silence = torch.zeros(1, 1, 8192)
    decoded = functional.pad(torch.full((1, 1, 4096), 0.1), (0, 4096)).requires_grad_()
    training.audio_distance(silence, decoded).backward()
    assert torch.isfinite(decoded.grad).all()
