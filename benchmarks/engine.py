"""The engine beside a population written by hand: microseconds a member-step, both warm, in turns in one process.

`python -m benchmarks.engine` prints JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.problem import BATCH, WIDTHS, Kind, Rows, program, recipe, rows, strengths

MANY = 10_000  # calls of a program for which XLA tries as hard as it does for a long run


class Engine:
    """The population that `rg.train` makes, kept, so that a second run compiles nothing.

    Args:
        kind: Which program.
        values: A strength a member.
        train: Rows to train on.
        metrics: What the program reports besides its loss.
        chunk: Members trained together, or None for what Regularity chooses.
        shuffle: Whether each member has its own order of rows.
    """

    def __init__(
        self,
        kind: Kind,
        values: Sequence[float],
        train: Rows,
        *,
        metrics: tuple[str, ...] = (),
        chunk: int | None = None,
        shuffle: bool = True,
    ) -> None:
        from regularity import Recipe
        from regularity.data import to_data
        from regularity.population._tasks import Plan, Task
        from regularity.population._train import Trainer, strengths_for
        from regularity.recipe import sites_of

        model = program(kind, metrics=metrics)
        self.recipes = [Recipe(recipe(kind, value)) for value in values]
        held = strengths_for(model, sites_of(model), self.recipes)
        plan = Plan(to_data(model, *train), BATCH, shuffle, chunk=chunk, calls=MANY)
        self._tasks = lambda epochs: [Task(strength, seed, epochs) for seed, strength in enumerate(held)]
        self._trainer = Trainer(model, plan, len(held))

    def train(self, epochs: int) -> list[Any]:
        """Train all members from the start, and return what became of them."""
        return self._trainer.train(self._tasks(epochs))


def compare(epochs: int, repeats: int) -> dict[str, Any]:
    """Time both for the chunks that could be best, then the best of each in turns."""
    from benchmarks import handwritten

    train, _ = rows()
    full = len(train.x) // BATCH * BATCH  # by hand there is no ragged batch, so here neither
    train = Rows(train.x[:full], train.y[:full])
    values = strengths("dropout")
    chunks = chunk_sizes(len(values))
    member_steps = epochs * (full // BATCH) * len(values)

    def best(make: Callable[[int], Callable[[int], Any]]) -> tuple[int, Callable[[int], Any]]:
        ready = {chunk: make(chunk) for chunk in chunks}
        for run in ready.values():
            run(1)
        fastest = min(chunks, key=lambda chunk: min(timed(ready[chunk], epochs) for _ in range(2)))
        return fastest, ready[fastest]

    by_hand_chunk, by_hand = best(lambda chunk: handwritten.Population(values, chunk, *train, BATCH, WIDTHS).train)
    chunk, same_batches = best(lambda chunk: Engine("dropout", values, train, chunk=chunk, shuffle=False).train)
    runs = {
        "by_hand": by_hand,
        "same_batches": same_batches,
        "own_batches": Engine("dropout", values, train, chunk=chunk).train,
        "as_chosen": Engine("dropout", values, train).train,
    }
    for run in runs.values():
        run(1)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(timed(run, epochs))
    microseconds = {name: float(np.median(found)) / member_steps * 1e6 for name, found in times.items()}
    return {"members": len(values), "repeats": repeats, "chunk_by_hand": by_hand_chunk, "chunk": chunk, **microseconds}


def chunk_sizes(members: int) -> list[int]:
    """The four largest powers of two that leave a chunk for every core."""
    largest = max(members // (os.cpu_count() or 1), 1).bit_length() - 1
    return [2**power for power in range(max(largest - 3, 0), largest + 1)]


def timed(run: Callable[[int], Any], epochs: int) -> float:
    start = time.perf_counter()
    run(epochs)
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("epochs", type=int)
    parser.add_argument("repeats", type=int)
    options = parser.parse_args()
    from benchmarks.contenders import import_all

    import_all("Regularity")
    print(json.dumps(compare(options.epochs, options.repeats)))
