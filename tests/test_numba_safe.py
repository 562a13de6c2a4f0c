import subprocess
import sys

# Prints, in order, each lock and unlock and each module in which librosa compiles gufuncs.
ORDER = """
import fcntl, sys, threading

real = fcntl.flock
def flock(file, operation):
    print("locked", file.name.endswith("__init__.py"))
    real(file, operation)
fcntl.flock = flock

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("librosa.util.utils", "librosa.core.audio", "librosa.core.pitch"):
            other = open(librosa_file, "rb")
            try:
                real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                print(name, "free")
            except BlockingIOError:
                print(name, "held")
            other.close()

import importlib.util
librosa_file = importlib.util.find_spec("librosa").origin
sys.meta_path.insert(0, Finder())
import rave.compute.numba_safe
other = open(librosa_file, "rb")
real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("free afterwards")
from rave.compute.numba_safe import librosa
import numpy as np
print(librosa.onset.onset_detect(y=np.eye(1, 9000, 4000)[0], sr=22050).shape)
"""


def test_librosa_compiles_while_no_other_process_does():
    run = subprocess.run([sys.executable, "-c", ORDER], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "locked True",
        "librosa.core.audio held",
        "librosa.core.pitch held",
        "librosa.util.utils held",
        "free afterwards",
        "(1,)",
    ]
