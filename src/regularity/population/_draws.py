"""Random bits as JAX draws them, several times as fast in a compiled loop on CPU.

JAX hashes with threefry (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3). On CPU it loops over the
rounds, and writes all words to memory after every four of them, so that programs compile sooner. Written out, the
rounds become one kernel in registers, which compiles as soon.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jax_random

from regularity import _keras

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)
# Many numbers are drawn in a loop of two: else XLA puts the hash into whatever reads them, and a mask is drawn once for
# the forward pass and once more for the backward pass.
_BLOCKS = 2
_FEW = 64


def hasten_draws(model: Any) -> None:
    """Have `model` draw by the hash written out, where it runs on CPU and JAX would draw by the same."""
    if jax.default_backend() != "cpu" or not jax.config.jax_threefry_partitionable:
        return
    if jax.config.jax_default_prng_impl != "threefry2x32":
        return
    for _, generator in _keras.seed_generators(model):
        generator.next = partial(_next, generator)


def _next(generator: Any, ordered: bool = True) -> jax.Array:
    """What stands in for a seed generator's `next`: the same key, and with it the hash to draw by."""
    key = type(generator).next(generator, ordered)
    return jax.random.wrap_key_data(key, impl=_THREEFRY) if _keras.is_to_draw_with() else key


def _hash(key: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two words of threefry-2x32 in 20 rounds, for a key of (2,) and each number below 2**32 in `count`."""
    words = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    a, b = jnp.broadcast_to(words[0], count.shape), count + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            b = (b << np.uint32(rotation) | b >> np.uint32(32 - rotation)) ^ a
        a = a + words[(group + 1) % 3]
        b = b + words[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    number = math.prod(shape)
    if width == 64 or number >= 2**32:
        return jax_random.threefry_prng_impl.random_bits(key, width, shape)

    def block(start: Any, size: int) -> jax.Array:
        a, b = _hash(key, start + jax.lax.iota(np.uint32, size))
        return (a ^ b).astype(f"uint{width}")  # here, so that no more is written to memory

    if number <= _FEW:
        bits = block(np.uint32(0), number)
    else:
        size = -(-number // _BLOCKS)
        starts = np.arange(_BLOCKS, dtype="uint32") * np.uint32(size)
        bits = jax.lax.map(lambda start: block(start, size), starts).reshape(-1)[:number]
    return bits.reshape(shape)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    count = jax.lax.iota(np.uint32, math.prod(shape))
    return jnp.stack(_hash(key, count), -1).reshape(*shape, 2)


_THREEFRY = jax_random.define_prng_impl(
    key_shape=(2,),
    seed=jax_random.threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=jax_random.threefry_prng_impl.fold_in,
    name="threefry2x32_written_out",
    tag="fry",
)
