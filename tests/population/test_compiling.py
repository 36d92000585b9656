"""How hard XLA tries, and what becomes of options that it does not know."""

import gc
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import keras
import networks
import numpy as np
import pytest

import regularity as rg
from regularity.data import Data
from regularity.population import _calibration, _lanes
from regularity.population._compiling import compile_with, compiler_options, without_collecting
from regularity.population._tasks import Plan, Task
from regularity.population._train import Trainer, strengths_for
from regularity.recipe import sites_of
from regularity.recipe._recipe import schedules_of

X = np.random.default_rng(0).normal(size=(160, 6)).astype("float32")
Y = np.arange(160) % networks.CLASSES
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


def test_a_loop_of_no_set_length_counts_as_often_as_it_may_pass() -> None:
    def run(x: jax.Array, steps: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, steps, lambda _, x: x * 2.0, x)

    jaxpr = jax.jit(run).trace(jnp.ones(1000), jnp.int32(1)).jaxpr
    assert [compiler_options(CPU, jaxpr, calls, 1000) for calls in (1, 1000)] == [
        compiler_options(CPU, traced(1000), calls) for calls in (1, 1000)
    ]
    assert compiler_options(CPU, jaxpr, 1) == compiler_options(CPU, traced(1000), 100_000)  # who knows how often


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


def test_the_collector_rests_while_a_program_is_traced_and_is_left_as_it_was() -> None:
    first, second = without_collecting(), without_collecting()
    first.__enter__()
    second.__enter__()  # of another thread, which ends later
    assert not gc.isenabled()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt), without_collecting():
        raise KeyboardInterrupt
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a program is called, as XLA is told of each that is compiled."""
    asked: list[int] = []

    def options(device: object, traced: object, calls: int, passes: int | None) -> None:
        asked.append(calls)

    monkeypatch.setattr(_lanes, "compiler_options", options)
    return asked


def test_a_stream_counts_its_blocks(asked_for: list[int]) -> None:
    batches = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 160, 4)]  # 40 batches: three blocks of 16

    class Stream(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int):
            return batches[index]

    rg.train(networks.dense(), Stream(), epochs=5)
    assert set(asked_for) == {5 * 3}


def test_the_trial_of_chunks_compiles_for_the_whole_run(
    asked_for: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(_calibration, "_WORTH_FLOPS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rg.train(networks.dense(), X, Y, seeds=64, epochs=5, batch_size=16)
    assert asked_for.count(64 * 5 * 160 // 16) == 3  # a program for each size that was tried: 8, 32 and 64 members
    assert min(json.loads((tmp_path / "regularity" / "chunks.json").read_text()).values()) >= 1


def test_chunks_are_tried_where_an_epoch_is_shorter_than_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A search has programs with room for the longest epoch alone: here four steps."""
    monkeypatch.setattr(_calibration, "_WORTH_FLOPS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fixed = {"trials": 2, "epochs": 1, "batch_size": 40, "storage": "sqlite://", "verbose": 0}
    assert len(rg.search(networks.dense(), X, Y, ["l2"], **fixed).table) == 2
    assert json.loads((tmp_path / "regularity" / "chunks.json").read_text())


@pytest.mark.parametrize("text", [None, "null", '{"a": null}'])
def test_sizes_are_tried_anew_where_none_can_be_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    def nowhere() -> Path:
        if text is None:  # as of a user whom the machine does not know
            raise RuntimeError("Could not determine home directory.")
        return tmp_path

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    (tmp_path / ".cache" / "regularity").mkdir(parents=True)
    (tmp_path / ".cache" / "regularity" / "chunks.json").write_text(text or "")
    assert _calibration._remembered() == {}
    _calibration._remember({"b": 2})
    assert text is None or _calibration._remembered() == {"b": 2}


def test_epochs_of_two_lengths_are_trained_by_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As each by a program of its own: averages and a scheduled strength count the steps that are."""
    model = networks.dense()
    recipe = rg.Recipe({"dropout": {"strength": 0.3, "schedule": "linear"}, "ema": 0.9})
    data, steps = Data(X, Y), []
    compiled = _lanes.Lanes.compiled

    def noted(self: _lanes.Lanes, name: str, device: object, *arguments: object, donate: bool = False):
        future = compiled(self, name, device, *arguments, donate=donate)
        if name == "advance":
            steps.append((arguments[3].shape[0], future))
        return future

    monkeypatch.setattr(_lanes.Lanes, "compiled", noted)

    def trained(longest: int | None) -> list[list[np.ndarray]]:
        steps.clear()
        trainer = Trainer(model, Plan(data, 8, full_steps=True, longest=longest, chunk=2), 2)
        sites = sites_of(model)
        (strengths,) = strengths_for(model, sites, [recipe])
        schedules = schedules_of(recipe, sites, model)
        found = []
        for rows in (len(X) // 2, len(X)):
            tasks = [Task(strengths, seed, 3, rows=np.arange(rows), schedules=schedules) for seed in range(2)]
            found += [outcome.weights for outcome in trainer.train(tasks, 0)]
        return found

    expected = trained(None)
    assert len({future for _, future in steps}) == 2
    found = trained(len(X))
    assert len({future for _, future in steps}) == 1
    for of_own, of_one in zip(expected, found, strict=True):
        for a, b in zip(of_own, of_one, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
