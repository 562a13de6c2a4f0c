"""One module for each row of measurements: what is compared, and what each side does.

`comparisons(bench)` tells what to measure. The other functions are called in a worker, one in each
side's environment: each prepares something once and returns what is to be timed.
"""
