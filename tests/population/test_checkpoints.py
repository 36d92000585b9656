"""A chunk that is cut off in training goes on from its checkpoint, to the bit."""

from dataclasses import replace

import jax
import keras
import numpy as np
import pytest

from regularity.data import Data
from regularity.population import _checkpoints
from regularity.population._lanes import Pool
from regularity.population._tasks import Plan, Task
from regularity.population._train import Trainer
from regularity.study._scores import scoring

RNG = np.random.default_rng(0)
DATA = Data(RNG.normal(size=(60, 4)).astype("float32"), RNG.integers(0, 2, 60))
EPOCHS = 6


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch):
    monkeypatch.setattr(_checkpoints, "_EVERY", 0.0)


def classifier(optimizer="adam"):
    layers = [keras.layers.Dense(6, "relu", name="hidden"), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, "softmax", name="output")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def tasks():
    rows = np.arange(60)
    return [
        Task({"dropout@hidden": 0.3}, seed, EPOCHS - (seed == 2), None, rows[:40], (rows[40:50], rows[50:]), {"dropout@hidden": "linear"})
        for seed in range(4)
    ]  # fmt: skip


def trained(model, folder, advance):
    plan = Plan(DATA, 16, scores=(scoring(model, DATA).score,), chunk=2, full_steps=True, checkpoints=folder)
    trainer = Trainer(model, plan, 4)
    with Pool(jax.local_devices()[:1]) as pool:
        outcomes = trainer.submit(tasks(), pool, advance)()
    return trainer, outcomes


@pytest.mark.parametrize("optimizer", ["adam", "averaged"])
@pytest.mark.parametrize("cut", [3, EPOCHS, EPOCHS + 2, 2 * EPOCHS - 1])  # in the last one a member is done
def test_what_was_cut_off_goes_on_to_the_bit(optimizer, cut, tmp_path):
    if optimizer == "averaged":
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9)
    model = classifier(optimizer)
    _, expected = trained(model, None, lambda epochs: None)
    calls = []

    def interrupted(epochs):
        calls.append(epochs)
        if len(calls) > cut:  # nor is that epoch written, nor one of a chunk that a lane has already taken up
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(model, tmp_path, interrupted)
    assert list(tmp_path.iterdir())
    again = []
    trainer, found = trained(model, tmp_path, again.append)
    assert len(again) == 2 * EPOCHS - cut
    for a, b in zip(expected, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.weights, b.weights)
        assert a.history == b.history
        np.testing.assert_array_equal(a.held_out, b.held_out)
        assert len(b.held_out) == len(a.held_out)
    trainer.forget(tasks())
    assert not list(tmp_path.iterdir())


def test_other_members_or_a_broken_file_begin_anew(tmp_path):
    checkpoint = _checkpoints.Checkpoint(tmp_path, tasks())
    assert checkpoint.load() is None
    checkpoint.save(3)
    assert checkpoint.load() == 3
    others = [replace(tasks()[0], seed=9), *tasks()[1:]]
    assert _checkpoints.Checkpoint(tmp_path, others).load() is None
    assert _checkpoints.Checkpoint(tmp_path, tasks()[1:]).load() is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-2])
    assert checkpoint.load() is None
