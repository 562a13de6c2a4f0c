"""What the page can do, without a browser: each result is what its command makes."""

import io
import json
import math
import re
import shlex
import shutil
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import sine, write
from PIL import Image
from rave_models import remember, write_run

from diffwave import inference
from diffwave.app import pictures, requests
from diffwave.app import session as module
from diffwave.app.commands import Job, Stopped
from diffwave.app.requests import Bounds
from diffwave.app.session import LERP, Session
from diffwave.pages.plots import spectrogram_png
from rave.latents.folder import LatentHeader
from rave.main_cli import main


@pytest.fixture
def session(instrument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codec, diffusion, _ = instrument
    return Session(tmp_path / "rave-app", codec, diffusion, "cpu")


@pytest.fixture
def sound(session, instrument):
    return session.add_sound(instrument[2])


def run_shown(text):
    """Run the commands that the page shows for a result, and return the audio they make."""
    for line in text.splitlines():
        program, *words = shlex.split(line)
        if program == "rave":
            assert main(words) == 0
        else:
            assert words[:2] == ["-m", "diffwave.inference"]
            assert inference.main(words[2:]) == 0
    folder = next(word for word in shlex.split(text) if word.startswith("again/"))
    return sorted(Path(*Path(folder).parts[:2], "audio").glob("*.wav"))


WAYS = {
    "bend": lambda session, sound: session.bend(sound, [1.0, 0.0], [1.0, 0.5], 3),
    "straight": lambda session, sound: session.bend(sound, [0.0], [1.0], 3),
    "mix": lambda session, sound: session.mix(sound, sound, 0.3, LERP, 3),
    "free": lambda session, sound: session.generate(0.5, 3, 3),
    "following": lambda session, sound: session.generate(
        0.5, 3, 3, sound, ["loudness", "chroma"], None, 2.0
    ),
    "following one": lambda session, sound: session.generate(2, 3, 3, sound, ["chroma"]),
    "vary": lambda session, sound: session.vary(sound, 0.5, 3, 4),
    "inpaint": lambda session, sound: session.inpaint(sound, 0.2, 0.4, 3, 2),
    "continue": lambda session, sound: session.extend(sound, 0.3, 3, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_command_that_is_shown_makes_the_same_bytes(session, sound, way):
    made = WAYS[way](session, sound)
    audio, _ = soundfile.read(made.audio)
    assert np.abs(audio).max() > 0
    assert (made.audio.parent / "command.txt").read_text() == made.command + "\n"
    assert made.audio.read_bytes() in [path.read_bytes() for path in run_shown(made.command)]


def test_a_result_is_named_after_what_it_is(session, sound):
    names = [make(session, sound).audio.name for make in WAYS.values()]
    assert names == [
        "002_1_bent_seed_3.wav",
        "003_1_through_the_codec_seed_3.wav",
        "004_1_70_1_30_seed_3.wav",
        "005_New_music_seed_3.wav",
        "006_New_music_following_loudness_and_chroma_seed_3.wav",
        "007_New_music_following_chroma_seed_3.wav",
        "008_1_varied_by_0.5_seed_3.wav",
        "009_1_inpainted_from_0.2_s_to_0.4_s_seed_3.wav",
        "010_1_continued_by_0.3_s_seed_3.wav",
    ]


def test_another_seed_is_other_music(session):
    first, second = (session.generate(0.5, seed, 3).audio.read_bytes() for seed in (0, 1))
    assert first != second


def test_following_one_condition_is_not_following_all(session, sound):
    one = session.generate(0.5, 0, 3, sound, ["chroma"])
    assert one.command.splitlines()[0].count("--follow") == 1
    both = session.generate(0.5, 0, 3, sound, ["loudness", "chroma"])
    assert one.audio.read_bytes() != both.audio.read_bytes()


def test_work_stops_between_two_steps_and_leaves_nothing(session):
    shares = []

    def report(share, left_s):
        assert left_s >= 0
        shares.append(share)
        if len(shares) == 2:
            job.stop()

    job = Job(report)
    before = sorted(session.folder.iterdir())
    with pytest.raises(Stopped):
        session.generate(0.5, 0, 10, job=job)
    # The step under way when it is stopped is finished; none begins after it.
    assert shares == [0.1, 0.2]
    assert sorted(session.folder.iterdir()) == before


def test_a_long_sound_is_cut_and_says_so(session, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SOUND_S", 0.5)
    path = write(tmp_path / "long.flac", sine(440, 44100, 1.0), 44100)
    sound = session.add_sound(path)
    assert sound.warnings[0].startswith("Only the first 0.00833333 minutes are used.")
    assert soundfile.info(sound.audio).duration == pytest.approx(0.5)
    assert sound.seconds == 0.5


@pytest.mark.parametrize("max_s", [0.5, 300.0])
def test_what_is_wrong_with_a_sound_stands_on_it_whenever_it_is_given(
    session, tmp_path, monkeypatch, max_s
):
    monkeypatch.setattr(module, "MAX_SOUND_S", max_s)
    audio = np.repeat(sine(440, 44100, 1.0, 2.0), 6, 0)
    path = write(tmp_path / "hot.wav", audio, 44100, subtype="FLOAT")
    for _ in range(2):
        text = "\n".join(session.add_sound(path).warnings)
        assert text.count("'hot.wav' does not state the layout of its 6 channels") == 1
        limited = re.search(
            r"^[1-9]\d* samples beyond full scale were limited \(peak 2", text, re.M
        )
        assert bool(limited) == (max_s < 1)  # then only it is written anew


def test_names_do_not_lead_out_of_the_folder(session, instrument, tmp_path):
    odd = tmp_path / "..-x <b>& '$(y)'.wav"
    shutil.copy(instrument[2], odd)
    sound = session.add_sound(odd)
    assert sound.audio.is_relative_to(session.folder)
    assert sound.audio.name == "x_b_y.wav"
    assert sound.latents.exists()


def test_files_that_are_no_sound_are_one_sentence_and_leave_nothing(session, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    with pytest.raises(ValueError, match=r"'notes\.txt' is not a supported audio file"):
        session.add_sound(text)
    broken = text.rename(tmp_path / "broken.wav")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        session.add_sound(broken)
    assert list(session.folder.iterdir()) == []


REFUSED = {
    "is not within the sound": lambda session, sound: session.inpaint(sound, 0.4, 0.2),
    "--strength is 2": lambda session, sound: session.vary(sound, 2.0),
    "0 sampling steps were asked for": lambda session, sound: session.vary(sound, 0.5, 0, 0),
    "Unknown blend 'around'. Choose lerp or slerp": lambda session, sound: session.mix(
        sound, sound, 0.5, "around"
    ),
    "--weight is 1.5": lambda session, sound: session.mix(sound, sound, 1.5),
    "record or drop one first": lambda session, sound: session.generate(1, follow=["chroma"]),
    "cannot follow onsets": lambda session, sound: session.generate(1, 0, 3, sound, ["onsets"]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_is_refused_and_leaves_nothing(session, sound, reason):
    before = sorted(session.folder.iterdir())
    with pytest.raises(ValueError, match=reason):
        REFUSED[reason](session, sound)
    assert sorted(session.folder.iterdir()) == before


@pytest.mark.parametrize(
    "bounds", [each for each in vars(requests).values() if type(each) is Bounds]
)
def test_every_number_of_the_page_has_bounds_and_is_refused_beyond_them(bounds):
    assert [bounds.check(value) for value in (bounds.low, bounds.value, bounds.high)]
    beyond = [bounds.low - 1, bounds.high + 1, math.nan, math.inf, 10**400, -(10**400)]
    for value in [*beyond, None, "", "7", True, [1]]:
        with pytest.raises(ValueError, match=rf"^The {bounds.name} is .*; .* to .* is needed\.$"):
            bounds.check(value)
    with pytest.raises(ValueError, match="a whole number is needed"):
        bounds.whole((bounds.low + bounds.high) / 2 + 0.3)


WARNED = {
    "standard error": lambda: print("rave decode: warning: a b.npy: it is hot", file=sys.stderr),
    "beside a bar": lambda: print("\r 10%|# |\rwarning: it is hot\r 20%|## |", file=sys.stderr),
    "Python's warnings": lambda: sys.stderr.write(
        warnings.formatwarning("it is hot", UserWarning, "some.py", 1)
    ),
}


@pytest.mark.parametrize("way", WARNED)
def test_what_a_command_warns_of_stands_on_its_result_and_nothing_else_does(
    session, sound, way, monkeypatch, capfd
):
    own = session.bend(sound, [0.0], [1.0]).warnings
    run = module.decode_folder

    def warning_run(*places, **options):
        print("Decoding: nothing to warn of", file=sys.stderr)
        WARNED[way]()
        WARNED[way]()
        elsewhere = threading.Thread(target=print, args=("warning: of another",), kwargs=stderr)
        elsewhere.start()
        elsewhere.join()
        return run(*places, **options)

    stderr = {"file": sys.stderr}
    monkeypatch.setattr(module, "decode_folder", warning_run)
    made = session.bend(sound, [0.0], [1.0])
    assert made.warnings == ["it is hot", *own]
    assert session.results(1) == [made]
    assert "it is hot" in capfd.readouterr().err  # the terminal shows it too


def test_what_a_command_reports_of_the_other_files_it_writes_is_not_on_the_result(
    session, sound, monkeypatch
):
    run = module.interpolate_audio

    def warning_run(*places, **options):
        result = run(*places, **options)
        texts = {"lerp.wav": ["of lerp"], "slerp.wav": ["of slerp"]}
        return replace(result, figures={}, warnings=texts)

    monkeypatch.setattr(module, "interpolate_audio", warning_run)
    assert session.mix(sound, sound, 0.5, LERP).warnings == ["of lerp"]


def test_results_are_found_again_newest_first_whole_ones_only_and_numbered_beyond_999(
    session, sound, instrument
):
    first = session.bend(sound, [1.0], [1.0], 4)
    first.audio.parent.rename(session.folder / "999-bend")
    second, third = session.bend(sound, [1.0], [1.0], 5), session.bend(sound, [1.0], [1.0], 6)
    assert [made.audio.parent.name for made in (second, third)] == ["1000-bend", "1001-bend"]
    (session.folder / "1002-bend").mkdir()  # what a killed app leaves
    (session.folder / "1003-bend").mkdir()
    (session.folder / "1003-bend" / "made.json").write_text('{"title": 3}')
    again = Session(session.folder, *instrument[:2], "cpu")
    assert again.results(2) == [third, second]
    assert [made.seed for made in again.results(9)] == [6, 5, 4]
    assert again.bend(sound, [1.0], [1.0]).audio.parent.name == "1004-bend"


def test_work_waits_for_its_turn_and_can_be_stopped_meanwhile(session, sound):
    waited, job = [], Job(lambda share, left_s: (waited.append(left_s), job.stop()))
    before = sorted(session.folder.iterdir())
    with session._working, pytest.raises(Stopped):
        session.bend(sound, [1.0], [1.0], 0, job)
    assert waited == [None]
    assert sorted(session.folder.iterdir()) == before
    assert session.bend(sound, [1.0], [1.0]).audio.exists()


def test_models_that_do_not_belong_together_are_refused(instrument, tmp_path):
    stranger = write_run(tmp_path / "stranger")
    with pytest.raises(ValueError, match=r"its own codec with --codec, or leave --diff") as refused:
        Session(tmp_path / "out", stranger, instrument[1], "cpu")
    assert f"'{instrument[1]}' is of another codec ('{instrument[0]}'," in str(refused.value)
    assert f"than the codec '{stranger}'" in str(refused.value)


def test_without_a_diffusion_model_bending_is_there_and_sampling_says_what_is_missing(
    instrument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    session = Session(tmp_path / "out", instrument[0], None, "cpu")
    sound = session.add_sound(instrument[2])
    assert session.bend(sound, [1.0], [1.0]).audio.exists()
    with pytest.raises(ValueError, match="Start with rave app --diffusion RUN"):
        session.vary(sound, 0.5)


def test_pictures_share_one_axis_of_time(session, sound):
    drawn = pictures.timeline(sound.audio, 22050, session.axes_of(sound.latents))
    assert 'data-seconds="1.0000"' in drawn
    assert drawn.count("<polyline") == 4
    silence, tone = (
        np.asarray(Image.open(io.BytesIO(spectrogram_png(audio, 22050))))
        for audio in (np.zeros(22050, np.float32), sine(5000, 22050)[0])
    )
    assert silence.max() == 0
    assert np.argmax(tone.mean(axis=1)) < tone.shape[0] / 2  # high sounds lie above


def test_axes_come_with_their_share_of_the_variance(session, sound):
    along, shares = session.axes_of(sound.latents)
    assert along.shape[0] == len(shares) == 4
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(session.spreads(sound), along.std(axis=1))


def test_the_command_says_what_is_missing(rave, tmp_path, monkeypatch):
    monkeypatch.setattr("diffwave.app.__main__.SHIPPED", tmp_path / "none")
    code, _, error = rave("app")
    assert code == 2
    assert "Name a run: rave app --codec RUN" in error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = rave("app", "--codec", tmp_path)
    assert code == 2
    assert "rave app needs Gradio. Install it with: pip install" in error
    assert "Traceback" not in json.dumps(error)


@pytest.mark.parametrize(
    ("option", "value", "needed"),
    [
        ("--port", "99999", "--port is 99999; 1 to 65535 is needed."),
        ("--port", "0", "--port is 0; 1 to 65535 is needed."),
        ("--port", "-1", "--port is -1; 1 to 65535 is needed."),
        ("--folder", __file__, "is a file; --folder needs a folder."),
    ],
)
def test_options_out_of_bounds_are_refused_before_a_model_is_opened(
    rave, tmp_path, option, value, needed
):
    code, _, error = rave("app", "--codec", tmp_path, "--no-browser", option, value)
    assert (code, error.count("\n")) == (2, 1)
    assert needed in error


def test_sounds_are_brought_to_the_training_level_and_back_and_the_page_says_so(
    instrument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    codec, _, tone = instrument
    known = shutil.copytree(codec, tmp_path / "codec")
    remember(known, True, True, True, True)
    session = Session(tmp_path / "rave-app", known, None, "cpu")
    audio, rate_hz = soundfile.read(tone, dtype="float32")
    sound = session.add_sound(write(tmp_path / "hot.wav", 2 * audio[None], rate_hz))
    (file,) = LatentHeader.read(sound.latents.parent).files
    assert file.gain_db < -10
    level = 20 * np.log10(np.sqrt(np.square(2 * audio).mean()))
    assert sound.warnings[0].startswith(f"brought from {level:.0f} to -20 dBFS, and back")
    assert "--match-level" in session.mix(sound, sound, 0.5).command
