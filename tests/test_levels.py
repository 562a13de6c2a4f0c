"""Every command that writes audio reports its peak and what it limited to full scale."""

import json

import numpy as np
import pytest
import soundfile
import torch
from audio_files import noise, write
from rave_models import SHORT, write_run

from rave.audio.prepared import PreparedAudio
from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint, read_checkpoint

LARGEST = 32767 / 32768


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two recordings with peaks above full scale, and a codec whose output has such peaks too."""
    folder = tmp_path_factory.mktemp("levels")
    for number in range(2):
        loud = noise(20_000, seed=number, gain=0.5)
        write(folder / "in" / f"{number}.wav", loud, subtype="FLOAT")
    run = write_run(folder / "run", "v2", *SHORT)
    content = read_checkpoint(last_checkpoint(run))
    for name, weight in content["state_dict"].items():
        if name.startswith("model.decoder") and name.endswith("original0"):
            weight *= 100
    torch.save(content, last_checkpoint(run))
    assert main(["encode", str(run), str(folder / "in"), str(folder / "lat")]) == 0
    names = {"run": run, "in": folder / "in", "lat": folder / "lat"}
    return {name: str(path) for name, path in names.items()} | {
        name: str(folder / "in" / f"{name}.wav") for name in "01"
    }


@pytest.mark.parametrize(
    "words",
    ["preprocess in", "augment in", "decode run lat", "generate run in", "interpolate run 0 1"],
)
def test_every_writer_of_audio_reports_peaks_and_what_it_limits(words, places, tmp_path, capsys):
    arguments = [places.get(word, word) for word in words.split()] + [str(tmp_path / "out")]
    for _ in range(1 if "interpolate" in words else 2):  # remembered, not only said once
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        out, err = capsys.readouterr()
        figures = json.loads(out)
        assert len(figures["peak"]) >= 2
        for name, peak in figures["peak"].items():
            audio = written(tmp_path / "out", name)
            num_limited = int((np.abs(audio) >= LARGEST).sum())
            assert num_limited > 0 and peak > 1, name
            assert figures["num_limited_samples"][name] == pytest.approx(num_limited, abs=2)
            said = f"{figures['num_limited_samples'][name]} samples beyond full scale were limited"
            assert any(said in warning for warning in figures["warnings"][name])
            assert f"rave {words.split()[0]}: warning: {name}: " in err and said in err


def written(folder, name):
    """Return the audio that a command calls so."""
    if (folder / "prepared.json").exists():
        store = PreparedAudio(folder)
        file = next(file for file in store.files if file.name == name)
        return store.read(file, 0, file.num_samples)
    return soundfile.read(folder / name.replace(".npy", ".wav"))[0]
