"""How long many candidates take on credit-g, with three layers of 256: on this machine, or on workers of a Ray cluster.

    python -m benchmarks.many --trials 840 --epochs 12
    python -m benchmarks.many --trials 120 --epochs 12 --workers 1 2 1 2

`--storage` keeps each study in a file or a database, under a name of its own, so that none goes on with another.
`--workers` starts a Ray cluster of so many cores for each number, one after the other; a worker keeps to one core, and the
driver is beside them. The seconds a candidate are of the time from a fifth of the candidates on, when all compile no more.
"""

import argparse
import os
import subprocess
import sys
import time
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from benchmarks import datasets, machine, tables


def search(trials: int, epochs: int | None, workers: int | None, storage: str) -> None:
    """Search with so many candidates, and print how long it took."""
    import regularity as rg

    if workers:
        import ray

        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    split = datasets.split(datasets.credit_g(), 0, 0.2)
    model = tables.network(split.x.shape[1], 2)
    begun, used = time.perf_counter(), time.process_time()
    study = rg.search(
        model, split.x, split.y, trials=trials, epochs=epochs, score="balanced_accuracy", class_weight="balanced",
        batch_size=128, storage=storage, name=f"many-{time.time_ns()}", engine="ray" if workers else "local",
    )  # fmt: skip
    took, used = time.perf_counter() - begun, time.process_time() - used
    finished = np.sort(study.table["seconds"])
    first = trials // 5
    each = (finished[-1] - finished[first]) / (trials - 1 - first)
    who = f"{workers} workers" if workers else "this machine"
    print(
        f"{who}: {trials} candidates in {took:.0f} s, {1000 * each:.0f} ms each, {used:.0f} s of this process",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--trials", type=int, default=840)
    parser.add_argument("--epochs", type=int, help="how long each trains; without, that is found")
    parser.add_argument("--workers", type=int, nargs="+", help="of a Ray cluster, a core each")
    parser.add_argument("--storage", default="sqlite://", help="where the study is kept; without, in memory")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.workers is None or len(options.workers) == 1:
        search(options.trials, options.epochs, (options.workers or [None])[0], options.storage)
        return
    print(machine.describe(), file=sys.stderr)
    arguments = ["--trials", str(options.trials), "--storage", options.storage]
    arguments += ["--epochs", str(options.epochs)] if options.epochs else []
    for workers in options.workers:  # a process each: one has one cluster
        command = [sys.executable, "-m", "benchmarks.many", *arguments, "--workers", str(workers)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
