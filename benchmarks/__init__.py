"""Side-by-side measurements, run from a clone: `python -m benchmarks --list`."""
