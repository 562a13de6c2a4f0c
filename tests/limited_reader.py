"""Read files of strangers with little memory to spare: `python -m limited_reader BYTES FILE…`.

Prints one JSON object: what was said of each file, nothing if it was read.
"""

import json
import os
import resource
import sys
from pathlib import Path

from diffwave.upstream.run import model_from_checkpoint
from diffwave.upstream.vocoder import vocoder_from_checkpoint
from rave.experiment import build_training, parse_recipe  # noqa: F401  # a recipe names it
from rave.runs.checkpoint import model_weights, read_checkpoint
from rave.runs.gin_text import read_bindings


def limit_memory(num_bytes: int) -> None:
    """Let this process take no more than so many bytes of addresses beside those that it has."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = num_pages * os.sysconf("SC_PAGE_SIZE") + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def opened(path: Path) -> None:
    """Read a recipe or a checkpoint, and build the model of one of diffwave."""
    if path.suffix == ".gin":
        _ = read_bindings(path) if "data" in path.name else parse_recipe("rave", str(path))
        return
    content = read_checkpoint(path)
    if "model" in content:
        is_of_latents = "latent_size" in content["params"]
        (model_from_checkpoint if is_of_latents else vocoder_from_checkpoint)(content, str(path))
    model_weights(content)


if __name__ == "__main__":
    limit_memory(int(sys.argv[1]))
    told = {}
    for name in sys.argv[2:]:
        try:
            opened(Path(name))
        except ValueError as error:
            told[name] = str(error)
        else:
            told[name] = ""
    print(json.dumps(told))
