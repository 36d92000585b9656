"""What the tests of the Keras components share; all of them run on the backend that KERAS_BACKEND names."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import pytest


@pytest.fixture(scope="session")
def gradient() -> Callable[[Callable[[Any], Any], Any], Any]:
    """A function `gradient(f, x)`: of the scalar `f(x)`, in x's precision; zeros where `f` does not depend on `x`."""

    def with_jax(function: Callable[[Any], Any], x: Any) -> Any:
        import jax

        return jax.grad(function)(x)

    def with_tensorflow(function: Callable[[Any], Any], x: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def with_torch(function: Callable[[Any], Any], x: Any) -> Any:
        x = x.detach().requires_grad_(True)
        value = function(x)
        if value.requires_grad:
            value.backward()
        return keras.ops.zeros_like(x) if x.grad is None else x.grad

    ways = {"jax": with_jax, "tensorflow": with_tensorflow, "torch": with_torch}
    way = ways[keras.backend.backend()]
    return lambda function, x: keras.ops.convert_to_numpy(way(function, keras.ops.convert_to_tensor(x)))


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def mixed_policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Keras's global precision set to half for the computation, single for the variables."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)
