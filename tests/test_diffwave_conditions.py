"""Several conditions: each with its null, dropout and guidance; labels; gain; older runs."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from diffwave_data import HOP, RATE_HZ, autoregression, settings, write_latent_folder

from diffwave import inference, preprocess, train
from diffwave.clips import split_clips
from diffwave.conditioner import (
    Conditioner,
    ControlConditioner,
    LabelConditioner,
    SpectrogramConditioner,
)
from diffwave.conditions.inputs import parse_controls, parse_guidance
from diffwave.dataset import ClipReader, FixedSegments, conditions_of
from diffwave.diagnosis.conditioner import conditioner_gain
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.objective import Objective
from diffwave.run import open_run
from diffwave.schedule import named_schedule
from diffwave.settings import TrainingSettings
from diffwave.standardizer import Standardizer
from diffwave.training import DiffusionSystem, dropped_conditions
from diffwave.upstream.run import checkpoint_from_model
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader
from rave.runs.checkpoint import BEST, CHECKPOINTS, read_checkpoint

CHANNELS = 4
FRAMES = 8


def make_conditioners() -> dict[str, Conditioner]:
    return {
        "loudness": ControlConditioner(1, CHANNELS),
        "chroma": ControlConditioner(12, CHANNELS),
        "label": LabelConditioner(["piano", "strings"], CHANNELS),
    }


def make_inputs(batch_size: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "loudness": torch.randn(batch_size, 1, FRAMES, generator=generator),
        "chroma": torch.rand(batch_size, 12, FRAMES, generator=generator),
        "label": torch.arange(batch_size) % 2,
    }


def make_model(conditioning: str = "concatenation") -> LatentDiffusion:
    torch.manual_seed(0)
    network = DiffWave(3, 2, 8, 16, condition_channels=CHANNELS, conditioning=conditioning)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    conditioners = make_conditioners()
    for conditioner in conditioners.values():
        torch.nn.init.normal_(conditioner.null_condition)
    model = LatentDiffusion(
        Standardizer(4, 3), network, named_schedule("cosine"), "v", conditioners=conditioners
    )
    return model.eval()


def test_conditions_add_up_and_a_missing_one_is_its_null() -> None:
    model, inputs = make_model(), make_inputs(2)
    known = model.named_conditioners()
    expected = known["chroma"](inputs["chroma"]) + known["label"](inputs["label"])
    expected = expected + known["loudness"].absent(2, FRAMES)
    partial = {name: inputs[name] for name in ("chroma", "label")}
    found = model.condition(partial, None, 2, FRAMES)
    assert found is not None
    torch.testing.assert_close(found, expected)
    nothing = model.condition({}, None, 2, FRAMES)
    absent = {name: torch.tensor([True, True]) for name in inputs}
    dropped = model.condition(inputs, absent, 2, FRAMES)
    torch.testing.assert_close(nothing, dropped)


def test_an_item_loses_one_condition_and_keeps_the_others() -> None:
    model, inputs = make_model(), make_inputs(2)
    absent = {"chroma": torch.tensor([True, False])}
    found = model.condition(inputs, absent, 2, FRAMES)
    whole = model.condition(inputs, None, 2, FRAMES)
    others = {name: value for name, value in inputs.items() if name != "chroma"}
    without = model.condition(others, None, 2, FRAMES)
    assert found is not None and whole is not None and without is not None
    torch.testing.assert_close(found, torch.cat([without[:1], whole[1:]]))


def test_training_drops_all_conditions_or_some(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    values = {"seed": 0, "condition_dropout": 0.3, "loss": "mse", "learning_rate": 1e-3}
    system = object.__new__(DiffusionSystem)
    torch.nn.Module.__init__(system)
    system.model, system.settings = model, TrainingSettings(**(ANY_SETTINGS | values))
    system.objective = system.settings.objective(model.prediction)
    system.log = lambda *_, **__: None
    seen: list[dict[str, torch.Tensor]] = []
    condition = model.condition

    def watch(inputs: object, absent: dict[str, torch.Tensor], *sizes: int) -> object:
        seen.append(absent)
        return condition(inputs, absent, *sizes)

    monkeypatch.setattr(model, "condition", watch)
    size = 4000
    batch = {"raw": torch.randn(size, 4, FRAMES), "mask": torch.ones(size, FRAMES)}
    monkeypatch.setattr(DiffusionSystem, "global_step", 0)
    with torch.no_grad():
        system.training_step(batch | make_inputs(size), 0)
    (absent,) = seen
    drops = torch.stack([absent[name].float() for name in ("chroma", "label", "loudness")])
    # All at once in 0.3 of the items, and in another 0.3 each by the toss of a coin.
    for count in (1, 2, 3):
        for some in combinations(drops, count):
            together = float(torch.stack(some).prod(dim=0).mean())
            assert together == pytest.approx(0.3 + 0.3 * 0.5**count, abs=0.03)


def test_one_condition_is_dropped_as_often_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    (drop,) = dropped_conditions(["chroma"], 4000, 0.3, generator).values()
    assert float(drop.float().mean()) == pytest.approx(0.3, abs=0.03)


ANY_SETTINGS = {
    "seed": 0, "max_steps": 1, "batch_size": 1, "segment_frames": FRAMES, "fidelity": 1.0,
    "held_out_fraction": 0.1, "held_out_segments": 1, "validate_every_steps": 1,
    "log_every_steps": 1, "learning_rate": 1e-3, "warmup_steps": 1, "weight_decay": 0.0,
    "gradient_clip_norm": 1.0, "ema_decay": 0.9, "condition_dropout": 0.1, "loss": "mse",
    "weighting": "none", "precision": "32-true",
}  # fmt: skip


def test_guidance_exaggerates_each_condition_by_its_own_scale() -> None:
    model, inputs = make_model(), make_inputs(2)
    noisy, timestep = torch.randn(2, 3, FRAMES), torch.tensor([300, 600])

    def without(name: str) -> torch.Tensor:
        others = {other: value for other, value in inputs.items() if other != name}
        return model.denoise(noisy, timestep, others)

    full = model.denoise(noisy, timestep, inputs)
    guided = model.denoise(noisy, timestep, inputs, {"chroma": 3.0, "loudness": 0.5, "label": 1.0})
    expected = full + 2.0 * (full - without("chroma")) - 0.5 * (full - without("loudness"))
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.denoise(noisy, timestep, inputs, {"chroma": 0.0}), without("chroma")
    )


def test_unknown_conditions_are_refused_by_name() -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"with chroma, label, loudness, so it cannot .* onsets"):
        model.condition({"onsets": torch.zeros(1, 1, FRAMES)}, None, 1, FRAMES)
    with pytest.raises(ValueError, match=r"no label 'drums'. Choose one of: piano, strings"):
        LabelConditioner(["piano", "strings"], 4).index("drums")
    with pytest.raises(ValueError, match="has 2 channels; 12 are needed"):
        model.named_conditioners()["chroma"](torch.zeros(1, 2, FRAMES))


def test_an_unlabelled_item_gets_the_null_label() -> None:
    labels = LabelConditioner(["piano", "strings"], CHANNELS)
    torch.nn.init.normal_(labels.null_condition)
    found = labels(torch.tensor([1, -1, 0]), torch.tensor([False, False, True]))
    torch.testing.assert_close(found[1:], labels.absent(2, 1))
    torch.testing.assert_close(found[0, :, 0], labels.embedding.weight[1])


def test_new_film_is_concatenation_until_it_learns_to_scale() -> None:
    plain, film = make_model(), make_model("film")
    weights = {n: w for n, w in film.network.state_dict().items() if ".scale." not in n}
    plain.network.load_state_dict(weights)
    noisy, step, condition = torch.randn(2, 3, 9), torch.tensor([5.0, 700.0]), torch.randn(2, 4, 9)
    torch.testing.assert_close(
        film.network(noisy, step, condition), plain.network(noisy, step, condition)
    )
    film.network(noisy, step, condition).square().sum().backward()
    gradient = film.network.blocks[0].scale.weight.grad
    assert gradient is not None and gradient.abs().max() > 0
    with pytest.raises(ValueError, match=r"no conditioning 'add'. Choose one of: concatenation"):
        make_model("add")


@pytest.mark.parametrize("where", ["conditioner.", "conditioners.spectrogram."])
def test_weights_of_runs_with_the_one_conditioner_still_open(where: str) -> None:
    def build(**given: object) -> LatentDiffusion:
        torch.manual_seed(len(given))
        network = DiffWave(3, 2, 8, 16, condition_channels=CHANNELS)
        schedule = named_schedule("cosine")
        return LatentDiffusion(Standardizer(4, 3), network, schedule, "v", **given)

    first = build(conditioners={"spectrogram": SpectrogramConditioner(5, CHANNELS, 8, 4)})
    second = build(conditioner=SpectrogramConditioner(5, CHANNELS, 8, 4))
    torch.nn.init.normal_(second.conditioner.null_condition)
    state = {
        name.replace("conditioners.spectrogram.", where): value
        for name, value in first.state_dict().items()
    }
    second.load_state_dict(state)
    for name, value in first.state_dict().items():
        assert torch.equal(torch.as_tensor(value), second.state_dict()[name])


def test_lmnt_diffwave_refuses_what_it_cannot_do(latents: Path) -> None:
    header = LatentHeader.read(latents)
    with pytest.raises(ValueError, match="follows chroma, label, loudness, which lmnt diffwave"):
        checkpoint_from_model(make_model(), header, 1)
    network = DiffWave(3, 2, 8, 16, condition_channels=CHANNELS, conditioning="film")
    film = LatentDiffusion(
        Standardizer(4, 3), network, named_schedule("cosine"), "v",
        SpectrogramConditioner(5, CHANNELS, HOP, 256),
    )  # fmt: skip
    with pytest.raises(ValueError, match="CONDITIONING is 'film', which lmnt diffwave does not"):
        checkpoint_from_model(film, header, 1)
    flow = LatentDiffusion(
        Standardizer(4, 3), DiffWave(3, 2, 8, 16), named_schedule("flow"), "flow"
    )  # fmt: skip
    with pytest.raises(ValueError, match="predicts 'flow', which lmnt diffwave does not"):
        checkpoint_from_model(flow, header, 1)


LENGTHS = {"piano/a.npy": 60, "piano/b.npy": 60, "strings/c.npy": 60, "strings/d.npy": 60}


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    arrays = {
        path: autoregression(4, length, 0.0, seed)
        for seed, (path, length) in enumerate(LENGTHS.items())
    }
    write_latent_folder(tmp_path / "latents", arrays)
    return tmp_path / "latents"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for seed, (path, length) in enumerate(LENGTHS.items()):
        noise = np.random.default_rng(seed).standard_normal(length * HOP) * 0.1
        file = (tmp_path / "audio" / path).with_suffix(".wav")
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, noise, RATE_HZ)
    return tmp_path / "audio"


def write_controls(latents: Path, audio: Path, out: Path, *names: str) -> Path:
    assert preprocess.main([str(latents), str(audio), str(out), "--controls", *names]) == 0
    return out


def test_gain_is_one_where_conditions_are_ignored_and_more_where_they_tell(
    latents: Path, audio: Path, tmp_path: Path
) -> None:
    controls = write_controls(latents, audio, tmp_path / "controls", "loudness")
    for path in LENGTHS:  # the loudness tells the first dimension of the latents
        np.save(controls / "loudness" / path, np.load(latents / path)[:1])
    header = LatentHeader.read(latents)
    reader = ClipReader.open(LatentDataset(latents), controls=controls)
    segments = FixedSegments(reader, split_clips(header.files, 0.5)[1], 20, 12)
    assert set(conditions_of(segments[0])) == {"loudness"}
    torch.manual_seed(0)
    network = DiffWave(4, 1, 8, 20, condition_channels=1)
    conditioners = {"loudness": ControlConditioner(1, 1)}
    model = LatentDiffusion(
        Standardizer(4, 4), network, named_schedule("cosine"), "x0", conditioners=conditioners
    )
    ignored = conditioner_gain(model, segments, Objective("x0"))
    assert ignored.gain == 1.0

    class Exact(torch.nn.Module):
        def forward(self, noisy: object, step: object, condition: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(condition, (0, 0, 0, 3))

    model.network = Exact()
    model.conditioners["loudness"].layers = torch.nn.Identity()
    told = conditioner_gain(model, segments, Objective("x0"))
    # Of four dimensions of variance 1, right: 3 are missed; shuffled: those and 2 of the first.
    assert told.loss == pytest.approx(0.75, rel=0.25)
    assert told.gain == pytest.approx(5 / 3, rel=0.25)
    with pytest.raises(ValueError, match="cannot follow chroma"):
        conditioner_gain(model, segments, Objective("x0"), ["chroma"])


def test_path_from_controls_and_labels_to_latents(
    latents: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controls, run = write_controls(latents, audio, tmp_path / "controls"), tmp_path / "run"
    options = [str(latents), "--out", str(run), "--config", "tiny", *settings(), "--json"]
    options += ["--controls", str(controls), "loudness", "chroma", "--labels"]
    capsys.readouterr()
    assert train.main([*options, "--set", "HELD_OUT_FRACTION=0.5"]) == 0
    gains = json.loads(capsys.readouterr().out)["conditioner_gain"]
    assert list(gains) == ["all", "chroma", "label", "loudness"]
    model = open_run(run).model
    assert model.conditioners["label"].names == ["piano", "strings"]
    loudness = np.load(controls / "loudness" / "piano" / "a.npy")
    assert model.conditioners["loudness"].mean.item() == pytest.approx(loudness.mean(), abs=0.5)
    weights = read_checkpoint(run / CHECKPOINTS / BEST)["state_dict"]
    assert torch.equal(
        weights["model.conditioners.loudness.mean"], model.conditioners.loudness.mean
    )

    few = ["--steps", "3", "--count", "1", "--json"]

    def generate(name: str, *more: str) -> np.ndarray:
        out = tmp_path / name
        assert inference.main([str(run), str(out), *few, *more]) == 0
        return np.load(out / "generated_000.npy")

    curve = str(controls / "loudness" / "piano" / "a.npy")
    chroma = str(controls / "chroma" / "piano" / "a.npy")
    from_audio = generate("1", "--from-audio", str(audio / "piano" / "a.wav"), "--guidance", "2")
    figures = json.loads(capsys.readouterr().out)
    assert figures["guidance"] == {"chroma": 2.0, "loudness": 2.0}
    assert figures["followed"] == ["chroma", "loudness"]
    assert from_audio.shape == (4, 60)
    both = ["--control", f"loudness={curve}", "--control", f"chroma={chroma}"]
    scales = ["--guidance", "chroma=2", "--guidance", "loudness=2"]
    np.testing.assert_array_equal(from_audio, generate("2", *both, *scales))
    one = generate("3", "--control", f"loudness={curve}")
    assert not np.allclose(one, from_audio)
    labelled = generate("4", "--control", f"loudness={curve}", "--label", "strings")
    assert not np.allclose(one, labelled)
    capsys.readouterr()
    for more, words in {
        ("--label", "drums"): "no label 'drums'. Choose one of: piano, strings",
        ("--control", f"onsets={curve}"): "with chroma, label, loudness, so it cannot follow onset",
        ("--control", f"chroma={curve}"): "chroma needs float32 (12, 60)",
        ("--control", "chroma"): "--control chroma is not NAME=F.npy",
        ("--spectrogram", curve): "cannot follow spectrogram",
        ("--label", "piano", "--guidance", "chroma=2"): "needs the condition chroma; given: label",
        ("--guidance", "2"): "--guidance needs a condition",
        ("--label", "piano", "--guidance", "x"): "--guidance x is neither a number nor",
        ("--control", f"loudness={curve}", "--seconds", "9"): "--seconds 9.0 is longer than the",
    }.items():
        assert inference.main([str(run), str(tmp_path / "no"), *few, *more]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_labels_need_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_latent_folder(
        tmp_path / "flat", {f"{n}.npy": autoregression(4, 40, 0.9, 0) for n in "abc"}
    )
    options = [str(tmp_path / "flat"), "--out", str(tmp_path / "run"), "--config", "tiny"]
    assert train.main([*options, "--labels"]) == 2
    assert "0 labelled folders (); --labels needs at least 2" in capsys.readouterr().err


def test_label_names_of_any_kind_come_back_from_the_run(tmp_path: Path) -> None:
    names = ["a 'quoted' \"name\" %x @y", "Streicher, weiß – " + "sehr " * 30]
    arrays = {f"{name}/{n}.npy": autoregression(4, 20, 0.9, n) for name in names for n in range(3)}
    write_latent_folder(tmp_path / "latents", arrays)
    options = [str(tmp_path / "latents"), "--out", str(tmp_path / "run"), "--config", "tiny"]
    assert train.main([*options, "--labels", *settings("MAX_STEPS=1")]) == 0
    assert open_run(tmp_path / "run").model.conditioners["label"].names == sorted(names)


def test_options_of_conditions_are_parsed() -> None:
    assert parse_controls(["loudness=a=b.npy"]) == {"loudness": Path("a=b.npy")}
    assert parse_guidance(["chroma=3", "2"], ["chroma", "label"]) == {"chroma": 3.0, "label": 2.0}
    assert parse_guidance(["2", "chroma=3"], ["chroma", "label"]) == {"chroma": 3.0, "label": 2.0}
