"""Known answers: how often a search says that regularization helps, where it cannot and where it does.

    python -m benchmarks.verdicts --scenario gain --seeds 100

Each seed draws its own data from a source that can be asked for any number of fresh rows, so that what a study reports is
held against what it truly gets. A seed that is done is kept in the output file, and a later run takes those that are
missing; `--part 0 --of 2` and `--part 1 --of 2` share them between two processes.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

import regularity as rg

_FRESH = 20_000
_REFITS = 3
_TECHNIQUES = ("weight_decay", "label_smoothing", "mixup")


class Scenario(NamedTuple):
    """Where the answer is known.

    Args:
        rows: To search on.
        inputs: Numbers a row, standard normal.
        used: How many of them the labels depend on, linearly.
        flipped: Share of labels that are drawn at random besides: 1 is noise alone.
        hidden: Units of the hidden layers.
        epochs: How long members train, in steps of 64 rows, where that is not found.
        rate: Of Adam.
        own: Techniques that are tried besides those that are for any network.
    """

    rows: int
    inputs: int
    used: int
    flipped: float
    hidden: tuple[int, ...]
    epochs: int
    rate: float
    own: tuple[str, ...] = ("dropout",)

    @property
    def techniques(self) -> list[str]:
        return [*_TECHNIQUES, *self.own]


SCENARIOS = {
    # labels are coins: nothing can help
    "noise": Scenario(600, 10, 1, 1.0, (32,), 10, 0.005),
    # clean, and large for a network without hidden layers: what it lacks is time, not regularization
    "linear": Scenario(4000, 5, 5, 0.0, (), 10, 0.02, ("input_noise",)),
    # few rows with wrong labels for a wide network: with 0.6 of the units left out it is 3.2 points better on fresh rows
    "gain": Scenario(2800, 40, 10, 0.3, (96, 96), 10, 0.005),
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
    model.compile(keras.optimizers.Adam(scenario.rate), "sparse_categorical_crossentropy")
    return model


def one(scenario: Scenario, seed: int, trials: int, epochs: int | None) -> dict[str, Any]:
    """Search on one draw, and see what its answers get on fresh rows."""
    x, y = draw(scenario, scenario.rows, seed)
    began = time.perf_counter()
    study = rg.search(
        network(scenario), x, y, scenario.techniques, trials,
        epochs=epochs, batch_size=64, storage="sqlite://", seed=seed, verbose=0,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    given = {"epochs": int(study.table["epochs"].iloc[0])}
    best, as_given = fresh(scenario, seed, [json.loads(study.best.to_json()), given])
    differences = study._found.judged.differences("as given").mean(1)
    return {
        "seed": seed, "verdict": study.verdict, "best": best, "as_given": as_given, "reported": float(study.comparison["score"].iloc[0]),
        "reported_as_given": study.as_given.value, "differences": differences.tolist(),
        "tied": study._found.choice.tied, "recipe": json.loads(study.best.to_json()), "seconds": seconds,
    }  # fmt: skip


def fresh(scenario: Scenario, seed: int, recipes: list[dict[str, Any]]) -> list[float]:
    """Accuracy of recipes trained on all rows of a draw, on rows that nothing has seen, the mean of some seeds."""
    x, y = draw(scenario, scenario.rows, seed)
    rows, classes = draw(scenario, _FRESH, seed + 10_000)
    off = dict.fromkeys(scenario.techniques, 0.0)  # where a recipe has none: then every seed's program is the same
    members = rg.train(network(scenario), x, y, [off | r for r in recipes], seeds=_REFITS, batch_size=64, verbose=0)
    model, found = network(scenario), []
    for member in members:
        model.set_weights(member.model.get_weights())
        found.append(np.mean(np.asarray(model.predict_on_batch(rows)).argmax(-1) == classes))
    return np.reshape(found, (len(recipes), _REFITS)).mean(1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="gain")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--found", action="store_true", help="have the search find how long members train")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("verdicts"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    compile_once(options.out / "compiled")
    file = options.out / f"{options.scenario}-{options.trials}{'-found' if options.found else ''}.jsonl"
    for seed in range(options.part, options.seeds, options.of):
        if seed in {f["seed"] for f in _done(file)}:
            continue
        scenario = SCENARIOS[options.scenario]
        found = one(scenario, seed, options.trials, None if options.found else scenario.epochs)
        with file.open("a") as out:
            out.write(json.dumps(found) + "\n")
        print(seed, found["verdict"], found["recipe"], f"{found['seconds']:.1f} s", flush=True)
        keras.backend.clear_session()
    print(summary(options.scenario, _done(file)))


def compile_once(folder: Path) -> None:
    """Have JAX keep what it compiles: every seed of a scenario has the same programs."""
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _done(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def summary(name: str, found: list[dict[str, Any]]) -> str:
    """The figures, with 95 % intervals."""
    from scipy.stats import binomtest

    def share(hits: int, of: int) -> str:
        if not of:
            return "none"
        low, high = binomtest(hits, of).proportion_ci()
        return f"{hits} of {of} ({hits / of:.0%}, {low:.1%} to {high:.1%})"

    def mean(values: list[float]) -> str:
        return f"{100 * np.mean(values):+.2f} ± {196 * np.std(values, ddof=1) / np.sqrt(len(values)):.2f} points"

    helped = [f for f in found if f["verdict"] == "helps"]
    answer = [("best", "reported") if f["verdict"] == "helps" else ("as_given", "reported_as_given") for f in found]
    return "\n".join(
        [
            f"{name}: {len(found)} seeds, {np.mean([f['seconds'] for f in found]):.1f} s a search",
            f"  says helps: {share(len(helped), len(found))}",
            f"  as given, on fresh rows: {np.mean([f['as_given'] for f in found]):.2%}",
            f"  what was chosen minus as given, on fresh rows: {mean([f['best'] - f['as_given'] for f in found])}",
            f"  where it says helps, better than as given on fresh rows: {share(sum(f['best'] > f['as_given'] for f in helped), len(helped))}",
            f"  what was chosen is better than as given on fresh rows: {share(sum(f['best'] > f['as_given'] for f in found), len(found))}",
            f"  reported minus fresh, of the answer: {mean([f[r] - f[b] for f, (b, r) in zip(found, answer, strict=True)])}",
            f"  reported minus fresh, of what was chosen: {mean([f['reported'] - f['best'] for f in found])}",
        ]
    )


if __name__ == "__main__":
    main()
