"""Whatever bytes are in a file, a reader returns or raises what its documentation says.

In CI a few hundred edits of good files, always the same ones; `pytest --soak tests/test_fuzz.py`
makes thousands, others each time.
"""

import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from audio_files import noise, write, write_with_av
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rave_models import write_run
from strangers import diffusion_run, latents_of, sharded
from upstream_runs import write_upstream_run

from diffwave.run import TrainingData, open_run
from rave import experiment
from rave.audio.formats import AudioError
from rave.audio.io import AudioStream
from rave.codec import load_run
from rave.files.atomic import check_inside
from rave.jobs.journal import Journal
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader, read_latents
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.runs.gin_text import read_bindings
from rave.upstream.config import Config
from rave.upstream.lmdb import open_audio

EXAMPLES, SOAK_EXAMPLES = 60, 5000
# Where, how many bytes are taken out, and what is put there.
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12))
# The same where the length stays.
SWAP = st.tuples(st.floats(0, 1), st.binary(max_size=12)).map(lambda at: (at[0], len(at[1]), at[1]))


def edited(content: bytes, edits) -> bytes:
    for place, num_removed, put in edits:
        start = int(place * len(content))
        content = content[:start] + put + content[start + num_removed :]
    return content


def fuzz(path: Path, read, documented, is_soak, edit=EDIT):
    """Read a file after many edits of it; anything but what is documented fails."""
    read()  # what is edited is good
    content = path.read_bytes()
    outcomes = Counter()

    def check(edits):
        path.write_bytes(edited(content, edits))
        try:
            read()
            outcomes["read"] += 1
        except documented as error:
            assert str(error)
            outcomes["refused"] += 1

    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    examples = SOAK_EXAMPLES if is_soak else EXAMPLES
    limits = settings(
        max_examples=examples, deadline=None, derandomize=not is_soak, suppress_health_check=quiet
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits(given(st.lists(edit, min_size=1, max_size=4))(check))()
    print(f"{path.name}: {outcomes['read']} read, {outcomes['refused']} refused")
    assert outcomes["read"]


@pytest.mark.parametrize(
    "suffix", [".wav", ".flac", ".ogg", ".aiff", ".mp3", ".m4a", ".w64", ".au"]
)
def test_audio(suffix, tmp_path, is_soak):
    path = tmp_path / f"a{suffix}"
    if suffix in (".mp3", ".m4a"):
        write_with_av(path, noise(9000), 22050, {".mp3": "libmp3lame", ".m4a": "aac"}[suffix])
    else:
        write(path, noise(3000), 22050)

    def read():
        for number, block in enumerate(AudioStream(path, 16000, 1)):
            assert np.isfinite(block).all()
            if number == 20:
                break

    fuzz(path, read, AudioError, is_soak)


def test_latents(tmp_path, is_soak):
    folder = tmp_path / "latents"
    size = latents_of(folder).latent_size
    path = folder / "a.npy"
    fuzz(path, lambda: np.asarray(read_latents(path, size)).sum(), ValueError, is_soak)


def test_the_header_of_latents(tmp_path, is_soak):
    folder = tmp_path / "latents"
    latents_of(folder)
    fuzz(folder / "latents.json", lambda: LatentHeader.read(folder), ValueError, is_soak)


@pytest.mark.parametrize("name", ["shards.json", "index.npy", "shard-00000.tar"])
def test_a_sharded_set(name, tmp_path, is_soak):
    shards = sharded(tmp_path)
    made = (shards / name).read_bytes()

    def read():
        found = LatentDataset(shards)
        for index in range(0, len(found), 2):
            np.asarray(found.array(index)).sum()
            check_inside(found.files[index].entry.path)

    fuzz(shards / name, read, ValueError, is_soak, EDIT if name == "shards.json" else SWAP)
    (shards / name).write_bytes(made)
    read()


def test_the_header_of_prepared_audio(run, tmp_path, is_soak):
    folder = shutil.copytree(run.parent / "prepared", tmp_path / "prepared")
    header = next(folder.glob("*.json"))

    def read():
        store = open_audio(folder)
        for file in store.files:
            store.check(file)
            store.read(file, 0, 1)

    fuzz(header, read, ValueError, is_soak)


def test_a_journal(tmp_path, is_soak):
    path = tmp_path / "out" / ".journal.jsonl"
    journal = Journal(path, {"seed": 0})
    for name in ("a", "b/c"):
        journal.add(name, {"path": f"{name}.npy", "num_frames": 3})
    journal.close()

    def read():
        journal = Journal(path, {"seed": 0})
        journal.close()
        assert all(".." not in name for name in journal.names)

    fuzz(path, read, ValueError, is_soak)


def test_a_checkpoint(tmp_path, is_soak):
    path = last_checkpoint(write_run(tmp_path / "run"))
    fuzz(path, lambda: read_checkpoint(path), ValueError, is_soak)


def test_the_settings_that_a_run_was_begun_with(tmp_path, is_soak):
    run = write_run(tmp_path / "run")
    model, config = ((run / name).read_text() for name in ("model.gin", "config.gin"))
    path = run / "config.gin"
    fuzz(path, lambda: experiment.save_run(run, "rave", model, config), ValueError, is_soak)


@pytest.mark.parametrize("name", ["model.gin", "checkpoints/last.ckpt"])
def test_a_run_of_an_autoencoder(name, tmp_path, is_soak):
    run = write_run(tmp_path / "run")
    fuzz(run / name, lambda: load_run(run)[0], ValueError, is_soak)


@pytest.mark.parametrize("name", ["model.gin", "latents.json", "checkpoints/last.ckpt"])
def test_a_diffusion_run(name, tmp_path, is_soak):
    run = diffusion_run(tmp_path / "run")
    fuzz(run / name, lambda: open_run(run), ValueError, is_soak)


def test_where_a_run_was_trained(tmp_path, is_soak):
    TrainingData(tmp_path, tmp_path, None).write(tmp_path)
    fuzz(tmp_path / "data.json", lambda: TrainingData.read(tmp_path), ValueError, is_soak)


def test_a_recipe(tmp_path, is_soak):
    shipped = Path(experiment.__file__).parent / "configs" / "recipes" / "tiny.gin"
    path = Path(shutil.copy(shipped, tmp_path / "recipe.gin"))
    fuzz(path, lambda: experiment.parse_recipe("rave", str(path)), ValueError, is_soak)


def test_the_configuration_of_acids_rave(tmp_path, is_soak):
    path = write_upstream_run(tmp_path / "run") / "config.gin"
    fuzz(path, lambda: (read_bindings(path), Config(path)), ValueError, is_soak)
