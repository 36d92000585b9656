"""Time to the same quality: the search beside KerasTuner's Hyperband, Optuna's TPE with `fit`, and Ray Tune's ASHA.

    python -m benchmarks.quality --limit 300

The data come from a source of which any number of fresh rows can be drawn, so what a recipe is worth is known: few
noisy rows, a net that overfits them, and eight inputs of two hundred that matter. Everybody looks for the same `--techniques`,
each of them off or on in the same range, for the same net of `--width` units in its two hidden layers; peers train it with
`fit`, by the same components. (A net with L1, dropout and weight decay so put in takes as long as one of stock Keras: 1.10 for
1.04 seconds of 50 epochs; with all eight 2.5.) Peers train for 50 epochs at most and are taken at their best epoch, ours finds
how long. Each runs in a process of its own that is ended after `--limit` seconds, imports not counted, but those of Ray's
workers, once; TPE trains one fold after the other. Whenever a contender has a new best it is noted with the time. Each of these
is then refitted on all rows with three seeds and judged on fresh rows.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from benchmarks import machine

ROWS, INPUTS, USED, NOISE, FRESH = 600, 200, 8, 0.5, 20_000
WIDTH, BATCH, EPOCHS, FOLDS, SEEDS = 64, 32, 50, 5, 3
TECHNIQUES = ("l1", "dropout", "weight_decay", "label_smoothing", "mixup", "input_noise", "max_norm", "swap_noise")
BUDGETS = (10, 20, 40)  # seconds of our searches
_FIRST = 100  # data set: how the search begins and chooses was worked out on some of the first ten
_GIVEN, _ANSWER, _BEST = "as given", "Regularity, the answer", "Regularity, the best guess"


class Problem(NamedTuple):
    """What contenders are given: inputs, float32 of (rows, 200), classes, int32 of (rows,), how wide the net is, what to try, a seed."""

    x: np.ndarray
    y: np.ndarray
    width: int
    techniques: Sequence[str]
    seed: int

    def network(self) -> Any:
        """The net as given."""
        import keras

        hidden = [keras.layers.Dense(self.width, "relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((INPUTS,)), *hidden, keras.layers.Dense(2, "softmax")])
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def suggested(self, trial: Any) -> dict[str, float]:
        """The recipe that something with the `suggest_float` and `suggest_categorical` of an Optuna trial suggests."""
        import regularity as rg

        return rg.Space(dict.fromkeys(self.techniques)).suggested(trial)


def problem(width: int, techniques: Sequence[str], count: int, seed: int) -> Problem:
    """Two classes by the sign of a sum of a few inputs and of products of them, with noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, INPUTS)).astype("float32")
    signal = x[:, :USED].sum(1) + x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3]
    y = (signal + NOISE * np.sqrt(USED) * random.normal(size=count) > 0).astype("int32")
    return Problem(x, y, width, techniques, seed)


# A contender is given the rows and what it calls with each new best: a recipe, and a name if not its own.
Note = Callable[..., None]


def regularity(train: Problem, note: Note, budget: float) -> None:
    import regularity as rg

    study = rg.search(
        train.network(), train.x, train.y, list(train.techniques), budget=budget, batch_size=BATCH, storage="sqlite://", seed=train.seed
    )  # fmt: skip
    note(json.loads(study.recipe.to_json()), _ANSWER)
    note(json.loads(study.best.to_json()), _BEST)


def hyperband(train: Problem, note: Note, budget: float) -> None:
    """KerasTuner's, on one validation split, as it is used."""
    import keras_tuner

    import regularity as rg

    best = [-np.inf]

    class Asked(NamedTuple):
        """KerasTuner's numbers under the names of Optuna's."""

        hp: Any

        def suggest_categorical(self, name: str, choices: list[bool]) -> bool:
            return bool(
                self.hp.Boolean(name, default=True)
            )  # what the first, which has the defaults, leaves out is unknown

        def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
            return float(self.hp.Float(name, low, high, sampling="log" if log else "linear"))

    class Noted(keras_tuner.Hyperband):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            if trial.score is not None and trial.score > best[0]:
                best[0] = trial.score
                before = trial.hyperparameters.values.get("tuner/initial_epoch", 0)
                note({**train.suggested(Asked(trial.hyperparameters)), "epochs": before + trial.best_step + 1})

    def build(hp: Any) -> Any:
        return rg.Recipe(train.suggested(Asked(hp))).apply(train.network())

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        objective = keras_tuner.Objective("val_accuracy", "max")
        tuner = Noted(
            build, objective=objective, max_epochs=EPOCHS, hyperband_iterations=100, directory=folder, seed=train.seed
        )
        tuner.search(train.x, train.y, batch_size=BATCH, validation_split=0.2, verbose=0)


def _folds(train: Problem) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(train.x, train.y))


def _curve(
    train: Problem, recipe: Mapping[str, float], split: tuple[np.ndarray, np.ndarray], callbacks: Sequence[Any] = ()
) -> np.ndarray:
    """Held-out accuracy of a recipe after each epoch."""
    import regularity as rg

    inside, held = split
    fit = rg.Recipe(recipe).apply(train.network()).fit(
        train.x[inside], train.y[inside], batch_size=BATCH, epochs=EPOCHS, validation_data=(train.x[held], train.y[held]),
        verbose=0, callbacks=list(callbacks),
    )  # fmt: skip
    return np.array(fit.history["val_accuracy"])


def tpe(train: Problem, note: Note, budget: float) -> None:
    """Optuna's TPE over `fit` on five folds, the number of epochs read off the mean curve."""
    import optuna

    best = [-np.inf]

    def objective(trial: Any) -> float:
        recipe = train.suggested(trial)
        curve = np.mean([_curve(train, recipe, split) for split in _folds(train)], 0)
        if curve.max() > best[0]:
            best[0] = curve.max()
            note({**recipe, "epochs": int(curve.argmax()) + 1})
        return float(curve.max())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=train.seed))
    study.optimize(objective, timeout=budget)


def asha(train: Problem, note: Note, budget: float) -> None:
    """Ray Tune's ASHA on one validation split, a trial on each core, its recipes at random."""
    import keras
    import ray
    from ray import tune

    split, space, best = _folds(train)[0], {}, [-np.inf]

    class Asked(NamedTuple):
        """Ray's numbers under the names of Optuna's."""

        config: Mapping[str, Any]

        def suggest_categorical(self, name: str, choices: list[bool]) -> bool:
            space[name] = tune.choice(choices)
            return self.config.get(name, True)

        def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
            space[name] = (tune.loguniform if log else tune.uniform)(low, high)
            return self.config.get(name, low)

    def objective(config: dict[str, Any]) -> None:
        report = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: tune.report({"accuracy": logs["val_accuracy"]})
        )
        _curve(train, train.suggested(Asked(config)), split, [report])

    class Noted(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if result["accuracy"] > best[0]:
                best[0] = result["accuracy"]
                note({**train.suggested(Asked(trial.config)), "epochs": result["training_iteration"]})

    train.suggested(Asked({}))  # fills the space
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=-1, time_budget_s=budget,
            scheduler=tune.schedulers.ASHAScheduler(max_t=EPOCHS),
            search_alg=tune.search.BasicVariantGenerator(random_state=train.seed),
            reuse_actors=True,  # else each trial would import Keras anew
        ),
        run_config=tune.RunConfig(callbacks=[Noted()], verbose=0),
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.fit()


CONTENDERS: Mapping[str, tuple[Callable[[Problem, Note, float], None], tuple[str, ...]]] = {
    "Regularity": (regularity, ("regularity", "regularity.study")),
    "KerasTuner, Hyperband": (hyperband, ("keras_tuner", "regularity.study")),
    "Optuna, TPE + fit": (tpe, ("optuna", "regularity.study")),
    "Ray Tune, ASHA": (asha, ("ray.tune", "regularity.study")),
}


def contend(name: str, budget: float, train: Problem) -> None:
    """Run one contender and print what it notes, a line of JSON each."""
    import importlib

    warnings.simplefilter("ignore")
    run, imports = CONTENDERS[name]
    for module in imports:
        importlib.import_module(module)
    out, begun = sys.stdout, time.perf_counter()

    def note(recipe: Mapping[str, float], who: str = name) -> None:
        values = {key: float(value) for key, value in recipe.items()}
        line = {"who": who, "budget": budget, "seconds": time.perf_counter() - begun, "recipe": values}
        print(json.dumps(line), file=out, flush=True)

    run(train, note, budget)


def noted(name: str, budget: float, train: Problem) -> list[dict[str, Any]]:
    """What a contender notes in a process of its own."""
    arguments = [sys.executable, "-m", "benchmarks.quality", "--contend", name, "--limit", str(budget)]
    arguments += ["--width", str(train.width), "--seed", str(train.seed), "--techniques", *train.techniques]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        most = (2 if name == "Regularity" else 1) * budget + 60  # imports come besides
        out, errors = process.communicate(timeout=most)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not lines:
        print(f"{name} noted nothing:\n{errors[-1500:]}", file=sys.stderr)
    return [line for line in lines if name == "Regularity" or line["seconds"] <= budget]


def worth(recipes: list[Mapping[str, float]], train: Problem) -> list[float]:
    """Accuracy of each recipe on fresh rows, refitted on all rows, the mean over seeds."""
    import regularity as rg

    fresh = problem(train.width, train.techniques, FRESH, 1_000_000 + train.seed)
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
    parser.add_argument("--techniques", nargs="+", default=TECHNIQUES, help="what everybody looks for")
    parser.add_argument("--seeds", type=int, default=3, help="data sets")
    parser.add_argument("--peers", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="seconds of each of our searches")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend, options.limit, problem(options.width, options.techniques, ROWS, options.seed))
        return
    print(machine.describe(), file=sys.stderr)
    table: list[dict[str, Any]] = []
    for seed in range(_FIRST, _FIRST + options.seeds):
        train = problem(options.width, options.techniques, ROWS, seed)
        (plain,) = worth([{}], train)
        print(f"data set {seed}: the model as given, {EPOCHS} epochs: {100 * plain:.1f}", file=sys.stderr)
        table.append({"data": seed, "accuracy": plain, "who": _GIVEN, "budget": 0.0, "seconds": 0.0, "recipe": {}})
        for name in options.peers:
            budgets = options.budgets if name == "Regularity" else (options.limit,)
            lines = [line for budget in budgets for line in noted(name, budget, train)]
            accuracies = worth([line["recipe"] for line in lines], train) if lines else []
            for line, accuracy in zip(lines, accuracies, strict=True):
                table.append({"data": seed, "accuracy": accuracy, **line})
                print(f"{line['who']} {line['seconds']:.1f} s {100 * accuracy:.1f} {line['recipe']}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(table, indent=1) + "\n")
    show(pd.DataFrame(table))


def show(table: pd.DataFrame) -> None:
    """How good what each had found after so many seconds is on fresh rows, the mean over data sets; and who needs how long."""
    times, sets = [10, 20, 40, 80, 150, 300, 600, 900], table["data"].unique()
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
