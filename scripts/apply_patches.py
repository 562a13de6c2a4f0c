"""Apply the patches of this repository to a fresh clone of acids-ircam/RAVE or lmnt-com/diffwave.

Needs git and Python 3.10 or newer; nothing is installed, built or downloaded.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import hashlib
import itertools
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EXIT_ERROR, EXIT_INTERRUPTED = 2, 130
PATCHES = Path(__file__).resolve().parent.parent / "patches"
STAGING = ".rave-diffwave-"
UNPATCHED, PATCHED, HALF, CHANGED = "unpatched", "patched", "half patched", "changed"
CRLF = "Windows line endings"
MAX_FILE_BYTES = 2**20  # largest size of a file; the largest that a patch edits has 36 KB
VERSION = r"^[ \t]*(?:__)?version(?:__)?[ \t]*=[ \t]*['\"]([^'\"]+)"
NAME = r"\bname[ \t]*=[ \t]*['\"]([^'\"]+)"
NEXT = {
    "acids-rave": """\
rave preprocess --input_path AUDIO --output_path DATASET
rave train --name NAME --db_path DATASET
rave encode --model runs/NAME_… --input AUDIO --out_path LATENTS --spectrograms SPECTROGRAMS
rave decode --model runs/NAME_… --input LATENTS --out_path DECODED""",
    "diffwave": """\
python -m diffwave.train MODEL LATENTS --spectrograms SPECTROGRAMS
python -m diffwave.inference MODEL -o GENERATED --count 4 --seconds 10""",
}


@dataclass(frozen=True)
class Version:
    """One version of an upstream package that has patches."""

    name: str  # package and version number
    source: str  # where to get it
    series: list[Path]
    before: dict[str, str]  # SHA-256 of every file that the series edits or deletes, by path
    after: dict[str, str]  # the same of every file that it edits or adds


def read_series(path: Path) -> list[Path]:
    """Return the patch files that a series lists."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [path.parent / line for line in lines if line]


def read_versions(package: str) -> dict[str, Version]:
    """Return the versions of a package that have patches, by number."""
    versions = {}
    for path in PATCHES.glob("*/BASE"):
        base = configparser.ConfigParser(interpolation=None, delimiters=("=",))
        base.optionxform = str  # type: ignore[method-assign,assignment]  # paths have capitals
        base.read_string(path.read_text("utf-8"), str(path))
        is_asked = base["upstream"]["package"] == package
        for label in [title for title in base if is_asked and f"{title} before" in base]:
            series = read_series(path.parent / base[label]["series"])
            commit, url = base[label].get("commit", "")[:12], base["upstream"]["url"]
            source = f"{url} at commit {commit}" if commit else "the package index's source archive"
            files = (dict(base[f"{label} {when}"]) for when in ("before", "after"))
            versions[label] = Version(f"{package} {label}", source, series, *files)
    return versions


def content_of(path: Path) -> bytes | None:
    """Return the content of a file, None if there is none.

    Raises:
        ValueError: If it is a link, a device or a pipe, which may be endless, or larger than any
            file of the trees.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**20
        raise ValueError(f"'{path}' is not an ordinary file of at most {limit} MiB.")
    return path.read_bytes()


def find(folder: Path, pattern: str, regex: str) -> str | None:
    """Return the group of a regex in the files of a folder that match a pattern, None if none."""
    contents = [content_of(path) or b"" for path in sorted(folder.glob(pattern))]
    text = b"\n".join(contents).decode("utf-8", errors="replace").replace("\r\n", "\n")
    found = re.search(regex, text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None


def identify(folder: Path) -> tuple[str | None, str | None]:
    """Return package and version of a source folder; None for what it does not state."""
    versions = [find(folder, pattern, VERSION) for pattern in ("setup.py", "*/version.py")]
    return find(folder, "setup.py", NAME), versions[0] or versions[1]


def digest(path: Path, crlf: bytes = b"\r\n") -> str | None:
    """Return the SHA-256 of a file, as if `crlf` stood for CRLF in it; None if there is none."""
    content = content_of(path)
    return None if content is None else hashlib.sha256(content.replace(b"\r\n", crlf)).hexdigest()


def run_git(folder: Path, *arguments: str | Path) -> bytes:
    """Run git in a folder, without the repository around it and the user's settings.

    Raises:
        ValueError: If git is not installed or refuses; the message is git's.
    """
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.resolve().parent)
    command = ["git", "-c", "core.autocrlf=false", *map(str, arguments)]
    if not shutil.which("git"):
        raise ValueError("git is needed and was not found. Install it from git-scm.com.")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise ValueError(f"git {arguments[0]} … {Path(arguments[-1]).name} failed: {message}")
    return done.stdout


def apply_series(
    folder: Path, series: Sequence[Path], only: Iterable[str] = (), *, reverse: bool = False
) -> None:
    """Apply or remove patches in a folder; to the paths `only`, or to all if it is empty."""
    options = ["--whitespace=nowarn", *(f"--include={path}" for path in only)]
    options += ["--reverse"] * reverse
    with tempfile.TemporaryDirectory() as name:
        for patch in reversed(series) if reverse else series:
            copy = Path(name) / patch.name  # with the original line endings
            copy.write_bytes(patch.read_bytes().replace(b"\r\n", b"\n"))
            run_git(folder, "apply", *options, copy)


def locate(folder: Path) -> Version:
    """Return the version of an upstream that a folder holds.

    Raises:
        ValueError: If there are no patches for it.
    """
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is no folder. Give a clone or an unpacked archive.")
    package, label = identify(folder)
    versions = read_versions(package or "")
    if not versions:
        found = f"the source of '{package}'" if package else "no source of a package (no setup.py)"
        raise ValueError(f"'{folder}' is {found}. Give a clone of {' or '.join(NEXT)}.")
    if label not in versions:
        found = f"{package} {label}" if label else f"{package} of unknown version"
        known = "; ".join(f"{name} ({version.source})" for name, version in versions.items())
        raise ValueError(f"'{folder}' is {found}. Patches exist for {known}. Give one of these.")
    return versions[label]


def state_of(folder: Path, version: Version) -> tuple[str, dict[str, str]]:
    """Return the state of a tree, and the fault of each file that is neither old nor new."""
    found, wrong = set(), {}
    for path in sorted({**version.before, **version.after}):
        file, before, after = folder / path, version.before.get(path), version.after.get(path)
        if any(p.is_symlink() for p in (file, *file.parents) if folder in p.parents):
            wrong[path] = "a symbolic link"
        elif file.exists() and not file.is_file():
            wrong[path] = "a folder" if file.is_dir() else "no ordinary file"
        elif (sha := digest(file)) in (before, after):
            found.add(UNPATCHED if sha == before else PATCHED)
        elif sha and digest(file, b"\n") in (before, after):
            wrong[path] = CRLF
        else:
            wrong[path] = "missing" if not sha else "changed" if before else "in the way"
    return CHANGED if wrong else HALF if len(found) > 1 else found.pop(), wrong


def check_state(folder: Path, version: Version, *, reverse: bool) -> str:
    """Return the state of a tree that can be patched, or reversed.

    Raises:
        ValueError: If it has local changes, or there is nothing to do.
    """
    state, wrong = state_of(folder, version)
    tree = f"'{folder}' ({version.name})"
    if wrong:
        files = ", ".join(f"{path} ({what})" for path, what in wrong.items())
        fresh = "git clone -c core.autocrlf=false" if CRLF in wrong.values() else version.source
        remedy = f"Undo them, or give a fresh tree ({fresh})."
        raise ValueError(f"{tree} has local changes in files of the patches: {files}. {remedy}")
    if state == (UNPATCHED if reverse else PATCHED):
        remedy = "there is nothing to reverse" if reverse else "--reverse removes the patches"
        raise ValueError(f"{tree} is {'not' if reverse else 'already'} patched; {remedy}.")
    return state


def change(folder: Path, version: Version, *, reverse: bool = False) -> list[str]:
    """Patch a tree, or remove the patches, all files or none; return the paths that changed.

    Works on a copy of the files that still have to change, checks it and moves it into place. So
    after a kill the next run finishes the change, or undoes it.

    Raises:
        ValueError: If a patched file is not what BASE states.
        OSError: If a file cannot be written.
    """
    origin, goal = (version.before, version.after)[:: -1 if reverse else 1]
    todo = [
        path
        for path in sorted({**version.before, **version.after})
        if digest(folder / path) != goal.get(path)
    ]
    for file in (folder / path for path in todo if path in origin):
        if not os.access(file, os.W_OK):
            raise PermissionError(13, "No permission to write", str(file))
    for leftover in folder.glob(f"{STAGING}*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=folder) as staging:
        new, old = Path(staging, "new"), Path(staging, "old")
        for copy, path in itertools.product((new, old), todo):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            if path in origin:
                shutil.copy2(folder / path, copy / path)
        apply_series(new, version.series, todo, reverse=reverse)
        for path in todo:
            if digest(new / path) != goal.get(path):
                raise ValueError(f"The patches do not make '{path}' as in BASE. Nothing was done.")
            if path in origin and path in goal:
                shutil.copymode(old / path, new / path)
        try:
            move(new, folder, todo, goal)
        except BaseException as error:
            with contextlib.suppress(OSError):
                move(old, folder, todo, origin)
            if any(digest(folder / path) != origin.get(path) for path in todo):
                raise ValueError(f"Stopped halfway: {error}. Fix this and run again.") from error
            raise
    return todo


def move(source: Path, folder: Path, paths: Iterable[str], kept: Mapping[str, str]) -> None:
    """Move the `kept` files into a folder; delete the others, and folders that become empty."""
    for path in paths:
        target = folder / path
        if path in kept:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / path, target)
            continue
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            while (target := target.parent) != folder:
                target.rmdir()


def run(options: argparse.Namespace) -> str:
    """Run the chosen action and return the text to print."""
    folder, version = options.tree, locate(options.tree)
    name, series = version.name, version.series
    if options.list:
        state, wrong = state_of(folder, version)
        lines = [f"'{folder}' is {name}, {state}", *(f"  {p}: {wrong[p]}" for p in wrong)]
        for patch in series:
            subject = find(patch.parent, patch.name, r"^Subject: \[PATCH\] (.*(?:\n .*)*)") or ""
            lines.append(f"{patch.name[:4]} {' '.join(subject.split())}")
        return "\n".join(lines)
    state = check_state(folder, version, reverse=options.reverse)
    if options.check:
        return f"'{folder}' is {name}, {state}; the {len(series)} patches would apply."
    changed = change(folder, version, reverse=options.reverse)
    edited, added = ("restored", "removed") if options.reverse else ("edited", "added")
    done = "\n".join(f"{edited if p in version.before else added:9}{p}" for p in changed)
    if options.reverse:
        return f"{done}\n'{folder}' is {name} without the patches again."
    return f"""{done}
'{folder}' is {name} with {len(series)} patches. Next, in an environment without rave-diffwave,
which has the same import names (a torch that is installed stays):

python -m pip install {shlex.quote(str(folder.resolve()))}
{NEXT[name.split()[0]]}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="apply_patches",
        description="Patch a clone of acids-ircam/RAVE or lmnt-com/diffwave, all files or none.",
        epilog="example:\n  python scripts/apply_patches.py ../RAVE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tree", type=Path, metavar="PATH_TO_CLONE", help="clone, or unpacked archive"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only report whether they apply")
    what.add_argument("--reverse", action="store_true", help="remove the patches")
    what.add_argument("--list", action="store_true", help="list the patches and the tree's state")
    try:
        summary = run(parser.parse_args(arguments))
    except KeyboardInterrupt:
        print("apply_patches: interrupted; --list shows the state.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            error = ValueError(f"{error.strerror} ('{error.filename}'). Nothing was changed.")
        print(f"apply_patches: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
