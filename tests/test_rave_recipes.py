"""Recipes and their options, and the parts that only they build."""

import json

import pytest
import torch
from rave_models import band_noise, build_model, small_model, write_run
from rave_runs import TINY, checkpoint, prepare

from rave import experiment
from rave.blocks.adain import AdaIN
from rave.blocks.noise import NoiseGenerator
from rave.blocks.snake import Snake
from rave.codec import load_run
from rave.main_cli import main
from rave.model import RAVE
from rave.runs.recipes import read_recipe

COMBINED = (
    "v1",
    "v1+causal",
    "onnx+causal",
    "v3",
    "v2+causal+noise",
    "v2_small+causal+snake+adain",
)
CAUSAL = ("v1+causal", "onnx+causal", "v3+causal", "v2+noise+causal", "v2_small+causal")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Options


@pytest.mark.parametrize("recipe", COMBINED)
def test_the_saved_config_rebuilds_the_model(tmp_path, recipe):
    model = small_model(recipe)
    config = experiment.resolved_config()
    experiment.save_run(tmp_path / "run", "rave", config, config)
    again = experiment.rebuild_model(tmp_path / "run", "rave", RAVE).eval()
    again.load_state_dict(model.state_dict())
    latents = normal(1, 4, 3)
    noise = None if model.decoder.noise is None else band_noise(model, 3)
    assert torch.equal(again.decode(latents, noise), model.decode(latents, noise))
    assert str(again) == str(model)


def test_the_order_of_options_does_not_matter():
    first = small_model("v2_small+causal+noise+snake")
    assert str(first) == str(small_model("v2_small+snake+noise+causal"))
    assert str(first) != str(small_model("v2_small"))


def test_v3_is_v2_with_its_options():
    assert str(small_model("v3")) == str(small_model("v2+adain+snake"))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("v2+reverb", r"no option 'reverb'. Choose from: adain, "),
        ("v4+causal", r"no recipe 'v4'"),
        ("v2+", r"no option ''"),
        ("v1+noise", r"Option 'noise' changes nothing in 'v1'; leave it out"),
        ("onnx+snake", r"Option 'snake' changes nothing in 'onnx'"),
        ("small+noise", r"Option 'noise' changes nothing in 'small'"),
        ("small+adain", r"Option 'adain' changes nothing in 'small'"),
        ("small+snake", r"Option 'snake' changes nothing in 'small'"),
        ("raspberry+adain", r"Option 'adain' changes nothing in 'raspberry'"),
    ],
)
def test_an_option_that_is_not_there_or_would_do_nothing_is_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        experiment.parse_recipe("rave", recipe)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("CONDITIONING=film", "film"),
        ("CONDITIONING='film'", "film"),
        ("PRECISION = 32-true", "32-true"),
        ("WEIGHTING=min-snr  # of SNR", None),
        ("SCHEDULE=linear-low-0.0085", "linear-low-0.0085"),
        ("network.DiffWave.conditioning=film", "film"),
        ("network.DiffWave.out_channels=many", "many"),
        ("network.DiffWave.out_channels=3", 3),
        ("DILATION_CYCLE=None", None),
        ("MAX_STEPS=many", None),
        ("MAX_STEPS=true", None),
        ("network.DiffWave.out_channels=true", None),
        ("CONDITIONING=two words", None),
        ("MAX_STEPS=5\nBATCH_SIZE=2", None),
        ("MAX_STEPS=", None),
    ],
)
def test_a_word_is_a_string_where_the_recipe_has_one(setting, value):
    if value is None and setting != "DILATION_CYCLE=None":
        with pytest.raises(ValueError, match=r"Cannot read recipe 'tiny' with --set"):
            read_recipe("diffwave", "tiny", [setting])
        return
    found = read_recipe("diffwave", "tiny", [setting]).settings
    assert found == {setting.partition("=")[0].strip(): value}


def test_a_recipe_says_what_it_states_and_settings_go_behind_it(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text("  include 'recipes/tiny.gin'  # ours\nSEED = 3\nSEED = %MAX_STEPS\n")
    recipe = read_recipe("diffwave", str(path), ["MAX_STEPS=7"])
    assert (recipe.value("MAX_STEPS"), recipe.value("SEED"), recipe.value("X")) == (600, 600, None)
    built = experiment.build(recipe.bind({"LATENT_SIZE": 1}), 0)
    assert (built.training.max_steps, built.training.seed) == (7, 7)
    assert "MAX_STEPS = 7\n" in built.config
    assert "MAX_STEPS" not in built.model_config


def test_a_build_does_not_depend_on_what_was_built_before():
    recipe = read_recipe("rave", "v2", ["CAPACITY=2", "LATENT_SIZE=4"])
    first = experiment.build(recipe, 0)
    experiment.training_of(read_recipe("rave", "v1", ["CAPACITY=2"]))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = experiment.build(recipe, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (again.model_config, again.config) == (first.model_config, first.config)
    for one, other in ((first.model, again.model), (first.training, again.training)):
        parts = [getattr(each, "discriminator", each) for each in (one, other)]
        weights = [part.state_dict() for part in parts]
        assert list(weights[0]) == list(weights[1])
        assert all(torch.equal(weights[1][name], w) for name, w in weights[0].items())
    assert experiment.training_of(recipe).max_steps == first.training.max_steps


def test_noise_of_bands_is_refused_where_the_decoder_gives_none():
    with pytest.raises(ValueError, match=r"has 16 output rows, the decoder 1"):
        small_model("v2_nopqmf+noise")


@pytest.mark.parametrize("recipe", CAUSAL)
def test_appended_audio_never_changes_earlier_frames(recipe):
    model = small_model(recipe)
    hop, audio = model.hop_samples, 0.1 * normal(1, 1, 12 * model.hop_samples)
    assert model.encoder_reach_frames()[1] == 0
    whole = model.encode(audio).mean
    for num_frames in (1, 5, 11):
        part = model.encode(audio[..., : num_frames * hop]).mean
        assert torch.allclose(part, whole[..., :num_frames], rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", CAUSAL)
def test_appended_latents_change_earlier_bands_only_by_the_transposed_convolutions(recipe):
    """They reach half a stride to the left of each frame: less than one frame in all."""
    model = small_model(recipe)
    latents, steps = normal(1, 4, 12), model.hop_samples // 16
    noise = None if model.decoder.noise is None else band_noise(model, 12)
    whole = model.decode_bands(latents, noise)
    for num_frames in (2, 7, 11):
        kept = (num_frames - 1) * steps
        given = None if noise is None else noise[..., : num_frames * steps]
        part = model.decode_bands(latents[..., :num_frames], given)
        assert torch.allclose(part[..., :kept], whole[..., :kept], rtol=0, atol=1e-6)


# Parts


def test_snake_is_periodic_around_the_identity():
    snake = Snake(2)
    snake.alpha.data = torch.tensor([[1.0], [2.0]])
    x = normal(1, 2, 50)
    found = snake(x) - x
    assert torch.allclose(found[:, 0], torch.sin(x[:, 0]).square(), atol=1e-6)
    assert torch.allclose(found[:, 1], torch.sin(2 * x[:, 1]).square() / 2, atol=1e-6)


def test_adaptation_gives_the_source_the_statistics_of_the_target():
    layer, source, target = AdaIN(3).eval(), 2 + 3 * normal(1, 3, 4000), normal(1, 3, 4000, seed=1)
    assert torch.equal(layer(source), source)
    layer.learn_y.fill_(1)
    assert torch.equal(layer(target), target)
    layer.learn_y.zero_()
    assert torch.equal(layer(source), source)  # the source's are not known yet
    layer.learn_x.fill_(1)
    found = layer(source)
    for moment in (torch.mean, torch.std):
        assert torch.allclose(moment(found, dim=-1), moment(target, dim=-1), atol=1e-3)
    layer.learn_x.zero_()
    assert torch.allclose(layer.fixed()(source), layer(source), atol=1e-5)
    assert torch.equal(layer.train()(source), source)
    layer.reset()
    assert torch.equal(layer.fixed()(source), source)
    assert torch.equal(layer.eval()(source), source)


def test_adaptation_learns_the_mean_of_its_blocks():
    layer, blocks = AdaIN(2).eval(), [normal(3, 2, 100, seed=i) + i for i in range(4)]
    layer.learn_x.fill_(1)
    for block in blocks:
        layer(block)
    means = torch.stack([block.mean(-1, keepdim=True) for block in blocks]).mean(0)
    assert torch.allclose(layer.mean_x[:3], means, atol=1e-5)
    assert float(layer.num_update_x) == 4
    assert torch.equal(layer.mean_x[3:], torch.zeros(61, 2, 1))


def test_noise_block_by_block_is_the_noise_times_equal_amplitudes():
    """A flat spectrum is a response of one step, which nothing cuts."""
    generator = NoiseGenerator(1, 4, 1, 1, [4, 4, 4], 5, kernel_size=3, overlaps=False)
    noise = 2 * torch.rand(1, 1, 640, generator=torch.Generator().manual_seed(0)) - 1
    raw = torch.logit(torch.tensor(0.25 / 2) ** (1 / 2.3)) + 5
    generator.net = Constant(raw, 5, 10)
    assert torch.allclose(generator(torch.zeros(1, 1, 640), noise), 0.25 * noise, atol=1e-5)


class Constant(torch.nn.Module):
    """Gives one value for all rows and blocks."""

    def __init__(self, value, num_rows, num_blocks):
        super().__init__()
        self.value = value.expand(1, num_rows, num_blocks)

    def forward(self, hidden):
        return self.value


def test_a_block_does_not_hear_the_noise_of_another():
    model = small_model("v2+noise")
    assert not model.decoder.noise.overlaps
    hidden, noise = normal(1, 2, 64), band_noise(model, 1)[..., :64]
    changed = noise.clone()
    changed[..., 24:32] = 0
    difference = (model.decoder.noise(hidden, noise) - model.decoder.noise(hidden, changed)).abs()
    assert difference[..., 24:32].max() > 0
    assert max(difference[..., :24].max(), difference[..., 32:].max()) < 1e-9


@pytest.mark.parametrize("recipe", ["v1", "v3", "v2+noise+snake", "v2_nopqmf", "hybrid", "small"])
def test_an_export_as_torchscript_equals_the_run(tmp_path, recipe, capsys):
    run = write_run(tmp_path / "run", recipe)
    assert main(["export", str(run), str(tmp_path / "a.ts"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-5


# Training


@pytest.mark.parametrize("recipe", ["v1", "v3+causal", "v2+noise"])
def test_recipes_train_through_both_phases_and_open_again(tmp_path, recipe):
    out = tmp_path / "run"
    settings = [s for s in TINY if "DILATIONS" not in s or recipe != "v1"]
    settings = ["RATIOS=[4, 2]" if "RATIOS" in s else s for s in settings]
    if recipe == "v1":
        settings.append("noise.NoiseGenerator.ratios=[2, 4]")
    if recipe.startswith("v3"):  # whose discriminators have a thousand channels whatever CAPACITY
        large = "spectral_discriminators.DescriptDiscriminator"
        settings += [f"{large}.periods=[2]", f"{large}.sizes=[512]"]
    sets = [part for setting in settings for part in ("--set", setting)]
    where = ["--data", str(prepare(tmp_path)), "--out", str(out), "--device", "cpu"]
    assert main(["train", recipe, *where, *sets]) == 0
    model = load_run(out)[0]
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all(), name
    if recipe == "v1":
        # 4 of 8 steps are of phase 2, in which the latents stay what they are.
        counts = [v for n, v in checkpoint(out)["state_dict"].items() if "num_batches" in n]
        assert [int(count) for count in counts] == [4, 4]


def test_a_recipe_file_is_taken_whatever_its_name(tmp_path):
    path = tmp_path / "a+b.gin"
    path.write_text("include 'recipes/v2.gin'\n")
    assert str(build_model(str(path), "CAPACITY=2")) == str(build_model("v2", "CAPACITY=2"))


def test_snake_is_in_the_noise_too_and_only_of_v2():
    for recipe in ("v2+noise+snake", "v2+snake+noise", "v2_small+snake"):
        layers = [type(layer) for layer in small_model(recipe).decoder.noise.net]
        assert layers.count(Snake) == 2
    plain = small_model("v2_small").decoder.noise.net
    assert not any(isinstance(layer, Snake) for layer in plain)


def test_recipes_bind_the_compression_that_acids_rave_binds():
    """From -40 dB to between -60 and -10 dB, on half of the crops."""
    for recipe in ("v2_nopqmf", "v2_with_augs"):
        experiment.parse_recipe("rave", recipe)
        compress = experiment.build_training().augmentations.compress
        found = (compress.probability, compress.threshold_db)
        assert (*found, compress.min_output_db, compress.max_output_db) == (0.5, -40, -60, -10)
