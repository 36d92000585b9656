"""What Optuna's pruners kill: each is asked, trial by trial, about searches in which nothing was stopped.

    python -m benchmarks.pruners --trials 60

A search trains every candidate to the end. Its curves are then shown to each pruner in the order in which they were
asked for, as they would have been told, and it says where it would have stopped them. So all pruners judge the same
candidates, and what they would have lost is known.
"""

import argparse
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import optuna
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.preprocessing import StandardScaler

import regularity as rg
from benchmarks import machine

_LOADERS = {"digits": load_digits, "breast cancer": load_breast_cancer, "wine": load_wine}
_EPOCHS, _ROWS, _LEADERS = 50, 400, 5
PRUNERS = {
    "median": lambda: optuna.pruners.MedianPruner(n_warmup_steps=5),
    "successive halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=5, reduction_factor=3),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=5, max_resource=_EPOCHS),
}


def searched(name: str, trials: int, seed: int) -> Any:
    """A search on few rows, in which a wide network overfits."""
    x, y = _LOADERS[name](return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(x))[:_ROWS]
    x, y = StandardScaler().fit_transform(x)[rows].astype("float32"), y[rows]
    layers = [keras.layers.Dense(128, "relu"), keras.layers.Dense(128, "relu")]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, keras.layers.Dense(int(y.max()) + 1, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return rg.search(model, x, y, trials=trials, epochs=_EPOCHS, score="neg_log_loss", storage="sqlite://", seed=seed)


def replayed(study: Any, make: Any) -> np.ndarray:
    """After how many epochs a pruner would have stopped each candidate, of (trials,)."""
    asked = optuna.create_study(direction="maximize", pruner=make(), study_name=study.name)  # by which Hyperband parts
    stopped = []
    for trial in study._found.trials:
        curve, own, at = trial.curves[:5, ..., 0].mean((0, 2)), asked.ask(), _EPOCHS
        for epoch, score in enumerate(curve, 1):
            if not np.isfinite(score):
                break
            own.report(float(score), epoch)
            if not trial.name and own.should_prune():
                at = epoch
                break
        state = optuna.trial.TrialState.PRUNED if at < _EPOCHS else None
        asked.tell(own, None if state or not np.isfinite(curve).all() else float(curve.max()), state=state)
        stopped.append(at)
    return np.array(stopped)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in PRUNERS}
    for data in _LOADERS:
        for seed in range(options.seeds):
            study = searched(data, options.trials, seed)
            best = np.argsort(-np.nan_to_num(study.table["expected"].to_numpy(), nan=-np.inf))[:_LEADERS]
            late = study.table["epochs"].to_numpy() > np.median(study.table["epochs"])
            for name, make in PRUNERS.items():
                stopped = replayed(study, make)
                killed = stopped < _EPOCHS
                too_soon = stopped < study.table["epochs"].to_numpy()  # before its best epoch
                found[name].append(
                    (
                        1 - stopped.sum() / (len(stopped) * _EPOCHS),
                        killed[best].mean(),
                        float(too_soon[best[0]]),
                        killed[late].mean(),
                        killed[~late].mean(),
                    )
                )
    print(machine.describe())
    print(
        "\n| pruner | epochs saved | of the five best, stopped | the best, stopped before its best epoch "
        "| of those that are best late, stopped | of those that are best early, stopped |"
    )
    print("| --- " * 6 + "|")
    for name, rows in found.items():
        print(f"| {name} | " + " | ".join(f"{100 * value:.0f} %" for value in np.mean(rows, 0)) + " |")


if __name__ == "__main__":
    main()
