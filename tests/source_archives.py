"""The source archives that the patches are made for, from the package index."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import make_patches
import pytest
from apply_patches import Version, identify, read_versions

ARCHIVES = {
    "acids-rave": ("2.3.1", "6c540c29280d24ff2f7c0e447f705d9b2aecbb563cddb2436906a90008ba503d"),
    "diffwave": ("0.1.7", "92d7828cff2bd5f3ea11672b67bb820ebfc8cecaeb75f4862e1fa2d4435569c5"),
}


def download(package: str, folder: Path) -> Path:
    """Return the source archive of a package, downloaded into a folder unless it is there.

    pip checks the hash before it runs anything of the archive. Skips the test where there is no
    archive to be had.
    """
    version, sha = ARCHIVES[package]
    archive = folder / f"{package}-{version}.tar.gz"
    if not archive.exists() or sha256(archive.read_bytes()).hexdigest() != sha:
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{package}=={version} --hash=sha256:{sha}\n")
        options = ["--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
        options += ["--retries=1", "--timeout=15", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "DO NOT MATCH THE HASHES" in done.stderr:
            pytest.fail(f"The source archive of {package} {version} is not the one known.")
        if done.returncode or not archive.exists():
            lines = done.stderr.strip().splitlines() or ["no archive"]
            pytest.skip(f"no source archive of {package} {version} to be had: {lines[-1]}")
    return archive


def fresh(package: str, config: pytest.Config, folder: Path) -> Path:
    """Unpack the source archive of a package into a folder, and return the tree."""
    assert config.cache
    return unpack(download(package, Path(config.cache.mkdir("upstream"))), folder)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source archive into a folder, and return the tree."""
    with tarfile.open(archive) as file:
        make_patches.unpack(file, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def git(folder: Path, *arguments: str | Path) -> str:
    """Run git in a folder, with a name to commit under, and return its output."""
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.invalid"]
    command = ["git", *who, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def version_of(tree: Path) -> Version:
    """Return the version of a tree that there are patches for."""
    package, label = identify(tree)
    return read_versions(str(package))[str(label)]


def commit_all(folder: Path) -> None:
    """Make a folder a git repository with one commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "Fresh")


def snapshot(folder: Path) -> dict[str, tuple[bytes | str | bool, int]]:
    """Return content and mode of every file but git's, and every folder."""
    files = (path for path in sorted(folder.rglob("*")) if ".git" not in path.parts)
    return {
        str(path.relative_to(folder)): (
            path.is_dir() or (os.readlink(path) if path.is_symlink() else path.read_bytes()),
            path.lstat().st_mode,
        )
        for path in files
    }
