"""What every command does around its work."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from rave import command

REPOSITORY = Path(__file__).resolve().parents[1]


def test_upstream_packages_of_the_same_import_name_are_named(tmp_path, monkeypatch, capsys):
    assert command.installed_upstream() == []
    folder = tmp_path / "acids_rave-2.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acids-rave\nVersion: 2.3.1\n")
    found = [*metadata.distributions(), *metadata.distributions(path=[str(tmp_path)])]
    monkeypatch.setattr(command.metadata, "distributions", lambda: found)
    parser = command.command_parser("some", "Do some work.", "some")
    assert command.execute(parser, lambda _: command.Result("done"), []) == 0
    assert "'acids-rave' is installed here too" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    code = (
        "from rave.command import *\n"
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
