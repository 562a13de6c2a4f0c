"""Runs of ours as run folders of acids-rave."""

import json
import shutil
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import torch
from rave_models import SHORT, write_run
from upstream_runs import CHECKPOINT, GOLDEN, golden_weights, write_upstream_run, write_whole_run

from rave.codec import load_codec
from rave.export import acids_rave as export
from rave.export.acids_rave import export_run
from rave.files import atomic as files
from rave.main_cli import main
from rave.noise import DecoderNoise
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.runs.gin_text import read_bindings

CPU = torch.device("cpu")
CAUSAL = tuple(f"{c}.is_causal=True" for c in ("pqmf.PQMF", "v2.EncoderV2", "v2.DecoderV2"))
KINDS = {
    "v2": (),
    "short": SHORT,
    "stereo": (*SHORT, "NUM_CHANNELS=2"),
    "causal": (*SHORT, *CAUSAL),
    "8 bands": (*SHORT, "NUM_BANDS=8", "pqmf.PQMF.attenuation_db=80"),
    "another decoder": (
        *("RATIOS=[4, 4]", "DILATIONS=[[1, 3], [1]]", "v2.DecoderV2.ratios=[2, 4, 2]"),
        *("v2.DecoderV2.capacity=3", "v2.DecoderV2.dilations=[[9], [3, 1], [1]]"),
    ),
    "48 kHz": (*SHORT, "SAMPLE_RATE_HZ=48000", "KERNEL_SIZE=5"),
}
FAMILY = (
    *("v1", "v1+causal", "onnx", "v3", "v2+noise", "v2+noise+snake+causal", "raspberry", "hybrid"),
    *("discrete", "wasserstein", "spherical", "v2_nopqmf"),
)
KINDS |= {name: () for name in FAMILY}
AS_THERE = ("noise.NoiseGenerator.overlaps=False", "noise.NoiseGenerator.is_causal=True")
NAMES = json.loads((GOLDEN / "acids_rave_names.json").read_text())
KINDS["v2_small"], FAMILY = AS_THERE, (*FAMILY, "v2_small")


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """The codecs of a run and of its export."""
    folder = tmp_path_factory.mktemp("pair")
    recipe = request.param if request.param in FAMILY else "v2"
    run = write_run(folder / "run", recipe, *KINDS[request.param])
    export_run(run, folder / "out")
    return [load_codec(path, CPU) for path in (run, folder / "out")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The export of a run of the reference data's sizes, with its discriminators."""
    folder = tmp_path_factory.mktemp("whole")
    run = write_whole_run(folder / "run", "CAPACITY=4", "LATENT_SIZE=16", whole_v2=True)
    assert export_run(run, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def of_kind(tmp_path_factory):
    """A function that exports a run of a kind of `NAMES` once, and returns what it has."""
    folder = tmp_path_factory.mktemp("kinds")

    @cache
    def call(kind):
        recipe = kind.replace("v2+wasserstein", "wasserstein").replace("v2+spherical", "spherical")
        settings = ["CAPACITY=4", *(AS_THERE if kind == "v2_small" else ())]
        settings += [] if recipe in ("wasserstein", "spherical") else ["LATENT_SIZE=8"]
        run = write_whole_run(folder / kind / "run", *settings, recipe=recipe, whole_v2=True)
        assert export_run(run, folder / kind / "out")
        content = read_checkpoint(folder / kind / "out" / CHECKPOINT)
        shutil.rmtree(folder / kind)
        return content

    return call


def noise(shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def test_an_export_opened_again_equals_its_run_bit_for_bit(pair):
    ours, theirs = pair
    size = ours.format.latent_size
    audio = noise((ours.format.num_channels, 5 * ours.format.hop_samples))
    for found, needed in zip(theirs.encode(audio), ours.encode(audio), strict=True):
        assert np.array_equal(found, needed)
    latents = noise((size, 9), 1)
    decoded = [c.decode(latents, DecoderNoise(c.format, 0)) for c in (ours, theirs)]
    assert np.array_equal(*decoded)
    assert np.abs(decoded[0]).max() > 0


def test_an_export_differs_from_its_run_in_nothing_but_the_fingerprint(pair):
    """It is that of the weights by acids-rave's names, which acids-rave computes too."""
    ours, theirs = (vars(codec.format) for codec in pair)
    assert {name for name in ours if ours[name] != theirs[name]} == {"fingerprint"}


def test_an_export_has_the_weights_of_a_checkpoint_of_acids_rave(whole):
    """By name, shape and type, those that make its strict loading succeed."""
    found = read_checkpoint(whole / CHECKPOINT)["state_dict"]
    needed = golden_weights()
    added = {n for n in found if ".multiscale_stft.stfts." in n} | {"pqmf.h", "pqmf.hk"}
    assert set(found) - added == set(needed)
    assert len(added) == 12
    assert len(found) == 243
    for name, value in needed.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
    assert found["pqmf.h"].shape == (377,)
    assert found["pqmf.hk"].shape == (16, 512)
    bank = found["pqmf.forward_conv.weight"]
    assert torch.equal(found["pqmf.hk"], bank[:, 0, :-1])
    assert found["audio_distance.multiscale_stft.stfts.1.window"].shape == (1024,)


@pytest.mark.parametrize("kind", NAMES)
def test_every_model_has_the_weights_of_a_checkpoint_of_acids_rave(of_kind, kind):
    """None is missing and none is left over: its strict loading fails on either."""
    weights = of_kind(kind)["state_dict"]
    lines = [f"{n} {list(v.shape)} {str(v.dtype)[len('torch.') :]}" for n, v in weights.items()]
    assert sha256("\n".join(sorted(lines)).encode()).hexdigest() == NAMES[kind]


def test_the_config_of_an_export_says_what_acids_rave_would(whole, tmp_path):
    found = read_bindings(whole / "config.gin")
    reference = write_upstream_run(tmp_path / "reference") / "config.gin"
    unset = (None, 1.0, 1, "pqmf", "centered", "weight_norm", False)  # defaults, written out there
    for name, value in read_bindings(reference).items():
        name = name.replace("model.RAVE", "rave.RAVE").replace("convs.get", "cc.get")
        assert found.get(name, value) == value, name
        assert name in found or value in unset or "Conv2d" in name or "normalization" in name, name
    assert "rave.RAVE.n_channels" not in found


def test_the_number_of_channels_is_told_where_it_is_not_1(tmp_path):
    """Versions before 2.3 do not know the argument."""
    export_run(write_run(tmp_path / "run", "v2", *KINDS["stereo"]), tmp_path / "out")
    assert read_bindings(tmp_path / "out" / "config.gin")["rave.RAVE.n_channels"] == 2


def test_the_phase_of_training_goes_along(tmp_path):
    """As the steps of acids-rave's callback, which sets the mark of phase 2 at the first batch."""
    for step in (99, 100):
        run = write_whole_run(tmp_path / f"{step}", "PHASE_1_STEPS=100", step=step)
        export_run(run, tmp_path / f"out {step}")
        content = read_checkpoint(tmp_path / f"out {step}" / CHECKPOINT)
        assert content["callbacks"]["WarmupCallback"] == {"training_steps": step}
        assert content["global_step"] == step
        assert int(content["state_dict"]["encoder.warmed_up"]) == 0
    said = read_bindings(tmp_path / "out 100" / "config.gin")
    assert said["PHASE_1_DURATION"] == 100


@pytest.mark.parametrize(
    ("recipe", "needed"),
    [
        ("v1", {"discriminator.layers.2.net.8.bias": (1,)}),
        (
            "v2+spectral_discriminator",
            {
                "discriminator.discriminators.0.layers.0.net.0.weight_v": (4, 1, 15),
                "discriminator.discriminators.1.specs.0.window": (4096,),
                "discriminator.discriminators.1.nets.4.net.5.weight_g": (1, 1, 1, 1),
            },
        ),
        (
            "v3",
            {
                "discriminator.discriminators.4.convs.0.0.weight_v": (32, 1, 5, 1),
                "discriminator.discriminators.7.stft.window": (512,),
                "discriminator.discriminators.7.band_convs.0.0.0.weight_v": (32, 2, 3, 9),
            },
        ),
    ],
)
def test_discriminators_of_every_kind_go_along(of_kind, recipe, needed):
    """By acids-rave's names and shapes, with the windows that it keeps; none is left over."""
    content = of_kind(recipe)
    found = {n: v for n, v in content["state_dict"].items() if n.startswith("discriminator.")}
    assert {name: tuple(found[name].shape) for name in needed} == needed
    assert not [name for name in found if "parametrizations" in name]
    num_weights = len([name for name in found if "window" not in name])
    assert len(content["optimizer_states"][1]["param_groups"][0]["params"]) == num_weights


def test_an_export_is_continued_at_its_step(tmp_path):
    """With the learning rate that acids-rave has there, and as many weights as it trains."""
    run = write_whole_run(tmp_path / "run", "PHASE_1_STEPS=100", step=50)
    export_run(run, tmp_path / "out")
    content = read_checkpoint(tmp_path / "out" / CHECKPOINT)
    first = content["optimizer_states"][0]["param_groups"][0]
    trained = [
        name
        for name in content["state_dict"]
        if name.startswith(("encoder.encoder.", "decoder.")) and "target_size" not in name
    ]
    assert first["params"] == [*range(len(trained))]
    assert first["lr"] == pytest.approx(5.5e-4)  # from 1e-3 to 1e-4 along phase 1
    assert content["lr_schedulers"][0]["last_epoch"] == 50


def test_learnt_codebooks_go_along_as_such(tmp_path):
    run = write_run(tmp_path / "run", "discrete")
    content = read_checkpoint(last_checkpoint(run))
    content["state_dict"]["model.bottleneck.is_enabled"].fill_(1)
    torch.save(content, last_checkpoint(run))
    export_run(run, tmp_path / "out")
    found = read_checkpoint(tmp_path / "out" / CHECKPOINT)["state_dict"]
    assert int(found["encoder.enabled"]) == 1
    assert found["encoder.rvq.layers.15._codebook.inited"].tolist() == [1.0]


def test_discriminators_that_acids_rave_does_not_have_stay_behind(tmp_path):
    setting = "training.RaveTraining.discriminator=@discriminator.MultiScaleDiscriminator()"
    run = write_whole_run(tmp_path / "run", setting)
    assert not export_run(run, tmp_path / "out")
    content = read_checkpoint(tmp_path / "out" / CHECKPOINT)
    assert not [name for name in content["state_dict"] if name.startswith("discriminator.")]
    assert "optimizer_states" not in content


# Refusals


def test_models_that_acids_rave_does_not_have_are_refused_by_name(tmp_path):
    run = write_run(tmp_path / "noisy", "v2_small")
    with pytest.raises(ValueError, match=r"uses NoiseGenerator .*Export it as TorchScript"):
        export_run(run, tmp_path / "out")
    run = write_run(tmp_path / "half", "v2", *SHORT, CAUSAL[1])
    with pytest.raises(ValueError, match=r"partly causal .*EncoderV2 True"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_of_acids_rave_is_not_exported_for_acids_rave(tmp_path):
    run = write_upstream_run(tmp_path / "run")
    with pytest.raises(ValueError, match="is already a run of acids-rave"):
        export_run(run, tmp_path / "out")


def test_an_export_never_replaces_anything(tmp_path):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    (tmp_path / "file").touch()
    for out in (run, tmp_path / "file"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            export_run(run, out)
    (tmp_path / "empty").mkdir()
    export_run(run, tmp_path / "empty")
    assert load_codec(tmp_path / "empty", CPU).format.latent_size == 4


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    run = write_run(tmp_path / "run", "v2", *SHORT)
    monkeypatch.setattr(export, "config_text", fail)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_has_the_permissions_of_a_new_one(tmp_path):
    (tmp_path / "plain").mkdir()
    with files.atomic_folder(tmp_path / "sub" / "whole") as folder:
        (folder / "a").touch()
        assert not (tmp_path / "sub" / "whole").exists()
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "sub/whole")]
    assert modes[0] == modes[1]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["whole"]


# Command


def test_the_command_writes_a_run_folder_and_compares(tmp_path, capsys):
    run, out = write_whole_run(tmp_path / "run"), tmp_path / "out"
    assert main(["export", str(run), str(out), "--format", "acids-rave", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["largest_difference"] == 0
    assert figures["fingerprint"] == load_codec(out, CPU).format.fingerprint
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == [
        "config.gin",
        str(CHECKPOINT),
    ]


def test_the_command_says_what_an_export_is_and_what_stayed_behind(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "acids-rave"]) == 0
    told = capsys.readouterr().out
    assert "equals the run to 0.0e+00" in told
    assert "It counts as another codec: encode with it what it is to decode." in told
    assert "The discriminators were not exported." in told


def test_name_and_format_of_an_export_must_agree(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "add --format acids-rave" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "a.ts"), "--format", "acids-rave"]) == 2
    assert "give a name that does not end in .ts" in capsys.readouterr().err
