"""Each control of the page reaches the command that its button runs, in the command's unit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import noise, sine, write

pytest.importorskip("gradio", reason="the extra [app] is not installed")

from diffwave.app import session as module
from diffwave.app.page import Page
from diffwave.app.session import LERP, SLERP, Session
from rave.latents.folder import read_latents

# Gradio 6.31 asks pandas for what pandas 3 no longer needs (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:.*no_silent_downcasting")
SECONDS = 3.0  # of the sound
SEED, STEPS = "Seed", "Sampler steps"
SHARED = {SEED: (7, "--seed 7"), STEPS: (9, "--steps 9")}
# By button and label: values that differ from those of a page just opened, and the words for them.
CONTROLS = {
    "Generate": {
        "Length in seconds": (2, "--seconds 2"),
        "Follow the sound's": (["chroma"], "--follow chroma"),
        "Label": ("drums", "--label=drums"),
        "Guidance: 1 follows as trained, more exaggerates": (2.5, "--guidance 2.5"),
    },
    "Vary": {"Strength": (0.25, "--strength 0.25")},
    "Inpaint": {"From, seconds": (0.5, "--from 0.5"), "To, seconds": (2.5, "--to 2.5")},
    "Continue": {"Seconds to add": (7, "--seconds 7")},
    "Bend": {
        **{f"Axis {axis}: offset": (1.5, f"--shift {axis}=") for axis in range(4)},
        **{f"Axis {axis}: stretch": (0.5, f"--scale {axis}=0.5") for axis in range(4)},
    },
    "Mix": {
        "Share of the second sound": (0.25, "--weight 0.25"),
        "Blend": ("along a line", f" {LERP}.wav"),
    },
}
# What a button needs beside the control in question, so that its command is possible.
BESIDE = {"Guidance: 1 follows as trained, more exaggerates": {"Label": "drums"}}
# These decode only: there is no sampler.
WITHOUT_STEPS = ("Bend", "Mix")


@pytest.fixture(scope="module")
def session(run, tmp_path_factory):
    """A session with a codec, and a diffusion model that is never opened."""
    folder = tmp_path_factory.mktemp("controls")
    session = Session(folder / "rave-app", run, None, "cpu")
    session.run_path = Path("runs/diffusion")
    session.follows, session.labels = ["loudness", "chroma"], ["drums", "piano"]
    return session


@pytest.fixture(scope="module")
def sounds(session, tmp_path_factory):
    """Two sounds whose latents spread otherwise along each axis."""
    folder = tmp_path_factory.mktemp("sounds")
    made = []
    for number in range(2):
        audio = sine(220 * (1 + number), 22050, SECONDS) + noise(
            round(22050 * SECONDS), seed=number
        )
        audio *= np.linspace(1, 0.1, audio.shape[1], dtype=np.float32)
        made.append(session.add_sound(write(folder / f"{number}.wav", audio, 22050)))
    return made


@pytest.fixture(scope="module")
def page(session):
    async def build():  # without a running loop gradio makes one for each of its locks
        return Page(session).build()

    return asyncio.run(build())


@pytest.fixture
def press(page, session, sounds, monkeypatch):
    """Return a function that presses a button and returns the words of the commands it runs."""
    commands: list[str] = []

    def run_command(command, job, stem="*"):
        commands.append(" ".join([*command.words, f"{stem}.wav"]))
        folder = next((Path(word) for word in command.words if word.endswith("/audio")), None)
        if folder is not None:
            folder.mkdir(parents=True)
            soundfile.write(folder / f"{stem.replace('*', 'a')}.wav", np.zeros(1000), 22050)

    monkeypatch.setattr(module, "run_command", run_command)

    def press(button, given=None, sound=sounds[0]):
        commands.clear()
        function = functions(page)[button]
        values, waiting = [], [sound, sounds[1]]
        for control in function.inputs:
            label = getattr(control, "label", None)
            value = waiting.pop(0) if label is None else control.value
            values.append((given or {}).get(label, value))
        request, progress = SimpleNamespace(session_hash="tab"), lambda *_, **__: None
        told = function.fn(request, *values, progress=progress)[0]
        assert "Done." in told, told
        return "\n".join(commands).replace(str(session.folder), "")

    return press


def functions(page) -> dict[str, Any]:
    """Return what each button that makes something calls, by its name."""
    found = {}
    for function in page.fns.values():
        for number, event in function.targets:
            button = page.blocks.get(number)
            if event == "click" and str(getattr(button, "elem_id", None)).startswith("do-"):
                found[button.value] = function
    return found


def without_numbers(words: str) -> str:
    """Return words without the number of the result's folder."""
    return " ".join(word for word in words.split() if "/0" not in word)


def test_the_table_has_every_control_of_every_button_and_no_other(page):
    labels = {
        name: {each.label for each in function.inputs if getattr(each, "label", None)}
        for name, function in functions(page).items()
    }
    assert labels == {name: {*SHARED, *controls} for name, controls in CONTROLS.items()}


SHOWN = [(button, label) for button in CONTROLS for label in (*SHARED, *CONTROLS[button])]


@pytest.mark.parametrize(("button", "label"), SHOWN)
def test_another_value_of_a_control_is_in_the_words_of_the_command(press, button, label):
    value, words = (SHARED | CONTROLS[button])[label]
    beside = BESIDE.get(label, {})
    before, after = press(button, beside), press(button, beside | {label: value})
    if label == STEPS and button in WITHOUT_STEPS:
        assert without_numbers(before) == without_numbers(after)
        return
    assert words in after
    assert words not in before


@pytest.mark.parametrize("button", CONTROLS)
def test_the_seed_is_that_of_every_command_of_a_button(press, button):
    lines = press(button, {SEED: 7}).splitlines()
    assert len(lines) == (1 if button in WITHOUT_STEPS else 2)
    assert all("--seed 7 " in line for line in lines)


@pytest.mark.parametrize("button", [name for name in CONTROLS if name != "Generate"])
def test_the_sound_is_what_the_command_begins_with(press, sounds, button):
    for sound in sounds:
        folder = sound.audio.parents[1].name
        assert f"/{folder}/" in press(button, sound=sound).splitlines()[0]


@pytest.mark.parametrize("axis", range(4))
def test_an_offset_is_in_standard_deviations_of_the_sound(press, session, sounds, axis):
    mean, axes = session.codec.principal_axes()
    for sound in sounds:
        latents = read_latents(sound.latents, 4)
        spread = float((axes @ (latents - mean[:, None])).std(axis=1)[axis])
        words = press("Bend", {f"Axis {axis}: offset": -1.5}, sound).split()
        place, value = words[words.index("--shift") + 1].split("=")
        assert (int(place), float(value)) == (axis, pytest.approx(-1.5 * spread, rel=1e-3))


@pytest.mark.parametrize("seconds", [1, 2, 3, 4, 60])
def test_what_follows_a_sound_is_as_long_as_was_asked_for_and_no_longer_than_the_sound(
    press, seconds
):
    words = press("Generate", {"Length in seconds": seconds, "Follow the sound's": ["chroma"]})
    assert (f"--seconds {seconds} " in words) == (seconds < SECONDS)
    assert "--from-audio" in words
    free = press("Generate", {"Length in seconds": seconds, "Label": "drums"})
    assert f"--seconds {seconds} " in free


@pytest.mark.parametrize("follow", [["loudness"], ["loudness", "chroma"], []])
def test_guidance_goes_with_whatever_is_followed_and_with_nothing_else(press, follow):
    given = {"Follow the sound's": follow, "Guidance: 1 follows as trained, more exaggerates": 3}
    assert ("--guidance 3 " in press("Generate", given)) == bool(follow)


def test_each_blend_keeps_its_own_file(press):
    assert f" {SLERP}.wav" in press("Mix", {"Blend": "along a great circle"})
    assert f" {LERP}.wav" in press("Mix", {"Blend": "along a line"})


def test_reset_is_the_page_as_it_was_opened(page):
    bend = functions(page)["Bend"].inputs
    sliders = [each for each in bend if str(each.label).startswith("Axis")]
    (reset,) = (each for each in page.fns.values() if each.outputs == sliders)
    assert reset.fn() == [slider.value for slider in sliders]
