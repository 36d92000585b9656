"""Known answers: how often `rg.diagnose` says over, under or fine, where it is known which of them is so.

python -m benchmarks.diagnoses --seeds 14
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
        noise: Share of labels that are drawn at random, or the standard deviation of what is added to numbers.
        hidden: Units of the hidden layers.
        rate: Of Adam.
        epochs: How long members train.
        target: What a clean label is read off, or clean numbers are, from rows of standard normal numbers.
        numbers: How many targets are numbers; 0 for two classes.
        dropped: Rate of dropout behind each hidden layer.
        bias: Where hidden units begin.
        penalty: L2 of the last layer.
        held_out: Rows of `validation_data`; 0 for folds.
    """

    why: str
    answer: str
    rows: int
    noise: float
    hidden: tuple[int, ...]
    rate: float
    epochs: int
    target: Callable[[np.ndarray], np.ndarray] = lambda x: x[:, :5].sum(1)
    numbers: int = 0
    dropped: float = 0.0
    bias: float = 0.0
    penalty: float = 0.0
    held_out: int = 0


def _round(x: np.ndarray) -> np.ndarray:
    return np.square(x[:, :2]).sum(1) - 1.4


CASES = {
    "wide, few rows, wrong labels": Case("learns the wrong labels by heart", "over", 400, 0.3, (64, 64), 0.005, 20),
    "wide, labels that are noise": Case("there is nothing else to learn", "over", 400, 1.0, (64, 64), 0.005, 20),
    "wide, few rows, noisy numbers": Case("learns the noise by heart", "over", 200, 2.0, (64, 64), 0.005, 40, numbers=1),
    "linear, many clean rows": Case("the truth, and enough rows for it", "fine", 3000, 0.0, (), 0.02, 20),
    "linear, many wrong labels": Case("the truth; what it misses nobody can know", "fine", 3000, 0.3, (), 0.02, 20),
    "linear, a number": Case("the truth, and enough rows for it", "fine", 1000, 1.0, (), 0.05, 20, numbers=1),
    "linear, eight numbers": Case("the truth, and enough rows for it", "fine", 1000, 1.0, (), 0.05, 20, lambda x: x @ _MIXED, 8),
    "linear, a harmless L2, 40 rows held out": Case("of which all seeds share the luck", "fine", 640, 2.0, (), 0.02, 15, numbers=1, penalty=0.003, held_out=40),
    "linear, a round truth": Case("no line is a circle", "under", 1000, 0.0, (), 0.02, 20, _round),
    "linear, a round truth in numbers": Case("no plane is a bowl", "under", 1000, 0.5, (), 0.05, 20, _round, 1),
    "wide, too few epochs": Case("it has only begun", "under", 1000, 0.1, (64, 64), 0.0005, 6),
    "wide, too much dropout": Case("nearly nothing comes through", "under", 1000, 0.1, (64,), 0.002, 20, dropped=0.98),
    "wide, all units dead": Case("nothing comes through", "under", 400, 0.1, (64,), 0.005, 20, bias=-1000.0),
}  # fmt: skip
_MIXED = np.random.default_rng(0).normal(size=(_INPUTS, 8))


def draw(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(case.rows, _INPUTS)).astype("float32")
    said = case.target(x)
    if case.numbers:
        return x, (said + case.noise * random.normal(size=said.shape)).astype("float32")
    wrong = random.random(case.rows) < case.noise
    return x, np.where(wrong, random.integers(0, 2, case.rows), (said > 0).astype("int64"))


def network(case: Case) -> keras.Model:
    hidden = []
    for units in case.hidden:
        hidden.append(keras.layers.Dense(units, "relu", bias_initializer=keras.initializers.Constant(case.bias)))
        hidden += [keras.layers.Dropout(case.dropped)] if case.dropped else []
    penalty = keras.regularizers.L2(case.penalty) if case.penalty else None
    last = keras.layers.Dense(case.numbers or 2, None if case.numbers else "softmax", kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((_INPUTS,)), *hidden, last], name="net")
    model.compile(keras.optimizers.Adam(case.rate), "mse" if case.numbers else "sparse_categorical_crossentropy")
    return model


def diagnosed(case: Case, seed: int) -> str:
    x, y = draw(case, seed)
    held = {"validation_data": (x[-case.held_out :], y[-case.held_out :])} if case.held_out else {}
    trained = case.rows - case.held_out
    found = rg.diagnose(network(case), x[:trained], y[:trained], epochs=case.epochs, seed=seed, verbose=0, **held)
    return found.verdict


def main() -> None:
    from scipy.stats import binomtest

    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnoses", description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=14)
    parser.add_argument("--only", choices=CASES, help="one of the cases")
    options = parser.parse_args()
    print("| case | the answer is | over | under | fine | right, with 95 % interval | seconds each |\n| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        compile_once(Path(folder))
        for name in [options.only] if options.only else CASES:
            case, found, began = CASES[name], Counter(), time.perf_counter()
            for seed in range(options.seeds):
                found[diagnosed(case, seed)] += 1
                keras.backend.clear_session()
            seconds = (time.perf_counter() - began) / options.seeds
            low, high = binomtest(found[case.answer], options.seeds).proportion_ci()
            counts = " | ".join(str(found[verdict]) for verdict in ("over", "under", "fine"))
            print(f"| {name}: {case.why} | {case.answer} | {counts} | {found[case.answer] / options.seeds:.0%} ({low:.0%} to {high:.0%}) | {seconds:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
