"""Compare every model of acids-rave with ours, stage by stage, there and back.

    python -m benchmarks.upstream.compare WORK_DIR [--only v2 v1+causal …] [--table FILE.md]

Makes an environment in WORK_DIR/venv with acids-rave from the package index and its own pins
(Python 3.10 or 3.11), and prints the largest difference of each stage, relative to the largest
value:

- each model of the family, built there, tiny, with random weights, opened here;
- the same weights, trained two steps here on data that its `rave preprocess` made, exported, and
  opened there;
- the .ts files, streaming and not, that its `rave export` makes of it, opened here;
- runs that its `rave train` made, opened here, trained two steps here, and trained on there.

Exit code 1 if one is above 1e-3, or fails for a reason that acids-rave does not have itself. What
is there already is kept, so that the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from benchmarks.upstream import exports
from benchmarks.upstream.environment import FAMILY, make_environment, run_there
from benchmarks.upstream.stages import compare, largest
from benchmarks.upstream.training import TRAINED, around, make_datasets, train_here, written_back
from rave.api.result import Result
from rave.cli import command_parser, execute
from rave.files.atomic import atomic_write

BAR = 1e-3
KINDS = (
    *("v1", "v2", "v2_small", "v2_nopqmf", "v2_with_augs", "v3", "discrete", "discrete_v3"),
    *("v2+wasserstein", "v2+spherical", "hybrid", "v2+noise", "v2+snake", "v2+adain", "v2+causal"),
    *("v1+causal", "v2+causal+noise+snake", "onnx", "raspberry", "v2+spectral_discriminator"),
    *("v2+stereo", "v1+stereo"),
)
# Our recipes of another name, and what makes new runs of ours what acids-rave's are.
RECIPES = {"v2+wasserstein": "wasserstein", "v2+spherical": "spherical"}
SETTINGS = {
    "v2_small": ("noise.NoiseGenerator.overlaps=False", "noise.NoiseGenerator.is_causal=True"),
}
COLUMNS = (
    *("model", "filter bank", "latents", "any length", "decoder", "audio"),
    *("back: latents", "back: audio"),
    *(".ts: encode", "decode", "streaming: encode", "decode"),
)
# More that its `rave export` can do, with a v2.
FLAGS = {
    "export-fidelity": ("--fidelity=0.6",),
    "export-rate": ("--sr=88200",),
    "export-rate-streaming": ("--sr=88200", "--streaming"),
}
EXPORTED = ("`rave export` of acids-rave", "encode", "decode")
HEADS = (
    *("`rave train` of acids-rave", "opened here", "two steps here, opened there"),
    "two steps more there, opened here",
)
Row = list[str]


def parser() -> argparse.ArgumentParser:
    """Return the program's options."""
    options = command_parser(
        "compare_upstream.py",
        "Compare every model of acids-rave with ours, stage by stage, there and back.",
        "python -m benchmarks.upstream.compare upstream --table upstream/table.md",
    )
    options.add_argument("work", type=Path, metavar="WORK_DIR", help="for environment and runs")
    options.add_argument(
        "--only", nargs="+", metavar="NAME", default=(*KINDS, *FLAGS, *TRAINED), help="some rows"
    )
    options.add_argument("--table", type=Path, metavar="FILE.md", help="write the table there too")
    return options


class Comparison:
    """The comparisons of a work folder.

    Args:
        work: The folder.

    Attributes:
        notes: What acids-rave itself cannot do.
        num_failed: Comparisons above the bar or not possible here.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.python = make_environment(work / "venv")
        self.data = make_datasets(self.python, work / "data")
        self.notes: list[str] = []
        self.num_failed = 0

    def of_kind(self, kind: str) -> Row:
        """Return the row of a model of the family."""
        folder = self.work / "runs" / kind
        stages = folder / "stages.npz"
        self._build(kind, folder)
        opened = self._checked(compare(folder, stages))
        row = [kind, *(opened.get(name, "") for name in COLUMNS[1:6])]
        back = self._checked(self._back(kind, folder))
        row += [back["latents"], back["audio"]]
        for flags in ((), ("--streaming",)):
            row += self._exported(kind, folder, flags)
        return row

    def of_flags(self, name: str) -> Row:
        """Return the row of a way to export a v2."""
        flags, folder = FLAGS[name], self.work / "runs" / "v2"
        self._build("v2", folder)
        return [f"v2 {' '.join(flags)}", *self._exported("v2", folder, flags)]

    def of_trained(self, name: str) -> Row:
        """Return the row of a run that acids-rave trains."""
        run = TRAINED[name]
        folder = self.work / "trained" / name
        found = around(self.python, folder, run, self.data[run.dataset])
        checked = self._checked(dict(zip(HEADS[1:], found, strict=True)))
        words = " ".join((run.config, *run.flags))
        return [f"{words}, on its {run.dataset} LMDB", *checked.values()]

    def _build(self, kind: str, folder: Path) -> None:
        if not (folder / "stages.npz").exists():
            run_there(self.python, str(FAMILY), "build", kind, str(folder))

    def _exported(self, kind: str, folder: Path, flags: Sequence[str]) -> Row:
        try:
            made = exports.export(self.python, folder, folder / "ts", *flags)
        except ValueError as error:
            self.notes.append(f"`{' '.join(('export', *flags))}` of {kind}: {error}")
            return ["–", "–"]
        found = self._checked(exports.compare(made))
        return [found.get("encode", ""), found.get("decode", "")]

    def _back(self, kind: str, folder: Path) -> dict[str, float]:
        is_stereo = kind.endswith("+stereo")
        recipe = RECIPES.get(kind, kind.removesuffix("+stereo"))
        settings = ["CAPACITY=4", *SETTINGS.get(kind, ())]
        settings += [] if kind in RECIPES else ["LATENT_SIZE=8"]
        ours, back = (self.work / name / kind for name in ("ours", "back"))
        train_here(folder, recipe, settings, self.data["stereo" if is_stereo else "plain"], ours)
        return written_back(self.python, ours, back, 1 + is_stereo)

    def _checked(self, found: dict[str, float]) -> dict[str, str]:
        self.num_failed += not largest(found) <= BAR
        return {name: f"{value:.0e}" if value else "0" for name, value in found.items()}


def run(options: argparse.Namespace) -> Result:
    """Build, compare, and print the tables."""
    comparison = Comparison(options.work.absolute())
    ways: tuple[tuple[Sequence[str], Container[str], Callable[[str], Row]], ...] = (
        (COLUMNS, set(options.only) - {*FLAGS, *TRAINED}, comparison.of_kind),
        (EXPORTED, FLAGS, comparison.of_flags),
        (HEADS, TRAINED, comparison.of_trained),
    )
    tables, figures = [], dict[str, Row]()
    for heads, names, row_of in ways:
        rows = []
        for name in [name for name in options.only if name in names]:
            try:
                rows.append(row_of(name))
            except ValueError as error:
                rows.append([name, str(error)])
                comparison.num_failed += 1
            figures[name] = rows[-1][1:]
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        tables += [_table(heads, rows)] if rows else []
    text = "\n\n".join(tables)
    if comparison.notes:
        text += "\n\nWhat acids-rave itself cannot do:\n\n"
        text += "\n".join(f"- {note}" for note in comparison.notes)
    if options.table is not None:
        with atomic_write(options.table) as temporary:
            temporary.write_text(text + "\n")
    return Result(text, {"rows": figures, "notes": comparison.notes}, comparison.num_failed)


def _table(heads: Sequence[str], rows: list[Row]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
