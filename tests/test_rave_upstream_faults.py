"""Faults of acids-rave that new runs do not have; docs/upstream-compatibility.md lists them all."""

import pytest
import torch
from rave_models import SMALL, build_model, small_model
from rave_runs import RATE_HZ, TINY
from upstream_runs import CONFIG, write_upstream_run

from rave import experiment
from rave.codec import load_run
from rave.training import RaveSystem


def system_of(recipe, *settings):
    """Return a training of very small sizes, outside a trainer."""
    torch.manual_seed(0)
    experiment.parse_recipe("rave", recipe, [f"SAMPLE_RATE_HZ={RATE_HZ}", *settings])
    system = RaveSystem(experiment.build_model(), experiment.build_training())
    system.log = system.log_dict = lambda *_, **__: None
    return system


def crops(num_samples=4096, num_channels=1):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, num_channels, num_samples, generator=generator)


def seeded():
    return torch.Generator().manual_seed(0)


def test_a_recipe_does_not_change_the_next():
    def weights(recipe):
        experiment.parse_recipe("rave", recipe)
        training = experiment.build_training()
        return (
            training.feature_matching_weight,
            training.adversarial_weight,
            training.num_skipped_features,
        )

    assert weights("v2") == (20, 1, 1)
    assert weights("v1") == (10, 1, 0)
    assert weights("v2") == (20, 1, 1)


def test_augmentations_do_not_change_the_number_of_channels():
    for order in ("gain+mute+compress", "compress+gain+mute"):
        experiment.parse_recipe("rave", f"v2+{order}", [*SMALL, "NUM_CHANNELS=2"])
        assert experiment.build_model().num_channels == 2
        assert experiment.build_training().augmentations.mute is not None


def test_codebooks_do_not_change_while_audio_is_encoded():
    """Nor do they begin: that is for the first step of a training."""
    for is_enabled in (0, 1):
        model = small_model("discrete", "NUM_CODES=8", "NUM_STAGES=2").eval()
        model.bottleneck.is_enabled.fill_(is_enabled)
        before = {k: v.clone() for k, v in model.bottleneck.state_dict().items()}
        model.encode(crops())
        after = model.bottleneck.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("recipe", ["hybrid", "v2_with_augs"])
@pytest.mark.parametrize("phase_1_steps", [0, 4])
def test_models_of_spectrograms_train_in_both_phases(recipe, phase_1_steps):
    """The target of the band distance is the audio's bands."""
    sizes = [*SMALL, "SCALES=[256, 128]", "CROP_SAMPLES=4096", f"PHASE_1_STEPS={phase_1_steps}"]
    system = system_of(recipe, *sizes)
    targets = []
    system.band_distance.register_forward_pre_hook(lambda _, given: targets.append(given[0]))
    loss = system._generator_loss(crops(), seeded())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.equal(targets[0], system.model.pqmf.analysis(crops()))
    assert all(p.grad is not None for p in system.model.decoder.parameters())


def test_a_step_of_the_discriminator_computes_no_gradient_of_the_model():
    system = system_of("v2", *TINY, "PHASE_1_STEPS=0")
    system.manual_backward = lambda loss: loss.backward()  # there is no trainer
    system._discriminator_backward(crops(), seeded())
    assert all(p.grad is None for p in system.model.parameters())
    assert any(p.grad is not None for p in system.discriminator.parameters())


@pytest.mark.parametrize("ratio", [1, 3])
def test_a_decoder_has_even_ratios_in_new_runs_and_in_old_ones(ratio, tmp_path):
    with pytest.raises(ValueError, match=f"Upsampling ratio {ratio} is odd"):
        build_model("v2", *SMALL, f"RATIOS=[{ratio}, 2]", "DILATIONS=[[1], [1]]")
    config = CONFIG.replace("RATIOS = [4, 4, 4, 2]", f"RATIOS = [4, 4, 4, {ratio}]")
    run = write_upstream_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match=rf"ratios = \[4, 4, 4, {ratio}\], which this version"):
        load_run(run)


def test_no_spectrogram_means_bands_and_in_old_runs_any_answer_means_a_spectrogram(tmp_path):
    assert small_model("v2").spectrogram is None
    assert small_model("v2_with_augs").spectrogram is not None
    for answer in (True, False):
        config = CONFIG.replace("is_mel_input = None", f"is_mel_input = {answer}")
        run = write_upstream_run(tmp_path / str(answer), config)
        with pytest.raises(ValueError, match=r"RAVE\.spectrogram = None"):
            load_run(run)


def test_in_stereo_the_model_sees_as_far_as_in_mono():
    models = [small_model("v2", f"NUM_CHANNELS={count}") for count in (1, 2)]
    for reach in ("encoder_reach_frames", "decoder_reach_frames"):
        assert len({getattr(model, reach)() for model in models}) == 1
