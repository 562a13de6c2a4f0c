"""What every command does around its work."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from rave import cli as command
from rave.parsing import MAX_SEED

REPOSITORY = Path(__file__).resolve().parents[1]


def test_upstream_packages_of_the_same_import_name_are_named(tmp_path, monkeypatch, capsys):
    assert command.installed_upstream() == []
    folder = tmp_path / "acids_rave-2.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acids-rave\nVersion: 2.3.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    parser = command.command_parser("some", "Do some work.", "some")
    assert command.execute(parser, lambda _: command.Result("done"), []) == 0
    assert "'acids-rave' is also installed" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    code = (
        "from rave.cli import *\n"
        "work = lambda options: Result('a line\\n' * 100000)\n"
        "sys.exit(execute(command_parser('some', 'Do some work.', 'some'), work, []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("given", ["-5", str(2**32), "1.5", "x", "1" * 5000, ""])
def test_a_seed_out_of_bounds_is_refused_in_one_sentence(given, capsys):
    parser = argparse.ArgumentParser("some")
    command.add_seed(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([f"--seed={given}"])
    assert "is not a seed; give 0 to 4294967295\n" in capsys.readouterr().err
    assert parser.parse_args(["--seed", str(MAX_SEED)]).seed == 2**32 - 1
