"""Known answers: how often a search says that regularization helps, where it cannot and where it does.

    python -m benchmarks.verdicts --scenario gain --seeds 100

Each seed draws its own data from a source that can be asked for any number of fresh rows, so that what a study reports is
held against what it truly gets. A seed that is done is kept in the output file, and a later run goes on after it.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import regularity as rg

_FRESH = 20_000


class Scenario(NamedTuple):
    """Where the answer is known.

    Args:
        rows: To search on.
        inputs: Numbers a row, standard normal.
        used: How many of them the labels depend on, linearly.
        flipped: Share of labels that are drawn at random besides: 1 is noise alone.
        hidden: Units of the hidden layers.
        epochs: How long members train.
    """

    rows: int
    inputs: int
    used: int
    flipped: float
    hidden: tuple[int, ...]
    epochs: int


SCENARIOS = {
    # labels are coins: nothing can help
    "noise": Scenario(600, 10, 1, 1.0, (64,), 15),
    # clean, and large for the network: nothing is left to gain
    "linear": Scenario(2000, 5, 5, 0.0, (16,), 15),
    # a wide network on few rows with wrong labels
    "gain": Scenario(1500, 40, 10, 0.3, (128,), 20),
}


def draw(scenario: Scenario, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a scenario; the same seed, whatever the number of rows, has the same source."""
    random = np.random.default_rng(seed)
    direction = np.random.default_rng(7).normal(size=scenario.used)
    x = random.normal(size=(rows, scenario.inputs)).astype("float32")
    y = (x[:, : scenario.used] @ direction > 0).astype("int64")
    wrong = random.random(rows) < scenario.flipped
    return x, np.where(wrong, random.integers(0, 2, rows), y)


def network(scenario: Scenario) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((scenario.inputs,)),
            *[keras.layers.Dense(units, "relu") for units in scenario.hidden],
            keras.layers.Dense(2, "softmax"),
        ],
        name="net",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def one(scenario: Scenario, seed: int, trials: int) -> dict[str, Any]:
    """Search on one draw, and see what its answers get on fresh rows."""
    x, y = draw(scenario, scenario.rows, seed)
    fresh_x, fresh_y = draw(scenario, _FRESH, seed + 10_000)
    began = time.perf_counter()
    study = rg.search(
        network(scenario), x, y, ["weight_decay", "dropout", "label_smoothing", "mixup"], trials,
        epochs=scenario.epochs, storage="sqlite://", seed=seed, verbose=0,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    given = rg.Recipe({"epochs": int(study.table["epochs"].iloc[0])})
    members = rg.train(network(scenario), x, y, [study.best, given], seeds=3, verbose=0)
    found = [
        np.mean(np.asarray(m.model.predict(fresh_x, batch_size=4096, verbose=0)).argmax(-1) == fresh_y) for m in members
    ]
    best, as_given = float(np.mean(found[:3])), float(np.mean(found[3:]))
    row = study.comparison.loc["as given"]
    return {
        "seed": seed, "verdict": study.verdict, "best": best, "as_given": as_given, "reported": float(study.comparison["score"].iloc[0]),
        "reported_as_given": study.as_given.value, "difference": row["difference"], "error": row["difference_error"],
        "recipe": json.loads(study.best.to_json()), "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="gain")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("verdicts"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.scenario}-{options.trials}.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in range(len(done), options.seeds):
        done.append(one(SCENARIOS[options.scenario], seed, options.trials))
        with file.open("a") as out:
            out.write(json.dumps(done[-1]) + "\n")
        keras.backend.clear_session()
    print(summary(options.scenario, done))


def summary(name: str, found: list[dict[str, Any]]) -> str:
    """The figures, with 95 % intervals."""
    from scipy.stats import binomtest

    def share(hits: int, of: int) -> str:
        if not of:
            return "none"
        low, high = binomtest(hits, of).proportion_ci()
        return f"{hits} of {of} ({hits / of:.0%}, {low:.0%} to {high:.0%})"

    def mean(values: list[float]) -> str:
        return f"{100 * np.mean(values):+.2f} ± {196 * np.std(values, ddof=1) / np.sqrt(len(values)):.2f} points"

    helped = [f for f in found if f["verdict"] == "helps"]
    answer = [("best", "reported") if f["verdict"] == "helps" else ("as_given", "reported_as_given") for f in found]
    return "\n".join(
        [
            f"{name}: {len(found)} seeds, {np.mean([f['seconds'] for f in found]):.1f} s a search",
            f"  says helps: {share(len(helped), len(found))}",
            f"  what was chosen minus as given, on fresh rows: {mean([f['best'] - f['as_given'] for f in found])}",
            f"  where it says helps, better than as given on fresh rows: {share(sum(f['best'] > f['as_given'] for f in helped), len(helped))}",
            f"  what was chosen is better than as given on fresh rows: {share(sum(f['best'] > f['as_given'] for f in found), len(found))}",
            f"  reported minus fresh, of the answer: {mean([f[r] - f[b] for f, (b, r) in zip(found, answer, strict=True)])}",
            f"  reported minus fresh, of what was chosen: {mean([f['reported'] - f['best'] for f in found])}",
        ]
    )


if __name__ == "__main__":
    main()
