"""A million clips of latents: read in the memory of a few, soon, and as fast as a plain folder.

`pytest --soak tests/test_million_latents.py` does it with a million, and prints what it measures;
docs/scaling-latents.md tells it.
"""

import json
import shutil
from pathlib import Path

import pytest
from forks import Fork
from shard_data import write_plain, write_set

CLIPS, SOAK_CLIPS = 20_000, 1_000_000
NUM_SHARDS = 50
# Of its own, beside what is mapped from files: that of the clips of a few shards, not of all clips.
# A list of 20,000 clips takes 17 MiB, of a million 850; of what stands for them, 4 and 190.
MAY_USE_MIB, SOAK_MAY_USE_MIB = 4, 64


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system has no /proc/self/status"
)
def test_a_million_clips_are_read_in_the_memory_of_a_few(tmp_path, is_soak):
    num_clips = SOAK_CLIPS if is_soak else CLIPS
    write_set(tmp_path / "shards", num_clips, num_clips // NUM_SHARDS)
    places = [tmp_path / "shards"]
    if is_soak:
        places.append(tmp_path / "plain")
        write_plain(places[1], num_clips)
    code, out, err = Fork("shard_reader", *places).finish(timeout_s=None)
    assert code == 0, err
    print(out)
    for place in places:  # gigabytes, which pytest would keep
        shutil.rmtree(place)
    figures = json.loads(out)
    assert figures["clips"] == num_clips
    assert figures["own_mib"] < (SOAK_MAY_USE_MIB if is_soak else MAY_USE_MIB)
