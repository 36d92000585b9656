"""Regularity beside its peers: the same trials, epochs and rows, in one run. `python -m benchmarks` prints the table."""
