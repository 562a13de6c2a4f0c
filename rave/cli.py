"""Parts that all commands share: options, errors, exit codes, and figures as JSON.

Exit codes: 0 all done; 1 done, but some files were skipped (each is named); 2 bad input, no
half-written files; 130 interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.compute.launch import is_first
from rave.compute.memory import keep_freed_memory
from rave.parsing import (
    COMPLETING,
    EXIT_ERROR,
    MAX_SEED,
    LinesError,
    Parser,
    add_version,
    device_name,
    escaping,
    one_line,
    one_of,
    seed,
)

if TYPE_CHECKING:
    from rave.jobs.loop import Engine

EXIT_SKIPPED, EXIT_INTERRUPTED = 1, 130
COMMON = ("json", "verbose", "version")  # options of every command line
ENGINE = ("engine", "address", "cpus_per_worker")
AUDIO_FOLDER = "a folder of audio files"
RAVE_RUN = "a run folder of `rave train` or of acids-rave"
CODEC = f"{RAVE_RUN}, or a .ts file"
DIFFUSION_RUN = "a run folder of `diffwave.train`"
LATENTS = "a folder that `rave encode` wrote"


def command_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all commands share; its help ends with an example."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--verbose", action="store_true", help="print a traceback with an error")
    add_version(parser)
    return parser


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed", type=seed, default=0, help=f"random seed, 0 to {MAX_SEED} (default 0)"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default auto)",
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add `--devices` and `--nodes`, for commands that train."""
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="GPUs (or processes on the CPU) of each node that share each batch (default 1)",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="nodes that share each batch; each runs this command (default 1)",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--ema` and `--derivative`, which a run of acids-rave does not state."""
    parser.add_argument(
        "--ema", action="store_true", help="use the averaged (EMA) weights of a run of acids-rave"
    )
    parser.add_argument(
        "--derivative",
        action="store_true",
        help="the codec was trained on the derivative of audio (acids-rave's train --derivative): "
        "differentiate before encoding, integrate after decoding",
    )


def add_level(parser: argparse.ArgumentParser) -> None:
    """Add `--match-level`, for commands that encode audio."""
    parser.add_argument(
        "--match-level",
        action="store_true",
        help="bring audio to the level of the codec's training audio, and undo the gain after "
        "decoding",
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add `--as-encoded`, `--codec-rate`, `--shift`, `--scale`, for commands that decode files."""
    parser.add_argument(
        "--as-encoded",
        action="store_true",
        help="decode uninformative dimensions as stored, as acids-rave does, instead of as the "
        "noise that the decoder was trained on",
    )
    parser.add_argument(
        "--codec-rate",
        action="store_true",
        help="write at the codec's sample rate instead of each source's",
    )
    for option, what in (
        ("--shift", "add VALUE to the latents along principal axis AXIS (0: largest variance)"),
        ("--scale", "multiply the latents' distance from their mean along AXIS by VALUE"),
    ):
        parser.add_argument(
            option,
            action="append",
            default=[],
            metavar="AXIS=VALUE",
            help=f"bend: {what} (may be repeated)",
        )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend` and `--precision`."""
    parser.add_argument(
        "--backend",
        **one_of("backend", ("auto", "torch", "openvino")),
        default="auto",
        help="torch; openvino: faster on a CPU, needs the extra [fast]; auto: openvino if it is "
        "installed and the model is large (default auto)",
    )
    parser.add_argument(
        "--precision",
        **one_of("precision", ("float32", "bfloat16")),
        default="float32",
        help="float32; bfloat16: faster on processors that support it, and a little less exact "
        "(default float32)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`, `--address` and `--cpus-per-worker`: what processes the files."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: this process; ray: all cores of this machine or of a Ray cluster, needs the "
        "extra [ray] (default local)",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="address of a running Ray cluster that this machine is part of: auto or HOST:PORT "
        "(default: start Ray on this machine)",
    )
    parser.add_argument(
        "--cpus-per-worker", type=int, metavar="N", help="cores per Ray worker (default 1)"
    )


def open_engine(
    name: str, address: str | None, cpus_per_worker: int | None, device: str = "cpu"
) -> Engine:
    """Return the engine that processes files.

    Args:
        name: local or ray.
        address: Address of a running Ray cluster; None: start Ray on this machine.
        cpus_per_worker: Cores per Ray worker; None: 1.
        device: Device that the work computes on; if it is a GPU, each worker gets one.

    Raises:
        ValueError: If Ray is not installed or reached, or options contradict each other.
    """
    if name == "local":
        for option, value in (("--address", address), ("--cpus-per-worker", cpus_per_worker)):
            if value is not None:
                raise ValueError(
                    f"{option} works only with --engine ray. Add it, or leave {option} out."
                )
        from rave.jobs.loop import LocalEngine

        return LocalEngine()
    from rave.compute.device import choose_device
    from rave.jobs.ray_engine import RayEngine

    needs_gpu = choose_device(device).type == "cuda"
    return RayEngine(
        address, 1 if cpus_per_worker is None else cpus_per_worker, needs_gpu=needs_gpu
    )


def keywords(options: argparse.Namespace, **overrides: Any) -> dict[str, Any]:
    """Return the options of a command as keyword arguments of its API function.

    Args:
        options: The parsed options.
        overrides: Arguments that replace options or, as the engine does, stand for several.
    """
    kept = {n: value for n, value in vars(options).items() if n not in {*COMMON, *ENGINE}}
    return kept | overrides


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--set` and `--dry-run`, for commands that read a recipe."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value of the recipe, e.g. MAX_STEPS=5000 (may be repeated)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that all training commands share."""
    add_settings(parser)
    add_seed(parser)
    add_device(parser)
    add_processes(parser)


def execute(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], Result],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, do the work, print its result, and return the exit code.

    A `ValueError` or `OSError` from the work is an error that the user can fix: one sentence on
    stderr, exit 2. Control characters are escaped, since file names may be untrusted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name need not be valid text
            stream.reconfigure(errors="backslashreplace")
    if COMPLETING in os.environ:
        complete(parser)
    with escaping():
        return _execute(parser, work, arguments)


def _execute(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], Result],
    arguments: Sequence[str] | None,
) -> int:
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # --help, --version, or a command line that cannot be parsed
        return int(stop.code or 0)
    keep_freed_memory()
    for name in installed_upstream():
        print(
            f"{parser.prog}: warning: the package '{name}' is also installed and has the same "
            "import name. Install it, or rave-diffwave, in a separate environment.",
            file=sys.stderr,
        )
    try:
        with _quiet_unless_first(), _state_kept():
            result = work(options)
    except KeyboardInterrupt:
        if is_first():
            print(f"{parser.prog}: interrupted; the same command continues.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        if options.verbose:
            traceback.print_exc()
        print(f"{parser.prog}: error: {sentence(error)}", file=sys.stderr)
        return EXIT_ERROR
    if not is_first():
        return 0
    for name, texts in result.warnings.items():
        for text in texts:
            print(f"{parser.prog}: warning: {one_line(f'{name}: {text}')}", file=sys.stderr)
    try:
        print(json.dumps(result.figures, indent=1) if options.json else result.summary, flush=True)
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_SKIPPED if result.num_skipped else 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Print completions for the shell, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)


@contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Silence every process of a training but the first."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


@contextmanager
def _state_kept() -> Iterator[None]:
    """Restore torch's random state and thread count, also after an error or Ctrl-C."""
    torch = sys.modules.get("torch")
    if torch is None:  # not imported, so there is nothing to restore
        yield
        return
    rng_state, num_threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_rng_state(rng_state)
        torch.set_num_threads(num_threads)


def installed_upstream() -> list[str]:
    """Return other installed packages that use the import names `rave` or `diffwave`."""
    names = ("acids-rave", "diffwave")  # listing all packages would take 0.1 s
    return [name for name in names if any(metadata.distributions(name=name))]


def sentence(error: Exception) -> str:
    """Return the sentence that is shown for an error that the user can fix."""
    if isinstance(error, OSError) and error.strerror:
        place = f" ('{error.filename}')" if error.filename else ""
        return one_line(f"{error.strerror}{place}. What was finished before is kept.")
    if isinstance(error, LinesError):
        return str(error)
    # If a value of a recipe is refused, gin appends the call path to the message.
    return one_line(str(error).partition("\n  In call to configurable")[0])
