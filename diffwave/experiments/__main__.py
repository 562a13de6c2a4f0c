# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.experiments`: the diary's experiments, on any latents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import LATENTS, add_seed, command_parser, execute
from rave.parsing import existing

if TYPE_CHECKING:
    from diffwave.experiments.recipe import Experiment, Scale


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.experiments",
        "Repeat the experiments of the diary on your latents: each with its faulty model and with "
        "ours,\nbeside the prediction of closed form. Writes a page, a table and JSON.\n"
        "The same command again continues; several at once share the work.",
        "python -m diffwave.experiments latents results --spectrograms spectrograms --all",
    )
    options.add_argument(
        "latents",
        type=existing(LATENTS),
        nargs="?",
        metavar="LATENTS",
        help="folder of rave encode",
    )
    options.add_argument("out", type=Path, nargs="?", metavar="OUT", help="folder of the results")
    options.add_argument(
        "--spectrograms",
        type=existing("what diffwave.preprocess wrote"),
        metavar="DIR",
        help="folder of diffwave.preprocess; without it experiments on conditions are left out",
    )
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("--list", action="store_true", help="list all experiments and stop")
    which.add_argument("--run", nargs="+", metavar="NAME", help="run these")
    which.add_argument("--all", action="store_true", help="run all: about half an hour of one core")
    which.add_argument(
        "--quick", action="store_true", help="run a few, with fewer steps: under five minutes"
    )
    options.add_argument(
        "--threads", type=int, default=1, help="CPU threads of this process (default 1)"
    )
    add_seed(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Run the chosen experiments and write the page."""
    if not options.list and (options.latents is None or options.out is None):
        raise ValueError("LATENTS and OUT are needed: folders of latents and of results.")
    if options.threads < 1:
        raise ValueError(f"--threads is {options.threads}; at least 1 is needed.")
    from diffwave.experiments.catalogue import QUICK_NAMES, catalogue
    from diffwave.experiments.recipe import FULL, QUICK

    scale = QUICK if options.quick else FULL
    experiments = catalogue(scale, options.seed)
    if options.list:
        return _listed(experiments)
    names = [each.name for each in experiments]
    if options.run:
        unknown = sorted(set(options.run) - set(names))
        if unknown:
            raise ValueError(
                f"Unknown experiment {', '.join(map(repr, unknown))}. "
                f"Choose from: {', '.join(names)}."
            )
        names = options.run
    elif options.quick:
        names = list(QUICK_NAMES)
    import torch

    torch.set_num_threads(options.threads)
    return perform(
        options.latents, options.out, options.spectrograms, experiments, names, scale, options.seed
    )


def _listed(experiments: list[Experiment]) -> Result:
    width = max(len(each.name) for each in experiments)
    lines = []
    for each in experiments:
        needs = " (needs --spectrograms)" if each.needs_spectrograms else ""
        lines.append(f"{each.name:{width}}  {each.title}, {len(each.runs)} trainings{needs}")
        lines += [f"{'':{width}}    diary: {line}" for line in each.lines]
    figures = [
        {"name": each.name, "title": each.title, "diary": list(each.lines)} for each in experiments
    ]
    return Result("\n".join(lines), {"experiments": figures})


def perform(
    latents: Path,
    out: Path,
    spectrograms: Path | None,
    everything: list[Experiment],
    names: Sequence[str],
    scale: Scale,
    seed: int = 0,
) -> Result:
    """Run experiments and write the page of all results in the folder.

    Args:
        latents: A latent folder.
        out: Folder of the results.
        spectrograms: Spectrograms of the same audio, or None.
        everything: The catalogue at `scale` and `seed`.
        names: Names of the experiments to run.
        scale: How much work they are.
        seed: Seed of the catalogue.
    """
    import time

    from diffwave.experiments.data import read_data
    from diffwave.experiments.diary_model import NUM_MELS
    from diffwave.experiments.laboratory import Laboratory
    from diffwave.experiments.page import write_pages
    from rave.files.atomic import check_output_folder, read_json

    check_output_folder(out, latents, spectrograms)
    experiments = [each for each in everything if each.name in names]
    left_out = [
        each.name for each in experiments if each.needs_spectrograms and spectrograms is None
    ]
    experiments = [each for each in experiments if each.name not in left_out]
    start = time.monotonic()

    def report(text: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {text}", file=sys.stderr, flush=True)

    data = read_data(latents, spectrograms, scale.max_clips)
    if (header := data.spectrogram_header) is not None and header.num_mels != NUM_MELS:
        raise ValueError(
            f"'{spectrograms}' has {header.num_mels} mel bands; the diary's conditioner reads "
            f"{NUM_MELS}. Make it again with diffwave.preprocess --mels {NUM_MELS}."
        )
    measured = [run for each in everything for run in each.more]
    laboratory = Laboratory(out, data, scale, seed, report, measured)
    laboratory.work(experiments)
    page = write_pages(out, [each.texts for each in everything])
    results: list[dict[str, Any]] = [
        read_json(laboratory.result_path(each), "a result") for each in experiments
    ]
    rows = [(result["name"], row) for result in results for row in result["rows"]]
    bars = [(name, row) for name, row in rows if row["passed"] is not None]
    missed = [f"{name}: {row['label']}" for name, row in bars if not row["passed"]]
    lines = [
        f"{len(results)} experiments, {len(rows)} rows. {len(bars) - len(missed)} of {len(bars)} "
        f"predicted losses are met within 0.02{'.' if not missed else '; missed:'}",
        *(f"  {label}" for label in missed),
    ]
    if left_out:
        lines.append(f"Left out without --spectrograms: {', '.join(left_out)}.")
    lines.append(f"{page}")
    figures = {
        "page": str(page),
        "experiments": [result["name"] for result in results],
        "left_out": left_out,
        "bars": len(bars),
        "missed": missed,
    }
    return Result("\n".join(lines), figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
