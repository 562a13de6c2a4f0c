"""Every command with a seed: the same makes the same, another makes another, and no folder is both.

Commands are found by their parsers: a new one fails until it stands in a table below.
"""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
from seeded import call, contents, make_places, parsers

SHORT = "--steps 3 --count 2 --seconds 0.5"
INPAINT = "--inpaint {latents}/a.npy --from 0.05 --to 0.1 --steps 3 --count 2"


@dataclass(frozen=True)
class Case:
    """A command that draws.

    Attributes:
        words: Its arguments; in braces what `make_places` made, and {out}.
        drawn: Pattern of the files that it draws.
        has_items: Whether these are of one input, and so should differ from each other.
    """

    words: str
    drawn: str
    has_items: bool = False


CASES = {
    "rave augment": [Case("{audio} {out} --semitones 0 0", "*~*.flac")],
    "rave encode": [Case("{codec} {audio} {out} --sample", "*.npy")],
    "rave decode": [Case("{codec} {latents} {out}", "*.wav")],
    "rave generate": [
        Case("{codec} {audio} {out}", "*.wav"),
        Case("{codec} {audio} {out} --sample", "*.npy"),
    ],
    "rave interpolate": [
        Case("{codec} {audio}/a.wav {audio}/sub/b.wav {out} --weight 0.5", "*.wav")
    ],
    "rave shard": [Case("{many} {out} --shard-mb 0.01", "*.tar")],
    "rave sample_prior": [Case("{prior} {out} --count 2 --seconds 0.1", "*.npy", True)],
    "diffwave inference": [
        Case("{diffusion} {out} " + SHORT, "*.npy", True),
        Case("{diffusion} {out} --sampler ddpm " + SHORT, "*.npy", True),
        Case("{diffusion} {out} --window 0.2 " + SHORT, "*.npy", True),
        Case("{diffusion} {out} --vary {latents}/a.npy --steps 3 --count 2", "*.npy", True),
        Case("{diffusion} {out} " + INPAINT, "*.npy", True),
        Case("{diffusion} {out} --continue {latents}/a.npy " + SHORT, "*.npy", True),
    ],
    "diffwave vocode": [
        Case("{vocoder} {out} --count 2 --seconds 0.02", "*.wav", True),
        Case("{follower} {out} --spectrogram {spectrograms} --fast", "*.wav"),
        Case("{follower} {out}/1.wav --spectrogram {spectrograms}/a.spec.npy --fast", "*.wav"),
    ],
}
ALL = [(command, case) for command, cases in CASES.items() for case in cases]
# These train; what of a training follows from the seed is looked at below.
TRAINERS = {"rave train", "rave train_prior", "diffwave train"}
# These measure; their figures follow from the seed.
MEASURES = {"rave evaluate", "diffwave evaluate", "diffwave diagnose", "diffwave experiments"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_places(tmp_path_factory.mktemp("places"))


def words_of(case, places, out, *more):
    return [word.format(out=out, **places) for word in (*case.words.split(), *more)]


def test_every_command_with_a_seed_is_looked_at():
    found = {name for name, parser in parsers() if "--seed" in parser.format_help()}
    assert found == set(CASES) | TRAINERS | MEASURES


@pytest.mark.parametrize(("command", "case"), ALL, ids=lambda each: getattr(each, "words", each))
def test_a_seed_makes_the_same_another_makes_another_and_no_folder_is_both(
    command, case, places, tmp_path, capsys
):
    for name, seed in (("one", "0"), ("other", "1")):
        words = words_of(case, places, tmp_path / name, "--seed", seed)
        assert call(command, words) == 0, capsys.readouterr().err
    one, other = (contents(tmp_path / name) for name in ("one", "other"))
    drawn = contents(tmp_path / "one", case.drawn)
    assert drawn
    for name, content in drawn.items():
        assert content != other[name], name
    if case.has_items:
        assert len(set(drawn.values())) == len(drawn) > 1
    words = words_of(case, places, tmp_path / "one", "--seed", "1")
    assert call(command, words) == 2
    assert re.search(r"seed 0, now 1|already holds|not empty|exists", capsys.readouterr().err)
    assert contents(tmp_path / "one") == one
    assert call(command, [*words, "--force"]) == 0
    assert contents(tmp_path / "one") == other


@pytest.mark.parametrize(
    ("command", "case"),
    [(command, case) for command, case in ALL if case.has_items],
    ids=lambda each: getattr(each, "words", each),
)
def test_an_item_is_the_same_however_many_there_are(command, case, places, tmp_path):
    for name, more in (("two", ()), ("one", ("--count", "1"))):
        assert call(command, words_of(case, places, tmp_path / name, *more)) == 0
    (only,) = contents(tmp_path / "one", case.drawn)
    read = np.load if only.endswith(".npy") else lambda path: soundfile.read(path)[0]
    one, first = (read(tmp_path / name / only) for name in ("one", "two"))
    np.testing.assert_allclose(one, first, atol=1e-4)
