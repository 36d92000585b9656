"""The search beside trees and other networks, on five tables, with the same time for each.

    python -m benchmarks.tables --data credit-g vehicle --splits 5 --budget 60
    python -m benchmarks.tables --judge

Everybody gets the same training rows, preprocessed alike, and is judged by balanced accuracy on the same test rows: a
peer at its defaults, and as the best of a search by Optuna's TPE with five folds that takes as long as ours. Networks of
ours train with balanced weights of classes; a peer that can may choose them when it is tuned. What is
done is kept in a file, and a later run goes on after it. A peer that is not installed is left out, and said to be.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils.class_weight import compute_sample_weight

from benchmarks import datasets, machine

_WIDTHS, _RATE, _BATCH = (256, 256, 256), 1e-3, 128
_TEST = 0.2
_OURS = "Regularity, the answer"


def network(features: int, classes: int) -> Any:
    """The net of Kadra et al., smaller: three hidden layers of 256 units."""
    import keras

    hidden = [keras.layers.Dense(width, "relu") for width in _WIDTHS]
    model = keras.Sequential([keras.Input((features,)), *hidden, keras.layers.Dense(classes, "softmax")])
    model.compile(keras.optimizers.Adam(_RATE), "sparse_categorical_crossentropy")
    return model


def ours(split: datasets.Split, classes: int, seed: int, budget: float) -> dict[str, dict[str, float]]:
    """What one search hands out, each refitted on all training rows: by name, its scores on the test rows."""
    import regularity as rg

    begun = time.perf_counter()
    model, weighted = network(split.x.shape[1], classes), {"batch_size": _BATCH, "class_weight": "balanced"}
    study = rg.search(
        model, split.x, split.y, budget=budget, score="balanced_accuracy", seed=seed, storage="sqlite://", **weighted,
    )  # fmt: skip
    outputs = {_OURS: study.model.predict(split.x_test, verbose=0)}
    seconds = time.perf_counter() - begun
    # the seed of the answer's own refit: where it is the model as given, it is that network to the bit
    alike, choice = seed * 1_000_003 % 2**31, study._found.choice
    for name, trial in {"plain MLP, its best epoch": choice.plain, "best single technique": choice.single}.items():
        recipe = study._recipe(trial)
        (member,) = rg.train(model, split.x, split.y, [recipe], seeds=[alike], **weighted)
        outputs[name] = member.model.predict(split.x_test, verbose=0)
    (member,) = rg.train(model, split.x, split.y, [study.best], seeds=[alike], **weighted)
    outputs["Regularity, the best guess"] = member.model.predict(split.x_test, verbose=0)
    outputs["Regularity, ensemble of folds"] = study.ensemble().predict(split.x_test, verbose=0)
    found = {name: {**judged(split, shown), "seconds": seconds} for name, shown in outputs.items()}
    found[_OURS] |= {"trials": len(study.table), "promised": study.score.value, "helps": study.verdict == "helps"}
    return found


def judged(split: datasets.Split, shown: np.ndarray) -> dict[str, float]:
    """Scores of probabilities on the test rows."""
    shown = np.asarray(shown, "float64")
    shown = shown / shown.sum(1, keepdims=True)
    return {
        "score": float(balanced_accuracy_score(split.y_test, shown.argmax(1))),
        "log loss": float(log_loss(split.y_test, shown, labels=np.arange(shown.shape[1]))),
    }


# -- peers -------------------------------------------------------------------------------------------------------------

# From a trial of Optuna's, or None for the defaults, and a seed to an estimator.
Maker = Callable[[Any, int], Any]


def forest(trial: Any, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    tuned = {} if trial is None else {
        "n_estimators": trial.suggest_int("n_estimators", 100, 500, log=True),
        "max_features": trial.suggest_float("max_features", 0.05, 1.0),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 20, log=True),
        "class_weight": trial.suggest_categorical("class_weight", [None, "balanced"]),
    }  # fmt: skip
    return RandomForestClassifier(random_state=seed, n_jobs=-1, **tuned)


def histogram(trial: Any, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    tuned = {} if trial is None else {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "max_iter": trial.suggest_int("max_iter", 50, 500, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 64, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 2, 50, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-6, 10.0, log=True),
        "class_weight": trial.suggest_categorical("class_weight", [None, "balanced"]),
    }  # fmt: skip
    return HistGradientBoostingClassifier(random_state=seed, **tuned)


def xgboost(trial: Any, seed: int) -> Any:
    from xgboost import XGBClassifier  # type: ignore[import-not-found]

    tuned = {} if trial is None else {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "n_estimators": trial.suggest_int("n_estimators", 50, 500, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 10),
        "min_child_weight": trial.suggest_float("min_child_weight", 0.1, 20.0, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-3, 10.0, log=True),
    }  # fmt: skip
    balanced = trial is not None and trial.suggest_categorical("balanced", [False, True])

    class Weighted(XGBClassifier):
        """It takes weights of rows alone."""

        def fit(self, x: Any, y: Any) -> Any:
            return super().fit(x, y, sample_weight=compute_sample_weight("balanced" if balanced else None, y))

    return Weighted(random_state=seed, **tuned)


def catboost(trial: Any, seed: int) -> Any:
    from catboost import CatBoostClassifier  # type: ignore[import-not-found]

    tuned = {} if trial is None else {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "iterations": trial.suggest_int("iterations", 50, 500, log=True),
        "depth": trial.suggest_int("depth", 2, 8),
        "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 0.1, 30.0, log=True),
        "random_strength": trial.suggest_float("random_strength", 0.1, 10.0, log=True),
        "auto_class_weights": trial.suggest_categorical("auto_class_weights", [None, "Balanced"]),
    }  # fmt: skip
    return CatBoostClassifier(random_seed=seed, verbose=0, allow_writing_files=False, **tuned)


def realmlp(trial: Any, seed: int) -> Any:
    from pytabkit import RealMLP_TD_Classifier  # type: ignore[import-not-found]

    tuned = {} if trial is None else {
        "lr": trial.suggest_float("lr", 0.01, 0.3, log=True),
        "p_drop": trial.suggest_float("p_drop", 0.0, 0.5),
        "wd": trial.suggest_float("wd", 1e-3, 0.1, log=True),
        "ls_eps": trial.suggest_float("ls_eps", 0.0, 0.2),
    }  # fmt: skip
    return RealMLP_TD_Classifier(random_state=seed, device="cpu", verbosity=0, **tuned)


PEERS: Mapping[str, Maker] = {
    "random forest": forest,
    "HistGradientBoosting": histogram,
    "XGBoost": xgboost,
    "CatBoost": catboost,
    "RealMLP": realmlp,
}


def at_defaults(make: Maker, split: datasets.Split, seed: int) -> dict[str, float]:
    """A peer as it comes."""
    begun = time.perf_counter()
    fitted = make(None, seed).fit(split.x, split.y)
    return {**judged(split, fitted.predict_proba(split.x_test)), "seconds": time.perf_counter() - begun}


def tuned(make: Maker, split: datasets.Split, seed: int, budget: float, folds: int) -> dict[str, float]:
    """The best of a search over a peer's own settings by so many of five folds, the defaults among them."""
    import optuna

    begun = time.perf_counter()
    parts = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(split.x, split.y))[:folds]

    def score(estimator: Any) -> float:
        return float(cross_val_score(estimator, split.x, split.y, cv=parts, scoring="balanced_accuracy").mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    default = score(make(None, seed))
    left = 0.95 * budget - (time.perf_counter() - begun)
    study.optimize(lambda trial: score(make(trial, seed)), timeout=max(left, 0.1))
    chosen = None if default >= study.best_value else optuna.trial.FixedTrial(study.best_params)
    fitted = make(chosen, seed).fit(split.x, split.y)
    found = judged(split, fitted.predict_proba(split.x_test))
    return {
        **found,
        "seconds": time.perf_counter() - begun,
        "trials": len(study.trials) + 1,
        "folds": folds,
        "promised": max(default, study.best_value),
    }


# -- running and judging -----------------------------------------------------------------------------------------------


def run(
    data: str, number: int, budget: float, peers: list[str], done: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Scores of whoever is not done yet on one split; `done` has the seconds of the others."""
    table = datasets.LOADERS[data]()
    split = datasets.split(table, number, _TEST)
    if _OURS not in done:
        yield from ours(split, int(table.y.max()) + 1, number, budget).items()
    for name in peers:
        try:
            PEERS[name](None, 0)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        seconds = done.get(name)
        if seconds is None:
            found = at_defaults(PEERS[name], split, number)
            seconds = found["seconds"]
            yield name, found
        # five folds of its defaults alone would take most of the time, and then one has to do
        folds = 5 if 8 * seconds < budget else 1
        if 4 * seconds > budget:
            print(f"{name} is not tuned: a fit takes {seconds:.0f} s of {budget:.0f}", file=sys.stderr)
        elif f"{name}, tuned" not in done:
            yield f"{name}, tuned", tuned(PEERS[name], split, number, budget, folds)


def judge(file: Path) -> None:
    """Print mean scores, and ours beside each, paired over splits."""
    from regularity.study._choosing import paired_error

    rows = pd.DataFrame([json.loads(line) for line in file.read_text().splitlines()])
    scores = 100 * rows.pivot_table(index=["data", "split"], columns="who", values="score")
    seconds, tables = rows.groupby("who")["seconds"].mean(), list(dict.fromkeys(rows["data"]))
    share = _TEST / (1 - _TEST)
    order = scores.groupby("data").mean().mean().sort_values(ascending=False).index
    print("| who | " + " | ".join(tables) + " | mean | ours less this | seconds |")
    print("| --- " * (len(tables) + 4) + "|")
    for who in order:
        cells, means, squares = [], [], []
        for data in tables:
            own = scores.loc[data, who].dropna()
            cells.append(f"{own.mean():.1f} ± {own.sem():.1f}" if len(own) else "")
            difference = (scores.loc[data, _OURS] - scores.loc[data, who]).dropna()
            if len(difference) > 1:
                means.append(difference.mean())
                squares.append(float(paired_error(difference.to_numpy(), share)) ** 2)
        less = f"{np.mean(means):+.1f} ± {np.sqrt(np.sum(squares)) / len(means):.1f}" if means else ""
        mean = scores[who].groupby("data").mean().mean()
        print(f"| {who} | {' | '.join(cells)} | {mean:.1f} | {less} | {seconds[who]:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=datasets.LOADERS, default=list(datasets.LOADERS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for each search")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--file", type=Path, default=Path("benchmarks-tables.jsonl"))
    parser.add_argument("--judge", action="store_true", help="print what is in the file, and run nothing")
    options = parser.parse_args()
    if not options.judge:
        print(machine.describe(), file=sys.stderr)
        warnings.simplefilter("ignore")
        for number in range(options.splits):
            for data in options.data:
                kept = options.file.read_text().splitlines() if options.file.exists() else []
                rows = [json.loads(line) for line in kept]
                done = {row["who"]: row["seconds"] for row in rows if (row["data"], row["split"]) == (data, number)}
                for who, found in run(data, number, options.budget, options.peers, done):
                    with options.file.open("a") as out:
                        out.write(json.dumps({"data": data, "split": number, "who": who, **found}) + "\n")
                    print(
                        f"{data} {number} {who}: {100 * found['score']:.1f} in {found['seconds']:.1f} s",
                        file=sys.stderr,
                    )
    judge(options.file)


if __name__ == "__main__":
    main()
