"""Write `patches/<name>` from a clone of an upstream with one commit for each patch.

Run again with the same arguments, it writes the same bytes.

Example:
    python scripts/make_patches.py ../diffwave rave-diffwave 0.1.7=../diffwave-0.1.7:series-0.1.7
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apply_patches import PATCHES, apply_series, digest, identify, read_series, run_git

UPSTREAMS = {
    "acids-rave": ("acids-rave", "https://github.com/acids-ircam/RAVE", "CC BY-NC 4.0"),
    "diffwave": ("lmnt-diffwave", "https://github.com/lmnt-com/diffwave", "Apache-2.0"),
}
FORMAT = [
    *("-U1", "--zero-commit", "--no-signature", "--no-numbered", "--full-index", "--no-renames"),
    *("--no-color", "--no-ext-diff", "--no-textconv", "--diff-algorithm=myers"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
]


@dataclass
class Tree:
    """A version of an upstream: its unpatched files, and the list of its patches."""

    label: str
    folder: Path
    series: str = "series"
    commit: str = ""


def parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        prog="make_patches.py",
        description="Write patches/<name>: the patch files, the list 'series', and BASE, which has "
        "the SHA-256 of every affected file before and after. Patch files in no list are removed.",
        epilog=f"example:\n  {(__doc__ or '').strip().splitlines()[-1].strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clone", type=Path, help="clone of an upstream")
    parser.add_argument(
        "branch",
        nargs="?",
        default="rave-diffwave",
        help="branch with one commit per patch since origin/HEAD, or a range "
        "BASE..BRANCH (default rave-diffwave)",
    )
    parser.add_argument(
        "trees",
        nargs="*",
        metavar="LABEL=FOLDER[:SERIES]",
        help="another version: unpacked source archive, and its own list of patches, if it has "
        "one; patches named *.LABEL.patch are edited by hand",
    )
    return parser


def format_patches(clone: Path, base: str, branch: str) -> dict[str, bytes]:
    """Return the patch files of a range of commits, by name, in order.

    Raises:
        ValueError: If the range is empty or has a merge.
    """
    between = f"{base}..{branch}"
    if not run_git(clone, "rev-list", between):
        raise ValueError(f"'{clone}' has no commits in {between}. Make one commit per patch.")
    if run_git(clone, "rev-list", "--merges", between):
        raise ValueError(f"'{clone}' has merges in {between}. Rebase the branch onto {base}.")
    with tempfile.TemporaryDirectory() as out:
        run_git(clone, "format-patch", *FORMAT, "--output-directory", out, between)
        return {path.name: path.read_bytes() for path in sorted(Path(out).iterdir())}


def hashes(tree: Tree, patches_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the SHA-256 of every affected file, by path, before and after a tree is patched."""
    series = read_series(patches_dir / tree.series)
    paths: set[str] = set()
    for patch in series:
        lines = run_git(patches_dir, "apply", "--numstat", "-z", patch).decode().split("\0")
        paths |= {line.split("\t")[2] for line in lines if line}
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for path in paths:
            if (tree.folder / path).exists():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tree.folder / path, copy / path)
        before = {path: digest(copy / path) for path in sorted(paths)}
        try:
            apply_series(copy, series)
        except ValueError as error:
            raise ValueError(f"Version {tree.label}: {error}") from error
        after = {path: digest(copy / path) for path in sorted(paths)}
    changed = [path for path in before if before[path] != after[path]]
    return (
        {path: sha for path in changed if (sha := before[path])},
        {path: sha for path in changed if (sha := after[path])},
    )


def base_file(
    package: str, trees: Sequence[Tree], found: Sequence[tuple[dict[str, str], dict[str, str]]]
) -> str:
    """Return the text of BASE from the `hashes` of each tree."""
    name, url, licence = UPSTREAMS[package]
    upstream = {"name": name, "url": url, "licence": licence, "package": package}
    sections: dict[str, dict[str, str]] = {"upstream": upstream}
    for tree, (before, after) in zip(trees, found, strict=True):
        commit = {"commit": tree.commit} if tree.commit else {}
        sections[tree.label] = {**commit, "series": tree.series}
        sections[f"{tree.label} before"], sections[f"{tree.label} after"] = before, after
    blocks = (
        "\n".join([f"[{title}]", *(f"{key} = {value}" for key, value in items.items())])
        for title, items in sections.items()
    )
    return "\n\n".join(["# Made by scripts/make_patches.py.", *blocks]) + "\n"


def check_result(clone: Path, branch: str, after: dict[str, str]) -> None:
    """Check that patched files equal those of the branch, byte for byte."""
    for path, sha in after.items():
        if hashlib.sha256(run_git(clone, "show", f"{branch}:{path}")).hexdigest() != sha:
            raise ValueError(f"The patches do not make '{path}' of {branch}. Is it binary?")


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive into a folder; safely since Python 3.11.4, which brought filters."""
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    for member in archive.getmembers():
        member.mode &= ~0o022  # as the filter does
    archive.extractall(folder)


def make(clone: Path, branch: str, others: Sequence[str]) -> Path:
    """Write the folder of patches of an upstream, and return it.

    Raises:
        ValueError: If the upstream is unknown, or a patch does not apply to a tree; the folder is
            then unchanged.
    """
    base, dots, branch = branch.rpartition("..")
    if not dots:
        base = run_git(clone, "merge-base", "origin/HEAD", branch).decode().strip()
    base = run_git(clone, "rev-parse", f"{base}^{{commit}}").decode().strip()
    patches = format_patches(clone, base, branch)
    with tempfile.TemporaryDirectory() as name:
        unpatched, out = Path(name) / "tree", Path(name) / "patches"
        with tarfile.open(fileobj=io.BytesIO(run_git(clone, "archive", base))) as archive:
            unpack(archive, unpatched)
        package, version = identify(unpatched)
        if package not in UPSTREAMS or not version:
            raise ValueError(f"'{clone}' is a clone of {package}, not of {' or '.join(UPSTREAMS)}.")
        trees = [Tree(version, unpatched, commit=base)]
        for text in others:
            label, _, rest = text.partition("=")
            folder, _, series = rest.partition(":")
            trees.append(Tree(label, Path(folder), series or "series"))
        target = PATCHES / UPSTREAMS[package][0]
        out.mkdir()
        for path in target.glob("*"):
            by_hand = any(path.name.endswith(f".{tree.label}.patch") for tree in trees)
            if path.suffix != ".patch" or by_hand:
                shutil.copy(path, out)
        for file_name, content in patches.items():
            (out / file_name).write_bytes(content)
        (out / "series").write_text("".join(f"{file_name}\n" for file_name in patches))
        unused = {p.name for p in out.glob("series*")} - {tree.series for tree in trees}
        if unused:
            raise ValueError(
                f"No version uses {', '.join(sorted(unused))} in '{target}'. "
                "Add LABEL=FOLDER:SERIES, or delete the list."
            )
        found = [hashes(tree, out) for tree in trees]
        (out / "BASE").write_text(base_file(package, trees, found))
        check_result(clone, branch, found[0][1])
        listed = {path.name for tree in trees for path in read_series(out / tree.series)}
        target.mkdir(parents=True, exist_ok=True)
        for path in target.glob("*.patch"):
            if path.name not in listed:
                path.unlink()
        for path in out.iterdir():
            if path.suffix != ".patch" or path.name in listed:
                (target / path.name).write_bytes(path.read_bytes())
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the patches and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        target = make(options.clone, options.branch, options.trees)
    except (ValueError, OSError) as error:
        print(f"make_patches.py: error: {error}", file=sys.stderr)
        return 2
    for path in read_series(target / "series"):
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
