"""What reaches the terminal: names and headers of strangers are shown, and never obeyed."""

import logging
import sys

import pytest
from audio_files import noise, write
from tqdm import tqdm

from rave.api.result import Result
from rave.cli import command_parser, execute
from rave.jobs.loop import BatchReport
from rave.main_cli import main
from rave.parsing import CONTROL, escaped, escaping, one_line

# A title, an erased line, a clipboard, a C1 sequence, reversed text, a bell, a line begun anew.
ATTACK = (
    "\x1b]0;x\x07\x1b[2K\x1b]52;c;eA==\x1b\\\x9b1A\u202egnp\u2066\x7f\x08\rrave: done\nrave: done"
)


def run(work, *options):
    parser = command_parser("rave test", "Test.", "rave test")
    return execute(parser, work, list(options))


def shown(capsys):
    """Return stdout and stderr, which must hold nothing that a terminal obeys."""
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not CONTROL.search(text.replace("\r\n", "\n"))
        assert not any(line.startswith("rave: done") for line in text.splitlines())
    return out, err


def test_every_control_character_is_shown_and_none_of_a_name_ends_a_line():
    harmful = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    for char in map(chr, harmful):
        if char not in "\n\t":
            assert escaped(char).isascii()
            assert escaped(char).isprintable()
    for char in map(chr, range(0x3000)):
        assert len(one_line(f"a{char}b").splitlines()) == 1
    assert escaped("é ü 音\tx\n") == "é ü 音\tx\n"


@pytest.mark.parametrize("kind", [ValueError, lambda name: FileNotFoundError(2, "No file", name)])
def test_an_error_with_any_name_is_one_line(kind, capsys):
    def work(options):
        raise kind(f"'{ATTACK}'")

    assert run(work) == 2
    err = shown(capsys)[1]
    assert err.count("\n") == 1
    assert "\\x1b]52;c;eA==" in err
    assert run(work, "--verbose") == 2
    assert "Traceback" in capsys.readouterr().err


def test_warnings_and_summaries_with_any_name_are_lines_of_ours(capsys):
    report = BatchReport({"a": {"notes": [f"note {ATTACK}"]}}, skipped={ATTACK: f"bad {ATTACK}"})

    def work(options):
        return Result(report.summary("Done"), warnings={ATTACK: [f"it is {ATTACK}"]})

    assert run(work) == 0
    out, err = shown(capsys)
    assert out.count("\n") == 3
    assert err.count("\n") == 1


def test_what_is_printed_logged_or_drawn_meanwhile_is_shown(capsys):
    name = ATTACK.partition("\r")[0]

    def work(options):
        print(name, f"a\r{name}", file=sys.stderr)
        sys.stderr.writelines([name])
        logging.getLogger("rave.test").warning(name)
        with tqdm(total=2, desc=name, file=sys.stderr) as bar:
            bar.write(name, file=sys.stderr)
            bar.update()
        return Result(name)

    assert run(work) == 0
    out, err = capsys.readouterr()
    assert not CONTROL.search(out)
    assert "a\\r\\x1b]0;x" in err
    assert "\r" in err  # of the bar
    assert not CONTROL.search(err.replace("\r", ""))
    assert err.count("\\x1b]52;c;") >= 5


def test_a_traceback_that_ends_the_program_is_shown(capsys):
    def work(options):
        raise ZeroDivisionError(ATTACK)

    former = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError):
        run(work)
    sys.excepthook(ZeroDivisionError, ZeroDivisionError(ATTACK.partition("\r")[0]), None)
    sys.stdout, sys.stderr = former
    assert "\\x1b]52;" in shown(capsys)[1]


def test_the_command_line_itself_is_shown(capsys):
    assert main(["encode", ATTACK, "audio", "out"]) == 2
    assert "\\x1b]52;" in shown(capsys)[1]


def test_streams_are_as_before_after_a_command(capsys):
    former = sys.stdout, sys.stderr
    with escaping():
        assert sys.stderr.isatty() == former[1].isatty()
        assert sys.stderr.encoding == former[1].encoding
    assert (sys.stdout, sys.stderr) == former


def test_recordings_of_any_name_are_named_and_not_obeyed(tmp_path, capsys):
    name = ATTACK.replace("/", "_")
    write(tmp_path / "audio" / f"{name}.wav", 0 * noise(16000), 16000)
    (tmp_path / "audio" / f"{name}2.wav").write_bytes(b"RIFF")
    (tmp_path / "audio" / f"{name}3.wav").write_bytes(b"")
    words = ["preprocess", str(tmp_path / "audio"), str(tmp_path / f"out{name}")]
    assert main([*words, "--sample-rate", "16000"]) == 1
    out, err = capsys.readouterr()
    for text in (out, err.replace("\r", "")):
        assert not CONTROL.search(text)
        assert text.count("skipped \\x1b]0;x") == 2
    assert "silent \\x1b]0;x" in out
