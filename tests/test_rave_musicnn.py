"""The network that hears: sounds get the tags that they should."""

import numpy as np
import pytest
import torch
from audio_files import noise

from rave.evaluation.musicnn import (
    EMBEDDING_SIZE,
    PATCH_FRAMES,
    SAMPLE_RATE_HZ,
    TAGS,
    Musicnn,
    embed,
    load_musicnn,
    log_mel_patches,
)

# Some values of seeded noise, made by this network when it told recordings of a piano as "piano"
# with 0.80 to 0.97, and played drum kits as "drums".
GOLDEN = {3: 9.735, 40: 4.501, 102: 11.605, 132: 11.207, 150: 2.074, 192: 11.059}


@pytest.fixture(scope="module")
def model() -> Musicnn:
    return load_musicnn()


def tags(model, audio):
    """Return the tags of audio (T,), the most probable first, and the probabilities by tag."""
    patches = torch.from_numpy(log_mel_patches(audio.astype(np.float32)))
    found = dict(zip(TAGS, model(patches).mean(dim=0).tolist(), strict=True))
    return sorted(found, key=lambda tag: -found[tag]), found


def flute(duration_s=6.0, pitch_hz=700.0):
    """Return three harmonics with vibrato, and some breath."""
    times = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * pitch_hz * (times + 0.001 * np.sin(2 * np.pi * 5.5 * times))
    tone = np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * np.sin(3 * phase)
    return 0.2 * tone + noise(len(times), gain=0.004)[0]


def struck_string(pitch, duration_s=1.5):
    """Return partials a little sharp of harmonic that fade, the high ones sooner."""
    times = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    base_hz, tone = 440 * 2 ** ((pitch - 69) / 12), np.zeros(len(times))
    for number in range(1, 16):
        frequency_hz = number * base_hz * np.sqrt(1 + 4e-4 * number**2)
        if frequency_hz < 7500:
            fade = np.exp(-times * (1.0 + 0.6 * number)) / number**1.2
            tone += fade * np.sin(2 * np.pi * frequency_hz * times)
    return tone * np.minimum(times / 0.003, 1)


def prelude():
    """Return the first four bars of the prelude in C major, BWV 846, on struck strings."""
    bars = (60, 64, 67, 72, 76), (60, 62, 69, 74, 77), (59, 62, 67, 74, 77), (60, 64, 67, 72, 76)
    notes = [bar[i] for bar in bars for i in (0, 1, 2, 3, 4, 2, 3, 4) * 2]
    step = round(0.22 * SAMPLE_RATE_HZ)
    audio = np.zeros(len(notes) * step + 2 * SAMPLE_RATE_HZ)
    for number, pitch in enumerate(notes):
        tone = struck_string(pitch)
        audio[number * step :][: len(tone)] += tone
    return 0.4 * audio / np.abs(audio).max()


def beat(duration_s=9.0):
    """Return a kick and a snare in turn, with a hi-hat between them."""
    rng = np.random.default_rng(0)
    times = np.arange(SAMPLE_RATE_HZ // 4) / SAMPLE_RATE_HZ
    hits = []
    for number in range(round(4 * duration_s)):
        hiss = rng.standard_normal(len(times))
        if number % 4 == 0:
            hits.append(np.sin(2 * np.pi * (54 * times - 4 * np.exp(-30 * times))))
            hits[-1] *= np.exp(-12 * times)
        elif number % 4 == 2:
            hits.append((hiss + np.sin(2 * np.pi * 190 * times)) * np.exp(-25 * times) / 2)
        else:
            hits.append(np.diff(hiss, prepend=0) * np.exp(-60 * times) / 5)
    audio = np.concatenate(hits)
    return 0.5 * audio / np.abs(audio).max()


def test_a_flute_is_told_as_a_flute(model):
    order, probability = tags(model, flute())
    assert order[0] == "flute"
    assert probability["flute"] > 0.8


def test_struck_strings_that_play_bach_are_told_as_piano_and_classical(model):
    order, probability = tags(model, prelude())
    assert order[0] == "piano"
    assert "classical" in order[:3]
    assert probability["drums"] < 0.05


def test_kick_and_snare_are_told_as_drums_and_beat(model):
    order, probability = tags(model, beat())
    assert {"beat", "drums"} <= set(order[:5])
    assert probability["piano"] < 0.05


def test_patches_lie_side_by_side_and_what_is_left_is_dropped():
    audio = noise(7 * SAMPLE_RATE_HZ)[0]
    patches = log_mel_patches(audio)
    assert patches.shape == (2, PATCH_FRAMES, 96)
    assert log_mel_patches(audio[: 2 * SAMPLE_RATE_HZ]).shape == (0, PATCH_FRAMES, 96)


def test_an_embedding_does_not_depend_on_what_is_heard_beside_it(model):
    patches = torch.from_numpy(log_mel_patches(noise(10 * SAMPLE_RATE_HZ)[0]))
    together = model.embed(patches)
    alone = torch.cat([model.embed(patch[None]) for patch in patches])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_embeddings_are_those_of_the_network_that_was_verified(model):
    found = embed(model, noise(4 * SAMPLE_RATE_HZ, seed=3)[0])
    assert found.shape == (1, EMBEDDING_SIZE)
    np.testing.assert_allclose(found[0, list(GOLDEN)], list(GOLDEN.values()), rtol=1e-3, atol=2e-3)
