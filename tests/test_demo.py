"""`make demo` with models of a few steps, its commands called here instead of started."""

import contextlib
import io
import json
import math
import os
import re
import shlex
import shutil
from functools import partial

import demo
import demo_walk
import numpy as np
import pytest
import report
import report_models
import soundfile
from audio_files import sine, write
from browser import browser, open_page
from demo_walk import Stage, walk_stages
from released_models import release, train_diffusion

from diffwave import inference
from rave.audio.io import AudioStream
from rave.main_cli import main as rave
from rave.notes.scores import note_scores
from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber
from rave.parsing import EXIT_ERROR

CARD = """# Tones

## Data and licence

Tones by [nobody](https://example.org/tones), CC0.

## Limits

They are short.
"""
# As `python -m diffwave.evaluate` writes it.
DISTANCES = {"held_out": 5.0, "reconstruction": 7.0, "generated": 9.0, "gaussian": 43.0}
EVALUATION = {
    "rungs": [
        {
            "name": name,
            "title": name.title(),
            "frechet": distance,
            "frechet_std": 0.5,
            "spectral": 1.0,
            "onset": 0.25,
            "chroma": None,
            "loudness": 2.0,
        }
        for name, distance in DISTANCES.items()
    ],
    "position": {"value": 0.0556, "std": 0.01, "bar": 1 / 3},
    "diversity": {"ratio": 0.5},
    "copying": {"ratio": 1.0},
    "reading": ["Old words, which are not read."],
}
WIDTHS_PX = (390, 1200)


def call(command, folder):
    """Run a command of a demo in this process, as `run_command` does in another."""
    words = shlex.split(command)
    output, before = io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output):
            if words[0] == "rave":
                return rave(words[1:]), output.getvalue()
            assert words[:3] == ["python", "-m", "diffwave.inference"]
            return inference.main(words[3:]), output.getvalue()
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def walked(run, tmp_path_factory):
    """A demo's folder, walked with models of a few steps over recordings of a second."""
    folder = tmp_path_factory.mktemp("demo")
    models = release(run, train_diffusion(run, folder), folder / "models")
    (models / report_models.CARD).write_text(CARD)
    (models / report_models.EVALUATION).write_text(json.dumps(EVALUATION))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_walk, "run_command", call)
        patch.setattr(demo, "GENERATED_S", 1.0)
        options = ["--models", str(models), "--recordings", str(run.parent / "tones")]
        assert demo.main(["--out", str(folder / "demo out"), *options]) == 0
    return folder / "demo out"


@pytest.fixture(scope="module")
def opened(walked):
    """Return what opens the report in a page of one browser."""
    with browser() as chromium:
        yield partial(open_page, chromium, (walked / "report.html").as_uri())


def test_every_kind_of_new_music_is_there_as_long_as_it_should_be(walked):
    seconds = {
        name: [soundfile.info(p).duration for p in sorted((walked / name).glob("*.wav"))]
        for name in ("generated_audio", "varied_audio", "inpainted_audio", "following_audio")
    }
    assert {name: len(found) for name, found in seconds.items()} == {
        "generated_audio": 3,
        "varied_audio": 2,
        "inpainted_audio": 2,
        "following_audio": 2,
    }
    assert all(math.isclose(s, 1.0, abs_tol=0.01) for found in seconds.values() for s in found)
    assert len(list((walked / "blends").glob("*.wav"))) == 8
    names = [path.name for path in sorted((walked / "recordings").iterdir())]
    assert names == ["01-0.wav", "02-1.wav", "03-2.wav", "04-3.wav"]
    assert sorted(p.name for p in (walked / "reconstructions").glob("*.wav")) == names


def test_what_lies_outside_the_gap_is_left_as_it_was(walked):
    before = np.load(walked / "latents" / "01-0.npy")
    after = np.load(walked / "inpainted" / "generated_000.npy")
    low, high = (round(second * 22050 / 64) for second in (0.4, 0.7))
    assert np.array_equal(before[:, :low], after[:, :low])
    assert np.array_equal(before[:, high:], after[:, high:])
    assert not np.allclose(before[:, low:high], after[:, low:high])


def test_the_journal_tells_each_command_and_a_walk_that_failed_goes_on(tmp_path, monkeypatch):
    codes = iter([0, 2, 0, 0, 0])
    monkeypatch.setattr(demo_walk, "run_command", lambda command, folder: (next(codes), command))
    walk = [Stage(name, f"rave {name}") for name in ("a", "b", "c")]
    with pytest.raises(ValueError, match=r"'rave b' ended with exit code 2 .* continues"):
        walk_stages(walk, tmp_path, {"seed": 5})
    told = json.loads((tmp_path / "demo.json").read_text())
    assert [entry["command"] for entry in told["commands"]] == ["rave a", "rave b"]
    walk_stages(walk, tmp_path, {"seed": 5})
    told = json.loads((tmp_path / "demo.json").read_text())
    assert [entry["title"] for entry in told["commands"]] == ["a", "b", "c"]
    assert told["seed"] == 5


def test_a_model_that_is_not_there_is_told_before_anything_is_made(tmp_path, capsys):
    assert demo.main(["--models", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"demo.py: error: '{tmp_path / 'none' / 'codec'}' is not a model.")
    assert "make demo-train" in error
    assert not (tmp_path / "out").exists()


def test_a_single_recording_is_refused(run, walked, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(run.parent / "tones" / "0.wav", tmp_path / "one")
    options = ["--models", str(walked.parent / "models"), "--out", str(tmp_path / "out")]
    assert demo.main([*options, "--recordings", str(tmp_path / "one")]) == EXIT_ERROR
    assert "holds 1 recordings; the demo blends two" in capsys.readouterr().err


def test_a_model_that_follows_nothing_is_not_asked_to():
    plan = demo.make_plan({"a b.wav": 10.0, "c.wav": 8.0})
    commands = [stage.command for stage in demo.stages("m", plan, 0, False)]
    assert not any("--from-audio" in command for command in commands)
    assert any("--vary 'latents/a b.npy'" in command for command in commands)
    assert any("--from 4.0 --to 7.0" in command for command in commands)


def test_the_report_tells_the_ladder_the_curves_the_licence_and_the_commands(walked):
    page = (walked / "report.html").read_text()
    assert page.count("<audio controls") == 3 + 3 + 3 + 3 + 8 + 2 * 4
    assert "9 ± 0.5" in page and page.count('<li class="own">') == 1
    assert "to be under: 19" in page
    order = "in order" if list(DISTANCES.values()) == sorted(DISTANCES.values()) else "out of order"
    assert f"The ladder is {order}" in page and "Old words" not in page
    assert "Log-spectral distance, held-out crops at the end of the training" in page
    assert "Tones by nobody (https://example.org/tones), CC0." in page
    assert "They are short" not in page
    assert "are synthesized" not in page  # these were given
    assert page.count('<svg role="img"') == 5
    assert "rave decode ../models/codec varied varied_audio" in page
    addresses = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert all(found.startswith("data:") for found in addresses)


def test_the_report_tells_how_many_notes_of_the_recording_are_kept(walked):
    plan = json.loads((walked / demo_walk.JOURNAL).read_text())
    page, transcriber = (walked / "report.html").read_text(), Transcriber()
    following = min((walked / "following_audio").glob("*.wav"))
    right, *others = (
        transcriber.transcribe(AudioStream(path, SAMPLE_RATE_HZ, 1))
        for path in (
            *(walked / part / plan["followed"] for part in ("recordings", "reconstructions")),
            following,
        )
    )
    table = page.partition("Notes kept")[2].partition("</table>")[0]
    for name, found in zip(("reconstruction", "generated to follow it"), others, strict=True):
        scores = note_scores(right, found)
        row = f"{plan['followed'].removesuffix('.wav')}, {name}"
        cells = rf"{row}\D*{scores['note_f1']:.2f}\D*{scores['frame_f1']:.2f}\D"
        assert re.search(cells, table), table


def test_a_report_of_music_without_notes_is_written(tmp_path):
    for part in ("recordings", "reconstructions", "following_audio"):
        write(tmp_path / part / "a.wav", np.zeros((1, 22050), np.float32), 22050)
    section = report_models.notes(tmp_path, ["a.wav"], "a.wav")
    assert section.count("<td>1.00</td>") == 4  # silence where silence is right


def test_a_model_without_evaluation_curves_and_card_has_a_report_too(walked, tmp_path):
    out = shutil.copytree(walked, tmp_path / "out")
    models = shutil.copytree(walked.parent / "models", tmp_path / "models")
    for name in (report_models.EVALUATION, report_models.CARD, "curves.json"):
        (models / name).unlink()
    page = report.write_report(out).read_text()
    assert "How good is it?" not in page
    assert "Whose music" not in page
    assert "From noise" in page


@pytest.mark.parametrize("width", WIDTHS_PX)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_in_both_colours_and_asks_nobody(opened, width, scheme):
    with opened(viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0
        paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        is_dark = sum(page.evaluate(paper)[:3]) < 3 * 128
        assert is_dark == (scheme == "dark")
        page.get_by_role("button").press("Enter")
        assert (sum(page.evaluate(paper)[:3]) < 3 * 128) != is_dark
        asked = [url for url in page.requests if not url.startswith(("data:", "file:"))]
        assert asked == []


LEVELS = """async () => {
  const context = new OfflineAudioContext(1, 1, 22050), levels = [];
  for (const audio of document.querySelectorAll('audio')) {
    const bytes = await (await fetch(audio.src)).arrayBuffer();
    const samples = (await context.decodeAudioData(bytes)).getChannelData(0);
    levels.push(Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length));
  }
  return levels;
}"""


def test_a_browser_hears_something_in_every_clip(opened):
    with opened() as page:
        levels = page.evaluate(LEVELS)
        assert len(levels) == page.locator("audio").count() > 20
        assert min(levels) > 1e-3


def test_one_clip_plays_at_a_time_and_keys_seek_in_its_picture(opened):
    with opened() as page:
        pictures, clips = page.locator(".picture"), page.locator("audio")
        pictures.nth(0).focus()
        page.keyboard.press("End")
        length = clips.nth(0).evaluate("a => a.duration")
        assert clips.nth(0).evaluate("a => a.currentTime") == pytest.approx(length)
        page.keyboard.press("Home")
        page.keyboard.press("Space")
        page.wait_for_function("document.querySelector('audio').currentTime > 0.1")
        assert float(pictures.nth(0).get_attribute("aria-valuenow")) > 0
        pictures.nth(1).press("Enter")
        page.wait_for_function("!document.querySelectorAll('audio')[1].paused")
        assert clips.nth(0).evaluate("a => a.paused")


def test_samples_beyond_full_scale_in_own_recordings_are_reported(tmp_path, capsys):
    for name, gain in (("hot", 2.0), ("right", 0.5)):
        write(tmp_path / f"{name}.wav", sine(440, 44100, 0.5, gain), 44100, subtype="FLOAT")
    demo.take_recordings(tmp_path, tmp_path / "taken")
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"warning: hot\.wav: [1-9]\d* samples beyond full scale were limited", line)


FOCUSED = """() => {
  const found = document.activeElement;
  return [found.tagName + '.' + found.className, getComputedStyle(found).outlineStyle];
}"""


@pytest.mark.parametrize(
    ("key", "reached"),
    [
        ("Tab", {"BUTTON.theme", "DIV.picture", "AUDIO."}),
        ("Shift+Tab", {"SUMMARY.", "DIV.scroll"}),
    ],
)
def test_the_tab_key_stops_at_all_there_is_to_use_and_shows_where_it_is(opened, key, reached):
    with opened() as page:
        stops = set()
        for _ in range(20):
            page.keyboard.press(key)
            name, outline = page.evaluate(FOCUSED)
            assert outline != "none" or name.startswith("BODY"), name
            stops.add(name)
        assert reached <= stops
        assert page.evaluate("[...document.querySelectorAll('.picture')].every(p => !p.tabIndex)")
