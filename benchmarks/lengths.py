"""How long candidates should train: what the leaders lose where training ends at a multiple of what is best for plain.

    python -m benchmarks.lengths --data credit-g vehicle kc1 --splits 2     train the banks that are missing, then tell
    python -m benchmarks.lengths --judge                                    tell by the banks that are there

A bank (see benchmarks/bank.py) has every candidate after each of many epochs. Of each split the eight best by the first ring
of pairs of folds are looked at: the balanced accuracy on the test rows of the networks of its folds, at the epoch that the
curve says when it ends early, less the same when it does not.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks import bank as banks
from benchmarks import datasets
from benchmarks.bank import RING, SCORES, Bank

MULTIPLES = (1, 1.5, 2, 3, 4, 6)
_SHOWN, _BESIDE = SCORES.index("balanced accuracy"), SCORES.index("balanced log loss")
_LEADERS, _FEWEST = 8, 10


def lost(bank: Bank) -> tuple[int, dict[float, tuple[int, float]]]:
    """How many epochs are best for plain; and by multiple how many are trained, and what that changes, in points."""
    from regularity.study._rule import best_epoch, latest_best

    curves = bank.pairs[:, :RING, ..., [_SHOWN, _BESIDE]]  # (candidates, cells, epochs, 2, scores)
    mean = curves.mean((1, 3))
    merit = (mean / mean.max(1).std(0)).mean(-1)
    test = bank.folds_test[..., _SHOWN].mean(1)
    whole = np.array([best_epoch(curve, False) for curve in merit])
    leaders = np.argsort(-merit[np.arange(len(merit)), whole])[:_LEADERS]
    best, all_epochs, found = latest_best(curves[0]), merit.shape[1], {}
    for multiple in MULTIPLES:
        end = min(all_epochs, max(_FEWEST, round(multiple * best)))
        at = [best_epoch(merit[one, :end], False) for one in leaders]
        found[multiple] = end, 100 * float(np.mean(test[leaders, at] - test[leaders, whole[leaders]]))
    return best, found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lengths", description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(datasets.LOADERS), default=["credit-g", "vehicle", "kc1"])
    parser.add_argument("--splits", type=int, default=2, help="outer splits of each data set")
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--out", type=Path, default=banks.cache() / "long", help="where the banks are, or go")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "jax"  # Keras is imported with the first bank
    print("| data | splits | epochs | best for plain | " + " | ".join(f"{each:g} times" for each in MULTIPLES) + " |")
    print("| --- " * (4 + len(MULTIPLES)) + "|")
    for name in options.data:
        if not options.judge:
            for seed in range(options.splits):
                banks.make(options.out, name, seed, options.candidates, options.epochs)
        told = [lost(banks.load(options.out, name, seed)) for seed in banks.seeds(options.out, name)]
        if not told:
            continue
        best = [str(each) for each, _ in told]
        cells = []
        for multiple in MULTIPLES:
            ends, changes = zip(*(found[multiple] for _, found in told), strict=True)
            cells.append(f"{np.mean(changes):+.2f} in {np.mean(ends):.0f}")
        epochs = banks.load(options.out, name, banks.seeds(options.out, name)[0]).pairs.shape[2]
        print(f"| {name} | {len(told)} | {epochs} | {', '.join(best)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
