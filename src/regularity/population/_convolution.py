"""Convolution as a matrix product: XLA on CPU runs its own five to eight times slower inside a loop than outside it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from regularity import _keras


def lower_convolutions(model: Any) -> None:
    """Have the plain convolutions of `model` multiply matrices, where it runs on CPU; see `benchmarks/` for what it gains."""
    if jax.default_backend() != "cpu":
        return
    for _, layer in _keras.walk(model):
        if _keras.is_plain_convolution(layer):
            object.__setattr__(layer, "convolution_op", _Product(layer.strides, layer.dilation_rate, layer.padding))


class _Product:
    """Stands in for a layer's `convolution_op`: channels last, one group."""

    def __init__(self, strides: Sequence[int], dilation: Sequence[int], padding: str) -> None:
        self.strides, self.dilation = tuple(strides), tuple(dilation)
        self.same = padding == "same"  # a causal layer has padded its inputs before

    def __call__(self, inputs: Any, kernel: Any) -> jax.Array:
        return convolve(jnp.asarray(inputs), jnp.asarray(kernel), self.strides, self.dilation, self.same)


def convolve(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], dilation: Sequence[int], same: bool
) -> jax.Array:
    """The sum over offsets of shifted slices of the inputs times that offset's weights, as one product.

    Args:
        inputs: Of (rows, *space, channels).
        kernel: Of (*window, channels, filters).
        strides: Step of the window in each dimension of space.
        dilation: Distance of the window's entries in each dimension.
        same: Whether to pad so that every `strides`-th position has an output, else only whole windows have.
    """
    window, space = kernel.shape[:-2], inputs.shape[1:-1]
    reach = [(size - 1) * step + 1 for size, step in zip(window, dilation, strict=True)]
    if same:
        outputs = [math.ceil(size / step) for size, step in zip(space, strides, strict=True)]
        missing = [max((o - 1) * s + r - n, 0) for o, s, r, n in zip(outputs, strides, reach, space, strict=True)]
        inputs = jnp.pad(inputs, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    else:
        outputs = [(size - r) // step + 1 for size, r, step in zip(space, reach, strides, strict=True)]
    slices = []
    for offset in _offsets(window):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        limit = [b + (o - 1) * s + 1 for b, o, s in zip(start, outputs, strides, strict=True)]
        whole = (0, *start, 0), (inputs.shape[0], *limit, inputs.shape[-1]), (1, *strides, 1)
        slices.append(jax.lax.slice(inputs, *whole))
    patches = jnp.concatenate(slices, -1)  # (rows, *outputs, window * channels)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _offsets(window: Sequence[int]) -> list[tuple[int, ...]]:
    offsets: list[tuple[int, ...]] = [()]
    for size in window:
        offsets = [(*offset, i) for offset in offsets for i in range(size)]
    return offsets
