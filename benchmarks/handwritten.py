"""The engine's peer: a population of the dropout program's net written by hand in JAX, with no Keras.

One lane (a thread) a core; in a lane a chunk of members trains through all its epochs, by a scan over steps of a vmap
over members. One batch for all members; dropout, Adam and loss are those of Keras, and each member has its own rate.
Masks are drawn as Keras draws them, a number of 32 bits a unit from the same hash; of a hash both words are used, where
`jax.random.uniform` joins them to one.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

LEARNING_RATE, DECAY_1, DECAY_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7  # Keras's Adam
# LLVM prefers vectors of 256 bits, even where a core has 512.
_OPTIONS = {"cpu": {"xla_cpu_prefer_vector_width": 512}}


class State(NamedTuple):
    """Of one member; a chunk's has a leading axis of members."""

    weights: Any  # a list of (kernel, bias)
    mean: Any  # Adam's moments
    square: Any
    steps: jax.Array
    key: jax.Array


def fresh(key: jax.Array, sizes: Sequence[int]) -> State:
    keys = jax.random.split(key, len(sizes))
    draw = jax.nn.initializers.glorot_uniform()
    weights = [(draw(k, (a, b)), jnp.zeros(b)) for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, jax.tree.map(jnp.zeros_like, zeros), jnp.float32(0), keys[-1])


def loss(weights: Any, masks: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of a batch x (batch, features), y (batch, classes)."""
    for (kernel, bias), mask in zip(weights[:-1], masks, strict=True):
        x = jax.nn.relu(x @ kernel + bias) * mask
    kernel, bias = weights[-1]
    return -jnp.sum(jax.nn.log_softmax(x @ kernel + bias) * y) / len(x)


def dropout_masks(key: jax.Array, rate: jax.Array, weights: Any, rows: int) -> list[jax.Array]:
    """What to multiply each hidden layer's (rows, units) by: 0, or 1 / (1 - rate)."""
    units = [len(bias) for _, bias in weights[:-1]]
    bits = threefry_2x32(jax.random.key_data(key), jnp.arange(rows * sum(units), dtype="uint32"))
    uniform = (bits >> 8).astype("float32") / 2**24
    masks = jnp.where(uniform >= rate, 1 / (1 - rate), 0)
    ends = np.cumsum([rows * n for n in units])[:-1]
    return [mask.reshape(rows, n) for mask, n in zip(jnp.split(masks, ends), units, strict=True)]


def step(state: State, rate: jax.Array, batch: tuple[jax.Array, jax.Array]) -> State:
    key, here = jax.random.split(state.key)
    masks = dropout_masks(here, rate, state.weights, len(batch[0]))
    gradient = jax.grad(loss)(state.weights, masks, *batch)
    steps = state.steps + 1
    mean = jax.tree.map(lambda m, g: m + (1 - DECAY_1) * (g - m), state.mean, gradient)
    square = jax.tree.map(lambda v, g: v + (1 - DECAY_2) * (g * g - v), state.square, gradient)
    size = LEARNING_RATE * jnp.sqrt(1 - DECAY_2**steps) / (1 - DECAY_1**steps)
    weights = jax.tree.map(lambda w, m, v: w - size * m / (jnp.sqrt(v) + EPSILON), state.weights, mean, square)
    return State(weights, mean, square, steps, key)


def epoch(state: State, rates: jax.Array, batches: tuple[jax.Array, jax.Array]) -> State:
    """Train a chunk on batches of (steps, batch, ...)."""
    members = jax.vmap(step, in_axes=(0, 0, None))
    return jax.lax.scan(lambda state, batch: (members(state, rates, batch), None), state, batches)[0]


class Population:
    """Members in chunks of one size, compiled and ready to train.

    Args:
        rates: A dropout rate a member.
        chunk: Members trained together; divides their number.
        x: Rows of (rows, features); what doesn't fill a batch is left out.
        y: One-hot labels of (rows, classes).
        batch_size: Rows of a step.
        widths: Units of the hidden layers.
    """

    def __init__(
        self, rates: Sequence[float], chunk: int, x: np.ndarray, y: np.ndarray, batch_size: int, widths: Sequence[int]
    ) -> None:
        self.steps = len(x) // batch_size
        rows = self.steps * batch_size
        self._batches = tuple(jnp.asarray(a[:rows]).reshape(self.steps, batch_size, -1) for a in (x, y))
        sizes = [x.shape[1], *widths, y.shape[1]]
        keys = jax.random.split(jax.random.key(0), len(rates))
        start = jax.jit(jax.vmap(lambda key: fresh(key, sizes)))
        self._states = [start(keys[i : i + chunk]) for i in range(0, len(rates), chunk)]
        self._rates = [jnp.asarray(rates[i : i + chunk], "float32") for i in range(0, len(rates), chunk)]
        jitted = jax.jit(epoch, donate_argnums=0)
        self._epoch = jitted.lower(self._states[0], self._rates[0], self._batches).compile(
            _OPTIONS.get(jax.default_backend())
        )
        self._lanes = ThreadPoolExecutor(os.cpu_count())

    def train(self, epochs: int) -> None:
        def lane(chunk: int) -> None:
            for _ in range(epochs):
                self._states[chunk] = self._epoch(self._states[chunk], self._rates[chunk], self._batches)
            jax.block_until_ready(self._states[chunk])

        list(self._lanes.map(lane, range(len(self._states))))


def main() -> None:
    """Time it alone: microseconds a member-step for several chunks."""
    from benchmarks.problem import BATCH, WIDTHS, rows, strengths

    train, _ = rows()
    for chunk in (4, 8, 16, 32):
        population = Population(strengths("dropout"), chunk, *train, BATCH, WIDTHS)
        population.train(1)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            population.train(10)
            times.append(time.perf_counter() - start)
        member_steps = 10 * population.steps * len(strengths("dropout"))
        print(f"chunk {chunk}: {np.median(times) / member_steps * 1e6:.1f} us a member-step")


if __name__ == "__main__":
    main()
