"""Everyone who is timed. Each runs in a process of its own: `python -m benchmarks.contenders NAME ...` prints JSON.

The clock starts when imports are done and data and one model are at hand, and stops when every candidate has its score on
the validation rows. Whoever trains in Keras scores after each epoch, as `fit` with `validation_data` does; scikit-learn
scores once, at the end.
"""

import argparse
import contextlib
import importlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.problem import BATCH, STEPS, Kind, Rows, program, recipe, rows, strengths

# From strengths and epochs to the validation accuracy of each candidate: its best epoch's, or scikit-learn's last.
Search = Callable[[Kind, Sequence[float], int, Rows, Rows], list[float]]


def regularity(kind: Kind, values: Sequence[float], epochs: int, train: Rows, validation: Rows) -> list[float]:
    import regularity as rg

    recipes = [recipe(kind, value) for value in values]
    model = program(kind)
    members = rg.train(model, *train, recipes=recipes, epochs=epochs, batch_size=BATCH, validation_data=validation)
    return [max(member.history["val_accuracy"]) for member in members]


def keras_tuner(kind: Kind, values: Sequence[float], epochs: int, train: Rows, validation: Rows) -> list[float]:
    import keras_tuner

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        tuner = keras_tuner.GridSearch(
            lambda hp: program(kind, hp.Choice("strength", list(values))),
            objective=keras_tuner.Objective("val_accuracy", "max"),
            directory=folder,
        )
        tuner.search(*train, epochs=epochs, batch_size=BATCH, validation_data=validation, verbose=0)
        return [trial.score for trial in tuner.oracle.trials.values()]


def optuna(kind: Kind, values: Sequence[float], epochs: int, train: Rows, validation: Rows) -> list[float]:
    import optuna

    def objective(trial: optuna.Trial) -> float:
        model = program(kind, trial.suggest_categorical("strength", list(values)))
        fit = model.fit(*train, epochs=epochs, batch_size=BATCH, validation_data=validation, verbose=0)
        return max(fit.history["val_accuracy"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler({"strength": list(values)}))
    study.optimize(objective, n_trials=len(values))
    return [trial.value for trial in study.trials if trial.value is not None]


def scikit_learn(kind: Kind, values: Sequence[float], epochs: int, train: Rows, validation: Rows) -> list[float]:
    """The nearest that it has: one L2 penalty on all kernels, no L1, no dropout."""
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    assert kind == "l1l2"
    network = MLPClassifier((64, 64), batch_size=BATCH, max_iter=epochs, n_iter_no_change=epochs + 1, random_state=0)
    split = PredefinedSplit([-1] * len(train.x) + [0] * len(validation.x))
    search = GridSearchCV(network, {"alpha": list(values)}, cv=split, n_jobs=-1, refit=False)
    search.fit(np.concatenate([train.x, validation.x]), np.concatenate([train.y, validation.y]).argmax(1))
    return list(search.cv_results_["mean_test_score"])


SEARCHES: dict[str, Search] = {
    "Regularity": regularity,
    "KerasTuner": keras_tuner,
    "Optuna + fit": optuna,
    "scikit-learn": scikit_learn,
}
_IMPORTS = {
    "Regularity": ["keras", "regularity", "regularity.population", "regularity.recipe"],
    "KerasTuner": ["keras", "keras_tuner"],
    "Optuna + fit": ["keras", "optuna"],
    "scikit-learn": ["sklearn.model_selection", "sklearn.neural_network"],
}


def import_all(name: str) -> None:
    """Import what a contender needs, so that no clock sees it; scikit-learn's processes are started, too."""
    warnings.simplefilter("ignore")
    for module in _IMPORTS[name]:
        importlib.import_module(module)
    if "keras" in _IMPORTS[name]:
        with contextlib.suppress(ImportError):  # where it is installed, Keras imports it with the first model it copies
            importlib.import_module("tensorflow")
    if name == "scikit-learn":
        train, validation = rows()
        scikit_learn(
            "l1l2", strengths("l1l2", 64), 1, Rows(*(a[:64] for a in train)), Rows(*(a[:64] for a in validation))
        )


def search(name: str, kind: Kind, epochs: int, trials: int) -> dict[str, float]:
    """Time a contender's search over `trials` strengths."""
    import_all(name)
    train, validation = rows()
    values = strengths(kind, trials)
    if "keras" in _IMPORTS[name]:
        program(kind)  # whoever searches has a model: in a new process, Keras takes a second for the first
    start = time.perf_counter()
    accuracies = SEARCHES[name](kind, values, epochs, train, validation)
    seconds = time.perf_counter() - start
    if len(accuracies) != trials:
        raise RuntimeError(f"{name} scored {len(accuracies)} candidates where {trials} were asked for.")
    return {"seconds": seconds, "accuracy": float(max(accuracies))}


def warm_steps(name: str, kind: Kind, epochs: int, repeats: int = 3) -> dict[str, float]:
    """Time a contender's training steps alone: once everything is compiled, and with no validation."""
    import_all(name)
    train, _ = rows()
    if name == "Regularity":
        from benchmarks.engine import Engine

        engine = Engine(kind, strengths(kind), train, metrics=("accuracy",))
        members, run = len(engine.recipes), engine.train
    else:
        model = program(kind)
        members = 1

        def run(epochs: int) -> None:
            model.fit(*train, epochs=epochs, batch_size=BATCH, verbose=0)

    run(2)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(epochs)
        times.append(time.perf_counter() - start)
    return {"microseconds": float(np.median(times)) / (members * STEPS * epochs) * 1e6}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["search", "warm_steps"])
    parser.add_argument("name", choices=SEARCHES)
    parser.add_argument("kind")
    parser.add_argument("epochs", type=int)
    parser.add_argument("--trials", type=int)
    options = parser.parse_args()
    if options.what == "search":
        print(json.dumps(search(options.name, options.kind, options.epochs, options.trials)))
    else:
        print(json.dumps(warm_steps(options.name, options.kind, options.epochs)))
