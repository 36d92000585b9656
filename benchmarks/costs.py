"""What each technique adds to a training step in a population, beside what it declares. `python -m benchmarks.costs` prints JSON.

Names with `+` between are techniques in one step.
"""

import argparse
import json
import math
import sys
from typing import Any

import numpy as np

from benchmarks.engine import MANY, timed
from benchmarks.problem import BATCH, CLASSES, Rows, rows

MEMBERS = 64
# What stands in the forward pass, the backward pass and the batch is compiled as one, and may be computed several times.
TOGETHER = "mixup+input_noise+swap_noise+dropout+label_smoothing+l1+weight_decay+max_norm"

# What has no place in a dense net, or was made for images or sequences, and the net that it is timed in.
NETS = {
    **dict.fromkeys(
        ("spatial_dropout", "cutmix", "cutout", "time_mask", "frequency_mask", "augment", "drop_block"), "images"
    ),
    **dict.fromkeys(("drop_path", "shake_drop"), "residual"),
    "shake_shake": "two branches",
    **dict.fromkeys(
        ("variational_dropout", "recurrent_dropout", "recurrent_drop_connect", "embedding_dropout"), "words"
    ),
    **dict.fromkeys(("attention_dropout", "token_dropout", "temporal_activity"), "words"),
    "r_drop": "noisy",
}
# Nets whose step takes so long that fewer epochs tell as much: by how much to divide them.
SLOW = {"words": 5, "images": 2}


def plain(net: str) -> tuple[Any, Rows]:
    """A net to put a technique into: the post's of 100-64-64-10, the same with dropout, a residual block or one of two branches, or another."""
    import keras
    from keras import layers

    train, _ = rows()
    full = len(train.x) // BATCH * BATCH
    x, y = train.x[:full], train.y[:full]
    if net == "images":
        x = x.reshape(-1, 10, 10, 1)
    if net == "words":
        x = np.digitize(x[:, :20], np.linspace(-2, 2, 31)).astype("int32")
    inputs = keras.Input(x.shape[1:], dtype=str(x.dtype))
    if net == "words":
        states = layers.LSTM(16, return_sequences=True)(layers.Embedding(32, 16)(inputs))
        hidden = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 8)(states, states))
    elif net == "images":
        hidden = layers.Conv2D(8, 3, activation="relu")(inputs)
        hidden = layers.Flatten()(layers.Conv2D(16, 3, strides=2, activation="relu")(hidden))
    else:
        stem = layers.Dense(64, activation="relu")(inputs)
        stem = layers.Dropout(0.3)(stem) if net == "noisy" else stem
        hidden = layers.Dense(64, activation="relu")(stem)
        hidden = layers.Add()([stem, hidden]) if net == "residual" else hidden
        hidden = layers.Add()([stem, hidden, layers.Dense(64, "relu")(stem)]) if net == "two branches" else hidden
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(hidden))
    model.compile("adam", "categorical_crossentropy")
    return model, Rows(x, y)


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
        trainer = Trainer(model, Plan(to_data(model, *train), BATCH, calls=MANY), MEMBERS)

        def run(epochs: int) -> None:
            trainer.train([Task(values, seed, epochs) for seed in range(MEMBERS)])

        run(1)  # compiles
        return run

    names = names or [*rg.techniques(), TOGETHER]
    nets = {name: next((NETS[part] for part in name.split("+") if part in NETS), "dense") for name in names}
    made = {net: plain(net) for net in set(nets.values())}
    without = {net: ready(*made[net], {}) for net in made}
    found = []
    for name in names:
        techniques, net = [rg.techniques()[part] for part in name.split("+")], nets[name]
        model, train = made[net]
        beside = ready(model, train, {technique.name: strength_of(technique) for technique in techniques})
        passes = max(1, epochs // SLOW.get(net, 1))
        times = [(timed(without[net], passes), timed(beside, passes)) for _ in range(repeats)]
        steps = passes * (len(train.x) // BATCH) * MEMBERS
        microseconds = float(np.median([a for a, _ in times])) / steps * 1e6
        ratio = float(np.median([b / a for a, b in times]))
        declared = math.prod(technique.cost for technique in techniques)
        found.append({"technique": name, "net": net, "plain": microseconds, "ratio": ratio, "declared": declared})
        print(f"{name}: {ratio:.2f} of {microseconds:.1f}", file=sys.stderr, flush=True)
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
