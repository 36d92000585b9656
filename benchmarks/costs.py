"""What each technique adds to a training step in a population, beside its floor. `python -m benchmarks.costs` prints JSON."""

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.engine import timed
from benchmarks.problem import BATCH, CLASSES, Rows, rows

MEMBERS = 64


def plain() -> tuple[Any, Rows]:
    """The post's net without a technique, 100-64-64-10, with a residual block in it for what needs one."""
    import keras
    from keras import layers

    inputs = keras.Input((100,))
    stem = layers.Dense(64, activation="relu")(inputs)
    branch = layers.Dense(64, activation="relu")(stem)
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.Add()([stem, branch]))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "categorical_crossentropy")
    train, _ = rows()
    full = len(train.x) // BATCH * BATCH
    return model, Rows(train.x[:full], train.y[:full])


def sequences() -> tuple[Any, Rows]:
    """A net over (steps, features), for what needs more than one axis."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((10, 10)),
            layers.Dense(32, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy")
    train, _ = rows()
    full = len(train.x) // BATCH * BATCH
    return model, Rows(train.x[:full].reshape(-1, 10, 10), train.y[:full])


def strength_of(technique: Any) -> float:
    """One at which it acts on every step."""
    low, high = technique.range
    return float(0.5 * (low + high)) if technique.scale == "linear" else float(np.sqrt(low * high))


def compare(epochs: int, repeats: int, names: list[str]) -> list[dict[str, Any]]:
    """Time each technique and the plain model in turns, warm, in one process."""
    import regularity as rg
    from regularity.data import to_data
    from regularity.population._tasks import Plan, Task
    from regularity.population._train import Trainer, strengths_for
    from regularity.recipe import sites_of

    def ready(model: Any, train: Rows, recipe: Any) -> Any:
        (values,) = strengths_for(model, sites_of(model), [rg.Recipe(recipe)])
        trainer = Trainer(model, Plan(to_data(model, *train), BATCH), MEMBERS)

        def run(epochs: int) -> None:
            trainer.train([Task(values, seed, epochs) for seed in range(MEMBERS)])

        run(1)  # compiles
        return run

    made = {make: make() for make in (plain, sequences)}
    without = {make: ready(*made[make], {}) for make in made}
    found = []
    for name in names or list(rg.techniques()):
        technique = rg.techniques()[name]
        make = sequences if name == "spatial_dropout" else plain
        model, train = made[make]
        beside = ready(model, train, {name: strength_of(technique)})
        times = [(timed(without[make], epochs), timed(beside, epochs)) for _ in range(repeats)]
        steps = epochs * len(train.x) // BATCH * MEMBERS
        microseconds = float(np.median([a for a, _ in times])) / steps * 1e6
        ratio = float(np.median([b / a for a, b in times]))
        found.append({"technique": name, "plain": microseconds, "ratio": ratio, "floor": technique.cost})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("epochs", type=int)
    parser.add_argument("repeats", type=int)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    from benchmarks.contenders import import_all

    import_all("Regularity")
    print(json.dumps(compare(options.epochs, options.repeats, options.names)))
