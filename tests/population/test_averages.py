"""Averaged weights: what members are judged by and handed back with, and the statistics of batch normalization they need."""

from typing import Any

import keras
import numpy as np
import pytest

import regularity as rg

ROWS = np.random.default_rng(0).normal(size=(70, 6)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, 70)
HOW = {"epochs": 2, "batch_size": 16, "shuffle": False}


def normalized() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("technique", ["ema", "swa"])
def test_statistics_are_those_of_the_averaged_weights_on_the_rows(technique: str) -> None:
    model = normalized()
    members = rg.train(model, ROWS, LABELS, [{}, {technique: 0.0}, {technique: 0.6}], init="keep", **HOW)
    plain, off, on = (m.model.get_weights() for m in members)
    for a, b in zip(plain, off, strict=True):
        np.testing.assert_array_equal(a, b)
    kernel, _, _, mean, variance, *_ = on
    batches = [ROWS[i : i + 16] @ kernel for i in range(0, 70, 16)]
    sizes = [len(b) for b in batches]
    # sums of 16 products in another order, in single precision
    np.testing.assert_allclose(mean, np.average([b.mean(0) for b in batches], 0, sizes), atol=1e-5)
    np.testing.assert_allclose(variance, np.average([b.var(0) for b in batches], 0, sizes), atol=1e-5)


@pytest.mark.parametrize("technique", ["ema", "swa"])
def test_a_member_equals_fit_with_its_statistics(technique: str) -> None:
    model = normalized()
    (member,) = rg.train(model, ROWS, LABELS, {technique: 0.6}, init="keep", **HOW)
    applied: Any = rg.Recipe({technique: 0.6}).apply(model, seed=0)
    applied.fit(ROWS, LABELS, verbose=0, **HOW)
    for a, b in zip(applied.to_keras().get_weights(), member.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_member_that_is_done_is_not_judged_anew_while_others_train_on() -> None:
    short, long = {"ema": 0.6, "epochs": 2}, {"ema": 0.6, "epochs": 5}
    how = {"batch_size": 16, "init": "keep"}
    (alone,) = rg.train(normalized(), ROWS, LABELS, short, **how)
    beside, _ = rg.train(normalized(), ROWS, LABELS, [short, long], **how)
    for a, b in zip(alone.model.get_weights(), beside.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # one is trained with `vmap`, one without


@pytest.mark.parametrize("train", ["fit", "rg.train"])
def test_a_normalization_that_two_branches_share_is_counted_once_for_each(train: str) -> None:
    """Each call keeps a share of what the one before has left."""
    keras.utils.set_random_seed(0)
    dense, shared = keras.layers.Dense(4, use_bias=False), keras.layers.BatchNormalization(momentum=0.6)
    inputs = keras.Input((6,))
    branches = [shared(dense(inputs[:, :3])), shared(dense(inputs[:, 3:]))]
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.concatenate(branches)))
    model.compile("adam", "sparse_categorical_crossentropy")
    if train == "fit":
        applied: Any = rg.Recipe({"ema": 0.6}).apply(model, seed=0)
        applied.fit(ROWS, LABELS, verbose=0, **HOW)
        trained = applied.to_keras()
    else:
        (member,) = rg.train(model, ROWS, LABELS, {"ema": 0.6}, init="keep", **HOW)
        trained = member.model
    kernel = trained.get_layer(dense.name).get_weights()[0]
    _, _, mean, variance = trained.get_layer(shared.name).get_weights()
    batches = [ROWS[i : i + 16] for i in range(0, 70, 16)]
    first, second = [b[:, :3] @ kernel for b in batches], [b[:, 3:] @ kernel for b in batches]
    sizes = [len(b) for b in batches]
    for found, of in ((mean, np.mean), (variance, np.var)):
        expected = [(0.6 * of(a, 0) + of(b, 0)) / 1.6 for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(found, np.average(expected, 0, sizes), atol=1e-5)


def test_a_call_of_a_normalization_that_does_not_train_counts_for_nothing() -> None:
    from regularity import _keras

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.bn = keras.layers.BatchNormalization(momentum=0.6)

        def call(self, x: Any, training: Any = None) -> Any:
            return self.bn(x, training=training) + self.bn(x, training=False)

    model = Own()
    model(ROWS)
    kept = _keras.kept_by(model, lambda: model(ROWS, training=True))
    assert kept == {id(v): 0.6 for v in (model.bn.moving_mean, model.bn.moving_variance)}


def test_a_mean_of_weights_is_judged_at_the_end_of_training_alone() -> None:
    path = rg.path(normalized(), ROWS, LABELS, technique="swa", strengths=3, folds=3, epochs=4)
    assert path.table["epochs"].tolist()[1:] == [4, 4]


def test_a_stream_is_refused_since_its_rows_are_needed_once_more() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Any:
            return ROWS[16 * i : 16 * i + 16], LABELS[16 * i : 16 * i + 16]

    with pytest.raises(ValueError, match=r"Pass arrays.*ema and swa"):
        rg.train(normalized(), Batches(), recipes={"swa": 0.5})


def test_a_generator_is_kept_so_its_length_is_known() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    (member,) = rg.train(model, iter([(ROWS, LABELS)]), recipes={"swa": 0.5}, epochs=2)
    assert len(member.history["loss"]) == 2


def test_a_mean_leaves_no_moving_average_behind_and_a_moving_one_leaves_keras_own() -> None:
    model = normalized()
    for technique, strength, left in (("swa", 0.5, False), ("ema", 0.9, True), ("ema", 0.0, False)):
        optimizer = rg.Recipe({technique: strength}).apply(model).to_keras().optimizer
        assert optimizer.use_ema is left
        assert not left or optimizer.ema_momentum == strength
