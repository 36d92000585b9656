"""Random numbers that cost little on JAX, where those of JAX are a quarter of a small network's step.

Each is what a hash of its place and the key says, in 18 instructions where JAX's own takes about 115: so few that the
backward pass takes them again rather than read numbers from memory. On other backends they are those of Keras.
"""

import math
from typing import Any

import keras
import numpy as np

from regularity import _keras

_GOLDEN = 0x9E3779B9  # else a seed of 0 would stay 0
_LOG_OF_2 = 0.693147181

# Polynomials, fitted at Chebyshev's nodes: log(x + 1.5) from -0.5 to 0.5, and sqrt(2) * erfinv(y) / y over
# x = sqrt(-log(1 - y**2)) - 2 from -2 to 2.
_LOG = (0.405465292, 0.666683673, -0.222245397, 0.0982315423, -0.0489290347, 0.0304490045, -0.0174140775)
_QUANTILE = (
    *(2.62870254, 1.29174457, 0.159761604, -0.099989592, 0.0180364477, 0.0167921097, -0.00777541303),
    *(-0.00280369424, 0.00191340992, 0.000314480362, -0.000265717888, -1.68869103e-05, 1.59560964e-05),
)


def uniform(shape: tuple[int, ...], seed: Any) -> Any:
    """Numbers of `shape` from 0 to below 1, in single precision."""
    if keras.backend.backend() != "jax":
        return keras.random.uniform(shape, dtype="float32", seed=seed)
    return (_bits(shape, seed) >> 8).astype("float32") * 2.0**-24


def normal(shape: tuple[int, ...], seed: Any) -> Any:
    """Standard normal numbers of `shape`, in single precision."""
    if keras.backend.backend() != "jax":
        return keras.random.normal(shape, dtype="float32", seed=seed)
    import jax

    whole = jax.lax.bitcast_convert_type(_bits(shape, seed), np.int32) >> 8  # from -2**23 to below 2**23
    return quantile((whole.astype("float32") + 0.5) * 2.0**-23)


def _bits(shape: tuple[int, ...], seed: Any) -> Any:
    """32 random bits for each entry of `shape`."""
    import jax

    first, second = jax.random.key_data(_keras.draw_seed(seed))
    first = _hashed(first ^ np.uint32(_GOLDEN))
    # Of both: else two seeds whose first words are near would draw the same numbers in another order.
    second = _hashed(first ^ second)
    places = jax.lax.iota(np.uint32, math.prod(shape)).reshape(shape)
    return _hashed(_hashed(places ^ first) ^ second)


def _hashed(words: Any) -> Any:
    """Each 32-bit word stirred until every bit of it depends on every other: how Appleby's MurmurHash3 ends."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = (words ^ words >> shift) * np.uint32(factor)
    return words ^ words >> 16


def quantile(x: Any) -> Any:
    """`sqrt(2) * erfinv(x)`, normal for `x` uniform from -1 to 1.

    Giles, "Approximating the erfinv function", 2010, for the logarithm that makes a polynomial of it.
    """
    import jax
    import jax.numpy as jnp

    bits = jax.lax.bitcast_convert_type((1.0 - x) * (1.0 + x), jnp.int32)
    exponent = ((bits >> 23) - 127).astype("float32")
    mantissa = jax.lax.bitcast_convert_type((bits & 0x7FFFFF) | 0x3F800000, jnp.float32)
    log = exponent * _LOG_OF_2 + _polynomial(_LOG, mantissa - 1.5)
    return x * _polynomial(_QUANTILE, jnp.sqrt(jnp.maximum(-log, 0.0)) - 2.0)


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
