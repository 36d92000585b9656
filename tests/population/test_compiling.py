"""How hard XLA tries, and what becomes of options that it does not know."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from regularity.population._compiling import compile_with, compiler_options

CPU = SimpleNamespace(platform="cpu")


def traced(steps: int):
    def run(x):
        return jax.lax.scan(lambda x, _: (x * 2.0, None), x, None, length=steps)[0]

    return jax.jit(run).trace(jnp.ones(1000)).jaxpr


def test_xla_tries_harder_where_more_is_computed() -> None:
    # a million numbers a call, and more and more calls
    options = [compiler_options(CPU, traced(1000), calls) for calls in (1, 100, 1000, 100_000)]
    levels = [each["xla_backend_optimization_level"] for each in options]
    emitters = [each.get("xla_cpu_use_fusion_emitters", True) for each in options]
    assert levels == [0, 0, 1, 1]
    assert emitters == [False, False, False, True]
    assert compiler_options(SimpleNamespace(platform="gpu"), traced(1), 1) is None


def test_an_option_that_xla_does_not_know_is_left_out() -> None:
    lowered = jax.jit(lambda x: x + 1.0).lower(1.0)
    compiled = compile_with(
        lowered, {"xla_no_such_option": 1, "xla_backend_optimization_level": 0, "xla_nor_this": True}
    )
    assert compiled(1.0) == 2.0


def test_a_program_that_does_not_compile_says_why() -> None:
    class Broken:
        def compile(self, options: object) -> None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        compile_with(Broken(), {"xla_backend_optimization_level": 0})
