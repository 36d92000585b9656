"""Time to the same quality: the search beside KerasTuner's Hyperband, Optuna's TPE with `fit`, and Ray Tune's ASHA.

    python -m benchmarks.quality --limit 300

The data come from a source of which any number of fresh rows can be drawn, so what a recipe is worth is known: few
noisy rows, a net that overfits them, and eight inputs of two hundred that matter. Everybody looks for L1, dropout and
weight decay in the same ranges, for the same net of `--width` units in its two hidden layers. Peers train for 50 epochs at
most, ours finds how long. Each runs in a process of its own that is ended after `--limit` seconds, imports not counted;
whenever a contender has a new best it is noted with the time. Each of these is then refitted on all rows with three seeds
and judged on fresh rows.
Ours is asked with several budgets, each a whole search, and is taken by its answer, which is the model as given where
nothing is separable from it, and by its best guess. Peers answer with their best score.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from benchmarks import machine

ROWS, INPUTS, USED, NOISE, FRESH = 600, 200, 8, 0.5, 20_000
WIDTH, BATCH, EPOCHS, FOLDS, SEEDS = 64, 32, 50, 5, 3
RANGES = {"l1": (1e-5, 1e-1), "dropout": (0.0, 0.8), "weight_decay": (1e-4, 1.0)}
BUDGETS = (10, 20, 40)  # seconds of our searches
_FIRST = 100  # data set: how the search begins and chooses was worked out on some of the first ten
_GIVEN, _ANSWER, _BEST = "as given", "Regularity, the answer", "Regularity, the best guess"


class Problem(NamedTuple):
    """What contenders are given: float32 inputs of (rows, inputs), int32 classes of (rows,), how wide the net is, and a seed."""

    x: np.ndarray
    y: np.ndarray
    width: int
    seed: int

    def network(self, l1: float | None = None, dropout: float = 0.0, weight_decay: float | None = None) -> Any:
        """The net, with Keras's own regularization where a contender puts it in."""
        import keras

        stack: list[Any] = [keras.Input((INPUTS,))]
        penalty = None if l1 is None else keras.regularizers.L1(l1)
        for _ in range(2):
            stack.append(keras.layers.Dense(self.width, "relu", kernel_regularizer=penalty))
            if dropout:
                stack.append(keras.layers.Dropout(dropout))
        model = keras.Sequential([*stack, keras.layers.Dense(2, "softmax", kernel_regularizer=penalty)])
        optimizer = keras.optimizers.Adam(1e-3, weight_decay=weight_decay)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def problem(width: int, count: int, seed: int) -> Problem:
    """Two classes by the sign of a sum of a few inputs and of products of them, with noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, INPUTS)).astype("float32")
    signal = x[:, :USED].sum(1) + x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3]
    y = (signal + NOISE * np.sqrt(USED) * random.normal(size=count) > 0).astype("int32")
    return Problem(x, y, width, seed)


# A contender is given the rows and what it calls with each new best: a recipe, and a name if not its own.
Note = Callable[..., None]


def regularity(train: Problem, note: Note, budget: float) -> None:
    import regularity as rg

    study = rg.search(
        train.network(), train.x, train.y, list(RANGES), budget=budget, batch_size=BATCH, storage="sqlite://", seed=train.seed
    )  # fmt: skip
    note(json.loads(study.recipe.to_json()), _ANSWER)
    note(json.loads(study.best.to_json()), _BEST)


def hyperband(train: Problem, note: Note, budget: float) -> None:
    """KerasTuner's, on one validation split, as it is used."""
    import keras_tuner

    best = [-np.inf]

    class Noted(keras_tuner.Hyperband):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            if trial.score is not None and trial.score > best[0]:
                best[0] = trial.score
                values = trial.hyperparameters.values
                note({**{name: values[name] for name in RANGES}, "epochs": values.get("tuner/epochs", EPOCHS)})

    def build(hp: Any) -> Any:
        scales = {name: "linear" if name == "dropout" else "log" for name in RANGES}
        return train.network(**{name: hp.Float(name, *ends, sampling=scales[name]) for name, ends in RANGES.items()})

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        objective = keras_tuner.Objective("val_accuracy", "max")
        tuner = Noted(
            build, objective=objective, max_epochs=EPOCHS, hyperband_iterations=100, directory=folder, seed=train.seed
        )
        tuner.search(train.x, train.y, batch_size=BATCH, validation_split=0.2, verbose=0)


def _folds(train: Problem) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(train.x, train.y))


def _curve(train: Problem, recipe: Mapping[str, float], split: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    inside, held = split
    y = train.y
    fit = train.network(**recipe).fit(
        train.x[inside], y[inside], batch_size=BATCH, epochs=EPOCHS, validation_data=(train.x[held], y[held]), verbose=0
    )
    return np.array(fit.history["val_accuracy"])


def _suggested(suggest: Any) -> dict[str, float]:
    return {name: suggest(name, *ends, log=name != "dropout") for name, ends in RANGES.items()}


def tpe(train: Problem, note: Note, budget: float) -> None:
    """Optuna's TPE over `fit` on five folds, the number of epochs read off the mean curve."""
    import optuna

    best = [-np.inf]

    def objective(trial: Any) -> float:
        recipe = _suggested(trial.suggest_float)
        curve = np.mean([_curve(train, recipe, split) for split in _folds(train)], 0)
        if curve.max() > best[0]:
            best[0] = curve.max()
            note({**recipe, "epochs": int(curve.argmax()) + 1})
        return float(curve.max())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=train.seed))
    study.optimize(objective, timeout=budget)


def asha(train: Problem, note: Note, budget: float) -> None:
    """Ray Tune's ASHA on one validation split, a trial on each core."""
    import keras
    import ray
    from ray import tune

    split = _folds(train)[0]

    def objective(config: dict[str, float]) -> None:
        inside, held = split
        y = train.y

        report = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: tune.report({"accuracy": logs["val_accuracy"]})
        )
        train.network(**config).fit(
            train.x[inside], y[inside], batch_size=BATCH, epochs=EPOCHS, validation_data=(train.x[held], y[held]),
            verbose=0, callbacks=[report],
        )  # fmt: skip

    best = [-np.inf]

    class Noted(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if result["accuracy"] > best[0]:
                best[0] = result["accuracy"]
                note({**trial.config, "epochs": result["training_iteration"]})

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    space = {name: (tune.uniform if name == "dropout" else tune.loguniform)(*ends) for name, ends in RANGES.items()}
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=-1, time_budget_s=budget, scheduler=tune.schedulers.ASHAScheduler(max_t=EPOCHS)
        ),
        run_config=tune.RunConfig(callbacks=[Noted()], verbose=0),
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.fit()


CONTENDERS: Mapping[str, tuple[Callable[[Problem, Note, float], None], tuple[str, ...]]] = {
    "Regularity": (regularity, ("regularity", "regularity.study")),
    "KerasTuner, Hyperband": (hyperband, ("keras", "keras_tuner")),
    "Optuna, TPE + fit": (tpe, ("keras", "optuna", "sklearn.model_selection")),
    "Ray Tune, ASHA": (asha, ("keras", "ray.tune")),
}


def contend(name: str, budget: float, width: int, seed: int) -> None:
    """Run one contender and print what it notes, a line of JSON each."""
    import importlib

    warnings.simplefilter("ignore")
    run, imports = CONTENDERS[name]
    for module in imports:
        importlib.import_module(module)
    out, train, begun = sys.stdout, problem(width, ROWS, seed), time.perf_counter()

    def note(recipe: Mapping[str, float], who: str = name) -> None:
        values = {key: float(value) for key, value in recipe.items()}
        line = {"who": who, "budget": budget, "seconds": time.perf_counter() - begun, "recipe": values}
        print(json.dumps(line), file=out, flush=True)

    run(train, note, budget)


def noted(name: str, budget: float, width: int, seed: int) -> list[dict[str, Any]]:
    """What a contender notes in a process of its own."""
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.quality",
        "--contend",
        name,
        "--limit",
        str(budget),
        "--width",
        str(width),
        "--seed",
        str(seed),
    ]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        out, errors = process.communicate(timeout=2 * budget + 60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not lines:
        print(f"{name} noted nothing:\n{errors[-1500:]}", file=sys.stderr)
    return [line for line in lines if name == "Regularity" or line["seconds"] <= budget]


def worth(recipes: list[Mapping[str, float]], width: int, seed: int) -> list[float]:
    """Accuracy of each recipe on fresh rows, refitted on all rows, the mean over seeds."""
    import regularity as rg

    train, fresh = problem(width, ROWS, seed), problem(width, FRESH, 1_000_000 + seed)
    whole = [rg.Recipe({**recipe, "epochs": int(recipe.get("epochs", EPOCHS))}) for recipe in recipes]
    members = rg.train(train.network(), train.x, train.y, whole, seeds=SEEDS, batch_size=BATCH, verbose=0)
    found: dict[int, list[float]] = {}
    for i, member in enumerate(members):
        shown = member.model.predict(fresh.x, batch_size=2048, verbose=0)
        found.setdefault(i // SEEDS, []).append(float((shown.argmax(1) == fresh.y).mean()))
    return [float(np.mean(found[i])) for i in range(len(whole))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each peer")
    parser.add_argument("--width", type=int, default=WIDTH, help="units of each hidden layer")
    parser.add_argument("--seeds", type=int, default=3, help="data sets")
    parser.add_argument("--peers", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="seconds of each of our searches")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend, options.limit, options.width, options.seed)
        return
    print(machine.describe(), file=sys.stderr)
    table: list[dict[str, Any]] = []
    for seed in range(_FIRST, _FIRST + options.seeds):
        (plain,) = worth([{}], options.width, seed)
        print(f"data set {seed}: the model as given, {EPOCHS} epochs: {100 * plain:.1f}", file=sys.stderr)
        table.append({"data": seed, "accuracy": plain, "who": _GIVEN, "budget": 0.0, "seconds": 0.0, "recipe": {}})
        for name in options.peers:
            budgets = options.budgets if name == "Regularity" else (options.limit,)
            lines = [line for budget in budgets for line in noted(name, budget, options.width, seed)]
            accuracies = worth([line["recipe"] for line in lines], options.width, seed) if lines else []
            for line, accuracy in zip(lines, accuracies, strict=True):
                table.append({"data": seed, "accuracy": accuracy, **line})
                print(f"{line['who']} {line['seconds']:.1f} s {100 * accuracy:.1f} {line['recipe']}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(table, indent=1) + "\n")
    show(pd.DataFrame(table))


def show(table: pd.DataFrame) -> None:
    """How good what each had found after so many seconds is on fresh rows, the mean over data sets; and who needs how long."""
    times, sets = [10, 20, 30, 60, 120, 300, 600], table["data"].unique()
    curves = {who: _curve_of(rows, sets) for who, rows in table.groupby("who", sort=False)}
    print("| accuracy on fresh rows after | " + " | ".join(f"{t} s" for t in times) + " |")
    print("| --- " * (len(times) + 1) + "|")
    for who, curve in curves.items():
        had = [curve[curve.index <= 1.15 * t].dropna() for t in times]
        print(f"| {who} | " + " | ".join(f"{100 * c.iloc[-1]:.1f}" if len(c) else "" for c in had) + " |")
    peers = [who for who in curves if who not in (_GIVEN, _ANSWER, _BEST)]
    print("\n| | seconds | accuracy | " + " | ".join(f"{who}: as good after" for who in peers) + " |")
    print("| --- " * (len(peers) + 3) + "|")
    for (who, _), ours in table[table["who"].isin([_ANSWER, _BEST])].groupby(["who", "budget"]):
        if len(ours) < len(sets):
            continue
        seconds, accuracy = ours["seconds"].mean(), ours["accuracy"].mean()
        cells = []
        for peer in peers:
            good = curves[peer][curves[peer] >= accuracy]
            limit = table.loc[table["who"] == peer, "budget"].max()
            needs = f"{good.index[0]:.0f} s, {good.index[0] / seconds:.0f} ×" if len(good) else f"not in {limit:.0f} s"
            cells.append(needs)
        print(f"| {who} | {seconds:.1f} | {100 * accuracy:.1f} | {' | '.join(cells)} |")


def _curve_of(rows: pd.DataFrame, sets: np.ndarray) -> pd.Series:
    """The mean over data sets of what a contender had at each second at which it noted something; NaN before it has in all."""
    found = rows.pivot_table(index="seconds", columns="data", values="accuracy").reindex(columns=sets)
    return found.ffill().mean(axis=1, skipna=False)


if __name__ == "__main__":
    main()
