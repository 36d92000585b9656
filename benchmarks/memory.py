"""The memory a member takes, by how the peak of a process grows from few members to many.

`python -m benchmarks.memory MEMBERS` trains them twice and prints JSON: the peak of the second run, in which nothing
is compiled, and the bytes of a member's weights and Adam's moments.
"""

import argparse
import gc
import json
import os
from itertools import pairwise
from pathlib import Path

from benchmarks.problem import CLASSES, FEATURES, WIDTHS, rows, strengths

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak() -> int:
    """The most bytes that this process has had in memory since `forget_peak`."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    _CLEAR.write_text("5")


def weights_and_moments() -> int:
    """Bytes of one member's weights and the two moments that Adam keeps of each."""
    sizes = [FEATURES, *WIDTHS, CLASSES]
    return 3 * 4 * sum(a * b + b for a, b in pairwise(sizes))


def measure(members: int, at_once: bool) -> dict[str, int]:
    """Train members in chunks as Regularity chooses, or all at once."""
    from benchmarks.engine import Engine

    train, _ = rows()
    repeated = (strengths("dropout") * -(-members // 64))[:members]
    engine = Engine("dropout", repeated, train, chunk=members if at_once else None)
    engine.train(1)
    gc.collect()
    forget_peak()
    outcomes = engine.train(2)
    assert all(outcome.weights is not None for outcome in outcomes)  # results are held while the peak is read
    return {"peak": peak(), "state": weights_and_moments()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("members", type=int)
    parser.add_argument("--at-once", action="store_true")
    options = parser.parse_args()
    if not os.access(_CLEAR, os.W_OK):
        raise SystemExit("The memory a member takes is read from /proc, which this system lacks.")
    from benchmarks.contenders import import_all

    import_all("Regularity")
    print(json.dumps(measure(options.members, options.at_once)))
