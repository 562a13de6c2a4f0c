import errno
import json
import os
import subprocess
import sys

import pytest

from rave.files.atomic import (
    atomic_folder,
    atomic_write,
    check_output_folder,
    read_json,
    remove_partials,
    write_json,
)
from rave.files.errors import SkipFile
from rave.jobs.journal import FolderLock, Journal
from rave.jobs.loop import process_files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# atomic_write


def test_atomic_write_makes_folders_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "new" / "a.wav"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".wav"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_atomic_write_that_fails_keeps_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    write_json(path, "old")
    with pytest.raises(type(error)), atomic_write(path) as temporary:
        temporary.write_text("ha")
        raise error
    assert names(tmp_path) == ["a.json"]
    assert read_json(path, "a test") == "old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_and_a_folder_get_the_modes_of_the_umask_which_is_never_set(
    umask, tmp_path, monkeypatch
):
    former = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)  # of the whole process, so of other threads' files
            write_json(tmp_path / "file", "whole")
            with atomic_folder(tmp_path / "folder") as temporary:
                (temporary / "a").touch()
    finally:
        os.umask(former)
    for name, mode in (("file", 0o666), ("folder", 0o777)):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode & ~umask


def test_remove_partials_removes_what_a_kill_left(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".partial-x.wav").touch()
    (tmp_path / "a.wav").touch()
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a.wav", "sub"]
    assert not names(tmp_path / "sub")


def test_read_json_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r"'.*x\.json' does not exist, so '.*' is not a run"):
        read_json(tmp_path / "x.json", "a run")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"is not valid JSON .*, so it is not a run"):
        read_json(tmp_path / "x.json", "a run")


def test_output_inside_input_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for inside in (tmp_path, tmp_path / "sub", tmp_path / "sub" / ".." / "other"):
        with pytest.raises(ValueError, match="is inside the input folder"):
            check_output_folder(inside, tmp_path)
    with pytest.raises(ValueError, match="is a file; the output is a folder"):
        check_output_folder(tmp_path / "file", tmp_path / "sub")
    check_output_folder(tmp_path / "b", tmp_path / "a")
    check_output_folder(tmp_path, tmp_path / "a")


# Journal


def test_journal_remembers(tmp_path):
    path = tmp_path / "new" / "journal"
    journal = Journal(path, {"hop": 2048})
    assert journal.get("a") is None
    for name in ("a", "b ü\n"):
        journal.add(name, {"num_samples": 1})
    journal.add("a", {"num_samples": 2})
    journal.close()
    again = Journal(path, {"hop": 2048})
    assert again.names == ["a", "b ü\n"]
    assert again.get("a") == {"num_samples": 2}


def test_journal_survives_a_kill_after_any_byte(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {"hop": 2048})
    journal.add("a", {"num_samples": 1})
    journal.add("b", {"num_samples": 2})
    journal.close()
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        again = Journal(path, {"hop": 2048})
        assert again.get("b") in (None, {"num_samples": 2})
        again.add("c", {"num_samples": 3})
        again.close()
        last = Journal(path, {"hop": 2048})
        assert last.names == [*again.names]
        assert last.get("c") == {"num_samples": 3}
        last.close()


def test_journal_refuses_other_settings_unless_forced(tmp_path):
    path = tmp_path / "journal"
    Journal(path, {"hop": 2048, "rate": 1}).add("a", {})
    with pytest.raises(ValueError, match=r"other settings \(hop 2048, now 1024\)\. .*--force"):
        Journal(path, {"hop": 1024, "rate": 1})
    assert Journal(path, {"hop": 1024, "rate": 1}, force=True).names == []
    with pytest.raises(ValueError, match=r"hop 1024, now 2048"):  # forced at once, for good
        Journal(path, {"hop": 2048, "rate": 1})


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[]", b"{}", b"no"])
def test_damaged_journal_is_named_with_the_line(tmp_path, damage):
    path = tmp_path / "journal"
    Journal(path, {}).add("a", {})
    path.write_bytes(path.read_bytes() + damage + b"\n" + b'{"name": "b", "record": {}}\n')
    with pytest.raises(ValueError, match="damaged at line 3"):
        Journal(path, {})


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    first = Journal(tmp_path / "out" / "journal", {})
    first.add("a", {})
    for path in ("journal", "another"):
        with pytest.raises(ValueError, match=r"Another run is writing into '.*out'\. Wait"):
            Journal(tmp_path / "out" / path, {})
    first.close()
    assert Journal(tmp_path / "out" / "journal", {}).names == ["a"]


def test_a_writer_that_was_killed_holds_nothing(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from rave.jobs.journal import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another run is writing"):
            FolderLock(tmp_path)
        writer.kill()
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


# process_files


@pytest.fixture
def batch(tmp_path):
    """A folder of three text files, and a function that copies them through process_files."""
    sources = {name: tmp_path / "in" / name for name in ("a", "b", "c")}
    (tmp_path / "in").mkdir()
    for name, path in sources.items():
        path.write_text(name)
    worked = []

    def copy(name, source):
        worked.append(name)
        content = source.read_text()
        if content == "bad":
            raise SkipFile("it is bad")
        if content == "stop":
            raise KeyboardInterrupt
        write_json(tmp_path / "out" / name, content)
        return {"size": len(content)}

    def run():
        worked.clear()
        journal = Journal(tmp_path / "out" / "journal", {})
        report = process_files(sources, copy, {n: n for n in sources}, journal, "Copying", dict)
        return report, list(worked)

    return sources, run


def test_batch_does_no_work_twice(batch):
    _, run = batch
    report, worked = run()
    assert (report.num_done, worked) == (3, ["a", "b", "c"])
    report, worked = run()
    assert (report.num_done, report.num_unchanged, worked) == (0, 3, [])
    assert list(report.records) == ["a", "b", "c"]


def test_batch_does_again_what_changed_or_is_gone(batch, tmp_path):
    sources, run = batch
    run()
    sources["b"].write_text("changed")
    (tmp_path / "out" / "c").unlink()
    report, worked = run()
    assert worked == ["b", "c"]
    assert report.records["b"]["size"] == 7


def test_batch_names_and_counts_what_it_skips(batch, tmp_path, capsys):
    sources, run = batch
    sources["a"].write_text("bad")
    sources["b"].unlink()
    sources["loop"] = tmp_path / "in" / "loop"
    sources["loop"].symlink_to(sources["loop"])
    report, _ = run()
    assert list(report.records) == ["c"]
    assert report.figures["num_skipped"] == 3
    assert report.skipped["a"] == "it is bad"
    assert "skipped b: " in report.summary("Copied")
    assert report.summary("Copied").startswith("Copied 1 files, 0 unchanged, 3 skipped:\n")
    assert "skipped loop: " in capsys.readouterr().err


def test_batch_stops_at_an_error_that_is_not_the_source_s(batch, tmp_path):
    _, run = batch
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError):
        run()


def test_interrupted_batch_continues(batch, tmp_path):
    sources, run = batch
    sources["b"].write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        run()
    assert names(tmp_path / "out") == ["a", "journal"]
    sources["b"].write_text("b")
    report, worked = run()
    assert worked == ["b", "c"]
    assert json.loads((tmp_path / "out" / "a").read_text()) == "a"
    assert list(report.records) == ["a", "b", "c"]
