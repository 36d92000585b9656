"""Known answers: how often `rg.diagnose` says over, under or fine, where it is known which of them is so.

python -m benchmarks.diagnoses --seeds 40
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import regularity as rg
from benchmarks.verdicts import compile_once

_INPUTS = 20


class Case(NamedTuple):
    """Where the answer is known.

    Args:
        why: In words.
        answer: What it is.
        rows: To train on and hold out.
        flipped: Share of labels that are drawn at random.
        hidden: Units of the hidden layers.
        rate: Of Adam.
        epochs: How long members train.
        target: What a clean label is read off, from rows of standard normal numbers.
        dropped: Rate of dropout behind each hidden layer.
    """

    why: str
    answer: str
    rows: int
    flipped: float
    hidden: tuple[int, ...]
    rate: float
    epochs: int
    target: Callable[[np.ndarray], np.ndarray] = lambda x: x[:, :5].sum(1)
    dropped: float = 0.0


CASES = {
    "wide, few rows, wrong labels": Case("learns the wrong labels by heart", "over", 400, 0.3, (64, 64), 0.005, 20),
    "wide, labels that are noise": Case("there is nothing else to learn", "over", 400, 1.0, (64, 64), 0.005, 20),
    "linear, many clean rows": Case("the truth, and enough rows for it", "fine", 3000, 0.0, (), 0.02, 20),
    "linear, many wrong labels": Case("the truth; what it misses nobody can know", "fine", 3000, 0.3, (), 0.02, 20),
    "linear, a round truth": Case("no line is a circle", "under", 1000, 0.0, (), 0.02, 20, lambda x: np.square(x[:, :2]).sum(1) - 1.4),
    "wide, too few epochs": Case("it has only begun", "under", 1000, 0.1, (64, 64), 0.0005, 6),
    "wide, too much dropout": Case("nearly nothing comes through", "under", 1000, 0.1, (64,), 0.002, 20, dropped=0.98),
}  # fmt: skip


def draw(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(case.rows, _INPUTS)).astype("float32")
    y = (case.target(x) > 0).astype("int64")
    wrong = random.random(case.rows) < case.flipped
    return x, np.where(wrong, random.integers(0, 2, case.rows), y)


def network(case: Case) -> keras.Model:
    hidden = []
    for units in case.hidden:
        hidden += [keras.layers.Dense(units, "relu"), *([keras.layers.Dropout(case.dropped)] if case.dropped else [])]
    model = keras.Sequential([keras.Input((_INPUTS,)), *hidden, keras.layers.Dense(2, "softmax")], name="net")
    model.compile(keras.optimizers.Adam(case.rate), "sparse_categorical_crossentropy")
    return model


def main() -> None:
    from scipy.stats import binomtest

    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnoses", description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--only", choices=CASES, help="one of the cases")
    options = parser.parse_args()
    print("| case | the answer is | over | under | fine | right, with 95 % interval | seconds each |\n| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        compile_once(Path(folder))
        for name in [options.only] if options.only else CASES:
            case, found, began = CASES[name], Counter(), time.perf_counter()
            for seed in range(options.seeds):
                found[
                    rg.diagnose(network(case), *draw(case, seed), epochs=case.epochs, seed=seed, verbose=0).verdict
                ] += 1
                keras.backend.clear_session()
            seconds = (time.perf_counter() - began) / options.seeds
            low, high = binomtest(found[case.answer], options.seeds).proportion_ci()
            counts = " | ".join(str(found[verdict]) for verdict in ("over", "under", "fine"))
            print(f"| {name}: {case.why} | {case.answer} | {counts} | {found[case.answer] / options.seeds:.0%} ({low:.0%} to {high:.0%}) | {seconds:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
