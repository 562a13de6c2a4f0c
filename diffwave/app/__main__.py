"""`rave app`: a page in the browser for a codec and a diffusion model of its latents."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from rave.api.result import Result
from rave.cli import CODEC, DIFFUSION_RUN, add_device, command_parser, execute
from rave.parsing import existing

SHIPPED = Path("models", "piano")
DEFAULT_FOLDER = Path("rave-app")
MAX_PORT = 65535


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave app`."""
    parser = command_parser(
        "rave app",
        "Open a page in the browser: drop or record a sound, see its latents, bend and mix it, "
        "generate, vary,\ninpaint and continue. The page is for this machine only and sends "
        "nothing anywhere. Needs the extra [app].",
        "rave app --codec runs/rave --diffusion runs/diffusion",
    )
    parser.add_argument(
        "--codec",
        type=existing(CODEC),
        metavar="RUN",
        help=f"run of `rave train`, or a .ts file (default {SHIPPED}/codec)",
    )
    parser.add_argument(
        "--diffusion",
        type=existing(DIFFUSION_RUN),
        metavar="RUN",
        help=f"run of diffwave.train on latents of that codec (default {SHIPPED}/diffusion, if "
        "the codec is the default too)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        help=f"where sounds and results are kept (default {DEFAULT_FOLDER})",
    )
    parser.add_argument(
        "--port", type=int, help="port to serve at (default: the first free one from 7860)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="only print the address; open no browser"
    )
    add_device(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: If an option is out of bounds, the extra is missing, or the models cannot be
            used.
        OSError: If the port is taken.
    """
    codec, diffusion = options.codec, options.diffusion
    if options.port is not None and not 1 <= options.port <= MAX_PORT:
        raise ValueError(f"--port is {options.port}; 1 to {MAX_PORT} is needed.")
    if options.folder.exists() and not options.folder.is_dir():
        raise ValueError(f"'{options.folder}' is a file; --folder needs a folder.")
    if codec is None:
        shipped = Path(__file__).parents[2] / SHIPPED
        here = [folder for folder in (SHIPPED, shipped) if (folder / "codec").is_dir()]
        if not here:
            raise ValueError(
                f"There is no {SHIPPED}/codec here. Name a run: rave app --codec RUN "
                "[--diffusion RUN]."
            )
        codec = here[0] / "codec"
        if diffusion is None and (here[0] / "diffusion").is_dir():
            diffusion = here[0] / "diffusion"
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "rave app needs Gradio. Install it with: "
            "pip install -c constraints.txt -e '.[app]' (in the repository)."
        )
    from diffwave.app.server import serve

    address = serve(
        options.folder, codec, diffusion, options.device, options.port, not options.no_browser
    )
    return Result(f"Closed {address}. '{options.folder}' keeps what was made.", {"url": address})


if __name__ == "__main__":
    sys.exit(execute(parser(), run, sys.argv[1:]))
