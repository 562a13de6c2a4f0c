"""The settings of acids-rave are read as data, and what cannot be opened is refused by name."""

import pytest
import torch
from upstream_runs import CONFIG, write_upstream_run

from rave.codec import load_codec
from rave.runs.gin_text import Reference, read_bindings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("encoder = @blocks.Var", "encoder = @blocks.WassersteinEncoder #", "blocks.Wasserstein"),
        ("@variational/blocks.EncoderV2", "@variational/blocks.Other", "blocks.Other,"),
        ("decoder = @blocks.GeneratorV2", "decoder = @blocks.Other", "blocks.Other,"),
        ("pqmf = @pqmf.CachedPQMF", "pqmf = @pqmf.PQMF", "pqmf.PQMF,"),
        ("noise_module = None", "noise_module = @blocks.NoiseGenerator", "blocks.NoiseGenerator,"),
        ("V2.adain = None", "V2.adain = @blocks.Other", "blocks.Other,"),
        ("recurrent_layer = None", "recurrent_layer = @blocks.GRU", "blocks.GRU,"),
        ("V2.keep_dim = False", "V2.keep_dim = True", "blocks.EncoderV2.keep_dim = True"),
        ("V2.n_out = 2", "V2.n_out = 1", "blocks.EncoderV2.n_out = 1"),
        ("V2.n_out = 2", "V2.n_out = 2\nblocks.GeneratorV2.activation = @blocks.Elu", "Elu"),
        ("V2.n_out = 2", "V2.n_out = 2\nblocks.EncoderV2.groups = 4", "EncoderV2.groups = 4"),
        ("amplitude_modulation = True", "amplitude_modulation = False", "amplitude_modulation = F"),
        ("mode = 'weight_norm'", "mode = 'identity'", "blocks.normalization.mode = 'identity'"),
        ("mode = 'centered'", "mode = 'anticausal'", "get_padding.mode = 'anticausal'"),
        ("cc.Conv1d.bias = False", "cc.Conv1d.bias = True", "cc.Conv1d.bias = True"),
        ("input_mode = 'pqmf'", "input_mode = 'mel'", "model.RAVE.spectrogram = None"),
        ("output_mode = 'pqmf'", "output_mode = 'raw'", "GeneratorV2.data_size = 16"),
        ("enable_pqmf_encode = None", "enable_pqmf_encode = False", "RAVE.input_mode = 'raw'"),
        ("is_mel_input = None", "is_mel_input = True", "RAVE.spectrogram = None"),
        ("spectrogram = None", "spectrogram = @transforms.MelSpectrogram()", "MelSpectrogram"),
        ("NOISE_AUGMENTATION = 0", "NOISE_AUGMENTATION = 128", "noise_augmentation = 128"),
        ("EncoderV2.latent_size = %L", "EncoderV2.latent_size = 8 #", "EncoderV2.latent_size = 8"),
        ("size.latent_size = %L", "size.latent_size = 8 #", "GeneratorV2.latent_size = 8"),
        ("GeneratorV2.ratios = %R", "GeneratorV2.ratios = [4, 2, 2, 2] #", "V2.ratios = [4, 2, 2"),
        ("N_BAND = 16", "N_BAND = 1", "n_band = 1,"),
        ("RATIOS = [4, 4, 4, 2]", "RATIOS = [4, 4, 3, 2]", r"ratios = [4, 4, 3, 2]"),
        ("RATIOS = [4, 4, 4, 2]", "RATIOS = [2] * 4", "Cannot read"),
        ("[1, 3, 9], [1, 3]]", "[1, 3]]", "EncoderV2.dilations ="),
        ("CAPACITY = 4", "CAPACITY = '4'", "EncoderV2.capacity = '4'"),
        ("model.RAVE.balancer", "model.RAVE.stereo", "model.RAVE.stereo = None"),
    ],
)
def test_what_our_layers_cannot_compute_is_refused_by_name(tmp_path, old, new, what):
    assert old in CONFIG
    config = CONFIG.replace(old, new)
    run = write_upstream_run(tmp_path / "run", config)
    with pytest.raises(ValueError) as error:
        load_codec(run, CPU)
    message = str(error.value)
    assert what in message
    assert message.startswith("Cannot read") or message.endswith("this version cannot open.")


def test_a_config_that_lacks_a_size_is_refused(tmp_path):
    config = CONFIG.replace("blocks.GeneratorV2.capacity = %CAPACITY\n", "")
    run = write_upstream_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match=r"does not set blocks\.GeneratorV2\.capacity"):
        load_codec(run, CPU)


def test_one_list_of_dilations_stands_for_all_ratios_and_superfluous_lists_are_left_out(tmp_path):
    """The decoder pairs lists and ratios from the end; extra ones do not count there either."""
    one = CONFIG.replace("[[1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3]]", "[1, 3]")
    with pytest.raises(ValueError, match="does not fit its config"):  # other layers
        load_codec(write_upstream_run(tmp_path / "one", one), CPU)
    more = CONFIG.replace(
        "EncoderV2.dilations = %DILATIONS",
        "EncoderV2.dilations = [[1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3], [5]]",
    ).replace(
        "GeneratorV2.dilations = %DILATIONS",
        "GeneratorV2.dilations = [[5], [1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3]]",
    )
    assert load_codec(write_upstream_run(tmp_path / "more", more), CPU).format.hop_samples == 2048


def test_a_config_is_read_without_importing_what_it_names(tmp_path, monkeypatch):
    harm = tmp_path / "harm"
    (tmp_path / "foreign.py").write_text(f"import os\nos.mkdir({str(harm)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = "import foreign\nfrom foreign import harm\n" + CONFIG
    config += "\nforeign.harm.path = @foreign.harm()\n"
    assert load_codec(write_upstream_run(tmp_path / "run", config), CPU).format.latent_size == 16
    assert not harm.exists()


def test_bindings_are_data(tmp_path):
    path = tmp_path / "a.gin"
    path.write_text(
        "import nothing_of_this_name\n"
        "B = [%A, {'x': %A}]\nA = (1, None)\n"
        "s/m.f.x = @s/m.g()\nm.f:\n  y = @m.g\n  z = %B\n"
    )
    assert read_bindings(path) == {
        "A": (1, None),
        "B": [(1, None), {"x": (1, None)}],
        "s/m.f.x": Reference("s/m.g", True),
        "m.f.y": Reference("m.g", False),
        "m.f.z": [(1, None), {"x": (1, None)}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include 'configs/v2.gin'", r"it includes 'configs/v2\.gin'"),
        ("a.b = %C", "%C is not defined"),
        ("A = [%B]\nB = %A", "%A is defined in terms of itself"),
        ("a.b = print('x')", "Cannot read"),
        ("a.b = __import__('os').getcwd()", "Cannot read"),
        ("a.b = " + 5000 * "[", "Cannot read"),
        ("a.b = '", "Cannot read"),
    ],
)
def test_a_config_that_is_no_plain_data_is_refused(tmp_path, text, message):
    path = tmp_path / "a.gin"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        read_bindings(path)


def test_a_config_of_bytes_is_refused(tmp_path):
    path = tmp_path / "a.gin"
    path.write_bytes(b"\xff\xfe\x00a = 1")
    with pytest.raises(ValueError, match="Cannot read"):
        read_bindings(path)
