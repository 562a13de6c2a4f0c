"""What the page can do, without a browser: each result is what its command makes."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import sine, write
from rave_models import remember, write_run

from diffwave import inference
from diffwave.app import pictures, workshop
from diffwave.app.commands import Job, Stopped
from diffwave.app.workshop import LERP, Workshop
from rave.latents import LatentHeader
from rave.main_cli import main


@pytest.fixture
def shop(instrument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codec, diffusion, _ = instrument
    return Workshop(tmp_path / "rave-app", codec, diffusion, "cpu")


@pytest.fixture
def sound(shop, instrument):
    return shop.add_sound(instrument[2])


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
    return sorted(Path(*Path(folder).parts[:2], "audio").iterdir())


WAYS = {
    "bend": lambda shop, sound: shop.bend(sound, [1.0, 0.0], [1.0, 0.5], 3),
    "straight": lambda shop, sound: shop.bend(sound, [0.0], [1.0], 3),
    "mix": lambda shop, sound: shop.mix(sound, sound, 0.3, LERP, 3),
    "free": lambda shop, sound: shop.generate(0.5, 3, 3),
    "following": lambda shop, sound: shop.generate(
        0.5, 3, 3, sound, ["loudness", "chroma"], None, 2.0
    ),
    "following one": lambda shop, sound: shop.generate(2, 3, 3, sound, ["chroma"]),
    "vary": lambda shop, sound: shop.vary(sound, 0.5, 3, 4),
    "inpaint": lambda shop, sound: shop.inpaint(sound, 0.2, 0.4, 3, 2),
    "continue": lambda shop, sound: shop.extend(sound, 0.3, 3, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_command_that_is_shown_makes_the_same_bytes(shop, sound, way):
    made = WAYS[way](shop, sound)
    audio, _ = soundfile.read(made.audio)
    assert np.abs(audio).max() > 0
    assert (made.audio.parents[1] / "command.txt").read_text() == made.command + "\n"
    audio = {path.name: path.read_bytes() for path in run_shown(made.command)}
    assert audio[made.audio.name] == made.audio.read_bytes()


def test_another_seed_is_other_music(shop):
    first, second = (shop.generate(0.5, seed, 3).audio.read_bytes() for seed in (0, 1))
    assert first != second


def test_following_one_condition_is_not_following_all(shop, sound):
    one = shop.generate(0.5, 0, 3, sound, ["chroma"])
    assert one.command.splitlines()[0].count("--follow") == 1
    both = shop.generate(0.5, 0, 3, sound, ["loudness", "chroma"])
    assert one.audio.read_bytes() != both.audio.read_bytes()


def test_work_stops_between_two_steps_and_leaves_nothing(shop):
    shares = []

    def report(share, left_s):
        assert left_s >= 0
        shares.append(share)
        if len(shares) == 2:
            job.stop()

    job = Job(report)
    before = sorted(shop.folder.iterdir())
    with pytest.raises(Stopped):
        shop.generate(0.5, 0, 10, job=job)
    # The step under way when it is stopped is finished; none begins after it.
    assert shares == [0.1, 0.2]
    assert sorted(shop.folder.iterdir()) == before


def test_a_long_sound_is_cut_and_says_so(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(workshop, "MAX_SOUND_S", 0.5)
    path = write(tmp_path / "long.flac", sine(440, 44100, 1.0), 44100)
    sound = shop.add_sound(path)
    assert sound.note == "Only the first 0 minutes are taken."
    assert soundfile.info(sound.audio).duration == pytest.approx(0.5)
    assert sound.seconds == 0.5


def test_names_do_not_lead_out_of_the_folder(shop, instrument, tmp_path):
    odd = tmp_path / "..-x <b>& '$(y)'.wav"
    shutil.copy(instrument[2], odd)
    sound = shop.add_sound(odd)
    assert sound.audio.is_relative_to(shop.folder)
    assert sound.audio.name == "x_b_y.wav"
    assert sound.latents.exists()


def test_files_that_are_no_sound_are_one_sentence_and_leave_nothing(shop, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    with pytest.raises(ValueError, match=r"'notes\.txt' is no audio file that is known"):
        shop.add_sound(text)
    broken = text.rename(tmp_path / "broken.wav")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        shop.add_sound(broken)
    assert list(shop.folder.iterdir()) == []


REFUSED = {
    "The length is 0 s": lambda shop, sound: shop.generate(0),
    "The length is 301 s": lambda shop, sound: shop.extend(sound, 301),
    "is no span of the sound": lambda shop, sound: shop.inpaint(sound, 0.4, 0.2),
    "--strength is 2": lambda shop, sound: shop.vary(sound, 2.0),
    "0 sampling steps were asked for": lambda shop, sound: shop.vary(sound, 0.5, 0, 0),
    "The seed is -1": lambda shop, sound: shop.generate(1, -1),
    "no way 'around'": lambda shop, sound: shop.mix(sound, sound, 0.5, "around"),
    "--weight is 1.5": lambda shop, sound: shop.mix(sound, sound, 1.5),
    "record or drop one first": lambda shop, sound: shop.generate(1, follow=["chroma"]),
    "cannot follow onsets": lambda shop, sound: shop.generate(1, 0, 3, sound, ["onsets"]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_is_refused_and_leaves_nothing(shop, sound, reason):
    before = sorted(shop.folder.iterdir())
    with pytest.raises(ValueError, match=reason):
        REFUSED[reason](shop, sound)
    assert sorted(shop.folder.iterdir()) == before


def test_models_that_do_not_belong_together_are_refused(instrument, tmp_path):
    stranger = write_run(tmp_path / "stranger")
    with pytest.raises(ValueError, match=r"dimensions, hop|another codec"):
        Workshop(tmp_path / "out", stranger, instrument[1], "cpu")


def test_without_a_diffusion_model_bending_is_there_and_sampling_says_what_is_missing(
    instrument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shop = Workshop(tmp_path / "out", instrument[0], None, "cpu")
    sound = shop.add_sound(instrument[2])
    assert shop.bend(sound, [1.0], [1.0]).audio.exists()
    with pytest.raises(ValueError, match="start with rave app --diffusion RUN"):
        shop.vary(sound, 0.5)


def test_pictures_share_one_axis_of_time(shop, sound):
    drawn = pictures.timeline(sound.audio, 22050, shop.axes_of(sound.latents))
    assert 'data-seconds="1.0000"' in drawn
    assert drawn.count("<polyline") == 4
    silence, tone = (
        np.asarray(pictures.spectrogram_picture(audio, 22050))
        for audio in (np.zeros(22050, np.float32), sine(5000, 22050)[0])
    )
    assert silence.max() == 0
    assert np.argmax(tone.mean(axis=1)) < tone.shape[0] / 2  # high sounds lie above


def test_axes_come_with_their_share_of_the_variance(shop, sound):
    along, shares = shop.axes_of(sound.latents)
    assert along.shape[0] == len(shares) == 4
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shop.spreads(sound), along.std(axis=1))


def test_the_command_says_what_is_missing(rave, tmp_path, monkeypatch):
    monkeypatch.setattr("rave.commands.app.SHIPPED", tmp_path / "none")
    code, _, error = rave("app")
    assert code == 2
    assert "Name a run: rave app --codec RUN" in error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = rave("app", "--codec", tmp_path)
    assert code == 2
    assert "rave app needs Gradio. Install it with: pip install" in error
    assert "Traceback" not in json.dumps(error)


def test_sounds_are_brought_to_the_training_level_and_back_and_the_page_says_so(
    instrument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    codec, _, tone = instrument
    known = shutil.copytree(codec, tmp_path / "codec")
    remember(known, True, True, True, True)
    shop = Workshop(tmp_path / "rave-app", known, None, "cpu")
    audio, rate_hz = soundfile.read(tone, dtype="float32")
    sound = shop.add_sound(write(tmp_path / "hot.wav", 2 * audio[None], rate_hz))
    (file,) = LatentHeader.read(sound.latents.parent).files
    assert file.gain_db < -10
    level = 20 * np.log10(np.sqrt(np.square(2 * audio).mean()))
    assert sound.note.startswith(f"brought from {level:.0f} to -20 dBFS, and back")
    assert "--match-level" in shop.mix(sound, sound, 0.5).command
