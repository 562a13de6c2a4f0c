"""A command whose work on a Ray cluster meets trouble: a driver of its own, to be killed."""

import signal
import sys

from ray_work import TroubledPreparing

from rave.api import preprocess
from rave.main_cli import main

if __name__ == "__main__":
    # Programs started in the background by a script do not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    preprocess.Preparing = TroubledPreparing
    sys.exit(main(sys.argv[1:]))
