"""What a power cut leaves.

A stand-in for a disk keeps what `os.fsync` was asked for: contents of files, and names in folders.
All else may be lost; what was written without it may be there as well.
"""

import contextlib
import errno
import os
import time

import pytest

from rave.files.atomic import atomic_folder, atomic_write, sync, write_json
from rave.jobs import journal as journal_module
from rave.jobs.journal import FolderLock, Journal
from rave.jobs.loop import process_files
from rave.trainer import _WholeFiles

pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders are synced on POSIX only")


class Disk:
    """What is safe on the disk."""

    def __init__(self, monkeypatch):
        self.contents, self.names, self.renamed = {}, {}, []
        self.check = lambda: None
        self._replace = os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, handle):
        self.check()
        inode = os.fstat(handle).st_ino
        try:
            names = os.listdir(handle)
        except NotADirectoryError:
            self.contents[inode] = os.pread(handle, 2**20, 0)
        else:
            self.names[inode] = {
                name: os.stat(name, dir_fd=handle, follow_symlinks=False).st_ino for name in names
            }

    def replace(self, source, target):
        self.renamed.append((target, self.holds(source)))
        self._replace(source, target)

    def holds(self, path):
        """Return whether all that a file or folder holds is safe."""
        inode = path.stat().st_ino
        if not path.is_dir():
            return self.contents.get(inode) == path.read_bytes()
        return all(self.has(each) for each in path.iterdir())

    def has(self, path):
        """Return whether a file or folder is safe, with its name."""
        names = self.names.get(path.parent.stat().st_ino, {})
        return self.holds(path) and names.get(path.name) == path.stat().st_ino


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def write_header(path):
    write_json(path, {"a": 1})


def write_checkpoint(path):
    _WholeFiles().save_checkpoint({"global_step": 3}, path)


def write_folder(path):
    with atomic_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("a")


@pytest.mark.parametrize("write", [write_header, write_checkpoint, write_folder])
def test_what_appears_by_rename_is_on_the_disk_before_and_its_name_after(write, disk, tmp_path):
    path = tmp_path / "new" / "name"
    write(path)
    assert disk.renamed == [(path, True)]
    assert disk.has(path)


def test_a_disk_that_fails_keeps_the_file_before(disk, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, "old")

    def fail(handle):
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="failed"):
        write_json(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == '"old"\n'


def test_a_file_system_that_cannot_sync_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "no such call here")

    monkeypatch.setattr(os, "fsync", refuse)
    sync([tmp_path])
    write_json(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == '"new"\n'


@pytest.mark.parametrize("every_s", [0.0, 1000.0])
def test_what_a_journal_names_is_on_the_disk_at_any_moment(every_s, disk, tmp_path, monkeypatch):
    """Its lines may be there before the system was asked to bring them onto the disk."""
    monkeypatch.setattr(journal_module, "SYNC_EVERY_S", every_s)
    out, moments = tmp_path / "out", []
    sources = {f"{folder}/{number}": tmp_path / "in" for folder in "ab" for number in range(3)}
    (tmp_path / "in").write_text("in")

    def check():
        moments.append(None)
        for name in sources:
            is_named = any(f'"name": "{name}"' in line for line in lines())
            if is_named and (out / name).exists():  # it is removed below
                assert disk.has(out / name)
                assert disk.has(out / f"{name}~1")

    def lines():
        path = out / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def work(name, source):
        for path in (out / name, out / f"{name}~1"):
            with atomic_write(path, is_durable=False) as temporary:
                temporary.write_text(f"{name} again {len(moments)}")
        return {}

    disk.check = check
    known = {name: {"others": [f"{name}~1"]} for name in sources}
    for _ in range(2):
        journal = Journal(out / "journal", {})
        process_files(
            sources, work, {name: name for name in sources}, journal, "Writing", dict, known=known
        )
        check()
        assert disk.has(out / "journal")
        assert len(lines()) == 1 + len(sources)
        for name in list(sources)[1:5]:
            (out / name).unlink()  # is made again


def test_a_journal_is_written_while_an_item_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "SYNC_EVERY_S", 0.01)
    journal = Journal(tmp_path / "journal", {})
    for name in "abc":
        journal.add(name, {})
    latest = time.monotonic() + 60
    while '"c"' not in journal.path.read_text() and time.monotonic() < latest:
        time.sleep(0.01)
    assert '"c"' in journal.path.read_text()
    journal.close()


def test_a_disk_that_fails_behind_the_work_ends_it(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "SYNC_EVERY_S", 0.01)
    journal = Journal(tmp_path / "journal", {})
    journal.add("a", {})

    def fail(handle):
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="failed"):
        while True:
            journal.add("b", {})
            time.sleep(0.01)
    with contextlib.suppress(OSError):
        journal.close()
    FolderLock(tmp_path).release()
