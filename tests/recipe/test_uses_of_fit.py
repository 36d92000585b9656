"""What users do with a regularized model beside one plain `fit`: other losses and weights, other data, freezing, compiling anew."""

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

import regularity as rg

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(64, 4)).astype("float32")
LABELS = RANDOM.integers(0, 3, 64)
SPARSE = "sparse_categorical_crossentropy"
HOW: dict[str, Any] = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
# Sums in another order, in single precision, over eight steps.
CLOSE = {"atol": 2e-6}


def network(
    optimizer: Any = "sgd", loss: Any = SPARSE, *, normalized: bool = False, last: str | None = "softmax"
) -> Any:
    keras.utils.set_random_seed(0)
    middle = [layers.BatchNormalization(name="bn")] if normalized else []
    hidden = layers.Dense(8, "relu", name="h")
    model = keras.Sequential([keras.Input((4,)), hidden, *middle, layers.Dense(3, last, name="o")])
    model.compile(optimizer, loss)
    return model


def fitted(recipe: dict[str, Any], model: Any, y: Any = LABELS, **how: Any) -> Any:
    applied: Any = rg.Recipe(recipe).apply(model, seed=0)
    applied.history = applied.fit(ROWS, y, **{**HOW, **how}).history
    return applied


def flat(model: Any) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


# -- losses and weights ------------------------------------------------------------------------------------------------


def own_cross_entropy(y: Any, p: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True)


@pytest.mark.parametrize("technique", ["mixup", "cutmix"])
def test_mixing_goes_with_a_loss_of_ones_own_on_whole_numbers(technique: str) -> None:
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours = fitted({technique: 1.0}, network(loss=own_cross_entropy, last=None))
    np.testing.assert_allclose(flat(ours), flat(fitted({technique: 1.0}, network(loss=stock, last=None))), **CLOSE)


class Tenfold(keras.losses.SparseCategoricalCrossentropy):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return 10.0 * super().call(y_true, y_pred)


def test_a_loss_derived_from_a_stock_one_stays_itself() -> None:
    plain = fitted({}, network(loss=Tenfold())).history["loss"]
    assert fitted({"mixup": 0.0}, network(loss=Tenfold())).history["loss"] == pytest.approx(plain, rel=1e-5)
    for technique in ("label_smoothing", "focal"):
        with pytest.raises(ValueError, match="no cross-entropy of Keras's, but"):
            rg.Recipe({technique: 0.1}).apply(network(loss=Tenfold()))


def test_a_hinge_loss_reads_mixed_labels_as_it_reads_others() -> None:
    y = (np.eye(3)[LABELS]).astype("float32")
    ours = fitted({"mixup": 1.0}, network(loss="hinge", last="tanh"), y)
    np.testing.assert_allclose(
        flat(ours), flat(fitted({"mixup": 1.0}, network(loss="hinge", last="tanh"), 2 * y - 1)), **CLOSE
    )


@pytest.mark.parametrize("technique", ["mixup", "cutmix"])
def test_labels_of_rows_without_weight_do_not_matter(technique: str) -> None:
    weight = (np.arange(64) % 2).astype("float32")
    other = np.where(weight > 0, LABELS, (LABELS + 1) % 3)
    a, b = (fitted({technique: 1.0}, network(), y, sample_weight=weight) for y in (LABELS, other))
    np.testing.assert_array_equal(flat(a), flat(b))


def test_a_missing_target_stays_with_its_row_where_nothing_is_mixed() -> None:
    def masked(y: Any, p: Any) -> Any:
        known = keras.ops.logical_not(keras.ops.isnan(y))
        return keras.ops.sum(keras.ops.where(known, keras.ops.square(keras.ops.where(known, y, 0.0) - p), 0.0), -1)

    y = np.where(RANDOM.random((64, 3)) < 0.3, np.nan, RANDOM.normal(size=(64, 3))).astype("float32")
    expected = flat(fitted({}, network(loss=masked, last=None), y))
    for technique in ("mixup", "cutmix"):
        np.testing.assert_allclose(
            flat(fitted({technique: 0.0}, network(loss=masked, last=None), y)), expected, **CLOSE
        )


@pytest.mark.parametrize("technique", ["label_smoothing", "focal", "confidence_penalty", "mixup"])
def test_a_class_that_is_ruled_out_stays_so(technique: str) -> None:
    def ruling() -> Any:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        outputs = layers.Dense(4)(inputs) + np.array([0, 0, 0, -np.inf], "float32")
        model = keras.Model(inputs, outputs)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    expected = flat(fitted({}, ruling()))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(flat(fitted({technique: 0.0}, ruling())), expected, **CLOSE)


# -- which weights make a unit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "units"),
    [
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), lambda k: k.reshape(9, 8)),
        (layers.SeparableConv2D(5, 3), (6, 6, 4), lambda k: k.reshape(9, 4)),
        (layers.Conv2DTranspose(5, 3), (6, 6, 4), lambda k: k.transpose(0, 1, 3, 2).reshape(-1, 5)),
        (layers.Conv2D(5, 3), (6, 6, 4), lambda k: k.reshape(-1, 5)),
        (layers.EinsumDense("abc,cde->abde", (5, 2, 3)), (5, 4), lambda k: k.reshape(4, 6)),
        (layers.EinsumDense("abcd,cde->abe", (5, 3)), (5, 2, 4), lambda k: k.reshape(8, 3)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_groups_and_bounds_are_of_the_units_of_a_layer(layer: Any, shape: tuple[int, ...], units: Any) -> None:
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    kernel = np.asarray(layer.weights[0])
    name = layer.weights[0].name
    columns = units(kernel)
    applied: Any = rg.Recipe({f"group_lasso@{layer.name}/{name}": 0.5}).apply(model)
    expected = 0.5 * np.sqrt(len(columns)) * np.linalg.norm(columns, axis=0).sum()
    assert float(applied.losses[0]) == pytest.approx(expected, rel=1e-5)
    bounded: Any = rg.Recipe({f"max_norm@{layer.name}/{name}": 0.1}).apply(model)
    bounded.train_on_batch(np.zeros((2, *shape), "float32"), np.zeros((2, 1), "float32"))
    found = units(np.asarray(bounded.get_layer(layer.name).weights[0]))
    norms = np.linalg.norm(columns, axis=0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.minimum(norms, 0.1), rtol=1e-4)

    def stepped(recipe: dict[str, Any]) -> np.ndarray:
        model.compile(keras.optimizers.SGD(1.0), "mse")
        applied: Any = rg.Recipe(recipe).apply(model)
        applied.train_on_batch(np.random.default_rng(0).normal(size=(2, *shape)), np.ones((2, 1)))
        return units(np.asarray(applied.get_layer(layer.name).weights[0]))

    gradients = columns - stepped({})
    scale = np.minimum(1.0, 0.01 * norms / np.linalg.norm(gradients, axis=0))
    assert (scale < 1).any()
    np.testing.assert_allclose(stepped({"adaptive_clip": 0.01}), columns - scale * gradients, atol=2e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "inputs"),
    [
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), lambda k: np.moveaxis(k, 2, 0).reshape(4, 18)),
        (layers.Conv2DTranspose(5, 3), (6, 6, 4), lambda k: np.moveaxis(k, 3, 0).reshape(4, 45)),
        (layers.Conv2D(5, 3), (6, 6, 4), lambda k: np.moveaxis(k, 2, 0).reshape(4, 45)),
        (layers.EinsumDense("abc,cde->abde", (5, 2, 3)), (5, 4), lambda k: k.reshape(4, 6)),
        (layers.EinsumDense("abcd,cde->abe", (5, 3)), (5, 2, 4), lambda k: k.reshape(8, 3)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_groups_of_inputs_are_what_each_input_of_a_layer_leads_to(
    layer: Any, shape: tuple[int, ...], inputs: Any
) -> None:
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    rows = inputs(np.asarray(layer.kernel))
    applied: Any = rg.Recipe({f"input_group_lasso@{layer.name}/kernel": 0.5}).apply(model)
    expected = 0.5 * np.sqrt(rows.shape[1]) * np.linalg.norm(rows, axis=1).sum()
    assert float(applied.losses[0]) == pytest.approx(expected, rel=1e-5)


# -- averages and batch normalization ----------------------------------------------------------------------------------


def clusters() -> np.ndarray:
    """Rows in two clusters, one after the other."""
    return (ROWS + 5.0 * np.repeat([[-1.0], [1.0]], 32, 0)).astype("float32")


def of_the_rows(model: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = model.get_layer("h").get_weights()
    hidden = np.maximum(rows @ kernel + bias, 0)
    return hidden.mean(0), hidden.var(0)


def test_statistics_of_averages_do_not_come_from_rows_in_their_order() -> None:
    applied: Any = rg.Recipe({"ema": 0.5}).apply(network(normalized=True), seed=0)
    applied.fit(clusters(), LABELS, **{**HOW, "shuffle": True})
    mean, variance = of_the_rows(applied, clusters())
    np.testing.assert_allclose(applied.get_layer("bn").moving_mean, mean, atol=1e-4)
    # batches of 16 have a little less variance than all rows; in order they would have hardly any
    np.testing.assert_allclose(applied.get_layer("bn").moving_variance, variance, rtol=0.15)


def test_rows_may_be_a_data_frame() -> None:
    applied: Any = rg.Recipe({"ema": 0.5}).apply(network(normalized=True), seed=0)
    applied.fit(pd.DataFrame(ROWS), LABELS, **{**HOW, "shuffle": True})
    np.testing.assert_allclose(applied.get_layer("bn").moving_mean, of_the_rows(applied, ROWS)[0], atol=1e-4)


def test_rows_for_validation_stay_out_of_the_statistics() -> None:
    rows = ROWS + np.where(np.arange(64) < 32, 0.0, 100.0)[:, None].astype("float32")
    applied: Any = rg.Recipe({"ema": 0.5}).apply(network(normalized=True), seed=0)
    applied.fit(rows, LABELS, validation_split=0.5, **HOW)
    np.testing.assert_allclose(applied.get_layer("bn").moving_mean, of_the_rows(applied, rows[:32])[0], atol=1e-4)


def test_a_stream_without_end_is_read_for_an_epoch_and_one_that_is_read_once_refused() -> None:
    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index: int) -> Any:
            return ROWS[:16], LABELS[:16]

    applied: Any = rg.Recipe({"swa": 0.5}).apply(network(normalized=True), seed=0)
    applied.fit(Endless(), steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_allclose(applied.get_layer("bn").moving_mean, of_the_rows(applied, ROWS[:16])[0], atol=1e-4)
    with pytest.raises(ValueError, match="can be read once"):
        applied.fit(((ROWS, LABELS) for _ in range(4)), steps_per_epoch=2, epochs=2, verbose=0, shuffle=False)


@pytest.mark.parametrize("several", [2, 4])
def test_a_mean_of_weights_counts_batches_where_a_step_takes_several(several: int) -> None:
    def optimizer() -> Any:
        return keras.optimizers.SGD(0.1, gradient_accumulation_steps=several)

    model, passed = network(optimizer()), []
    note: Any = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: passed.append(flat(note.model)))
    model.fit(ROWS, LABELS, callbacks=[note], **{**HOW, "epochs": 4})
    ours = fitted({"swa": 0.5}, network(optimizer()), epochs=4)
    np.testing.assert_allclose(flat(ours), np.mean(passed[8:], 0), **CLOSE)  # 16 batches


# -- schedules ---------------------------------------------------------------------------------------------------------

FADING = {"l2": {"strength": 0.5, "schedule": "linear"}}


def test_a_schedule_goes_on_where_training_was_left() -> None:
    whole = fitted(FADING, network(), epochs=4)
    halves: Any = rg.Recipe(FADING).apply(network(), seed=0)
    halves.fit(ROWS, LABELS, **{**HOW, "epochs": 2, "initial_epoch": 0})
    first = flat(halves)
    resumed: Any = rg.Recipe(FADING).apply(network(), seed=0)
    done = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch == 1 and setattr(resumed, "stop_training", True)
    )
    resumed.fit(ROWS, LABELS, callbacks=[done], **{**HOW, "epochs": 4})
    assert np.abs(flat(resumed) - first).max() > 1e-4  # two of four epochs are not two of two
    resumed.fit(ROWS, LABELS, **{**HOW, "epochs": 4, "initial_epoch": 2})
    np.testing.assert_allclose(flat(resumed), flat(whole), **CLOSE)


def test_a_schedule_counts_batches_where_a_step_takes_several() -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    applied = fitted(FADING, network(optimizer))
    (member,) = rg.train(network(optimizer), ROWS, LABELS, FADING, init="keep", **{**HOW, "verbose": 0})
    np.testing.assert_allclose(flat(applied.to_keras()), flat(member.model), **CLOSE)
    assert np.abs(flat(applied) - flat(fitted({"l2": 0.5}, network(optimizer)))).max() > 1e-4


def test_a_schedule_without_a_length_is_constant() -> None:
    scheduled, constant = (rg.Recipe(r).apply(network(), seed=0) for r in (FADING, {"l2": 0.5}))
    for model in (scheduled, constant):
        for _ in range(4):
            model.train_on_batch(ROWS, LABELS)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(flat(scheduled), flat(constant))


def test_a_split_given_by_position_is_seen() -> None:
    applied: Any = rg.Recipe(FADING).apply(network(), seed=0)
    applied.fit(ROWS, LABELS, 16, 1, 0, None, 0.5)
    assert np.asarray(applied.__dict__["_clock"]).tolist() == [0.0, 2.0]


# -- compiling anew, freezing, saving ----------------------------------------------------------------------------------


def test_an_optimizer_that_is_chosen_later_decays_as_it_does() -> None:
    applied: Any = rg.Recipe({"l2": 0.0}).apply(network(), seed=0)
    stock = network()
    for model in (applied, stock):
        model.compile(keras.optimizers.AdamW(0.01, weight_decay=5.0), SPARSE)
        model.fit(ROWS, LABELS, **HOW)
    np.testing.assert_allclose(flat(applied), flat(stock), **CLOSE)


def test_strengths_of_the_optimizer_survive_compiling_anew() -> None:
    applied: Any = rg.Recipe({"max_norm": 0.1, "weight_decay": 0.0}).apply(network(), seed=0)
    applied.strengths["weight_decay@h/kernel"].assign(0.7)
    applied.compile("sgd", SPARSE)
    assert float(applied.strengths["weight_decay@h/kernel"]) == pytest.approx(0.7)
    for strength in applied.strengths.values():
        strength.assign(0.0)
    applied.fit(ROWS, LABELS, **HOW)
    np.testing.assert_allclose(flat(applied), flat(fitted({}, network())), **CLOSE)


@pytest.mark.parametrize(
    "recipe", [{"l2": 0.1}, {"weight_decay": 0.1}, {"max_norm": 0.5}, {"drop_connect": 0.3}], ids=str
)
def test_a_layer_may_be_frozen_afterwards(recipe: dict[str, float], tmp_path: Path) -> None:
    applied: Any = rg.Recipe(recipe).apply(network(), seed=0)
    applied.get_layer("h").trainable = False
    applied.compile("sgd", SPARSE)
    frozen = np.array(applied.get_layer("h").kernel)
    applied.fit(ROWS, LABELS, **HOW)
    applied.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(ROWS, LABELS, **HOW)
    for model in (applied, loaded, applied.to_keras()):
        np.testing.assert_array_equal(model.get_layer("h").kernel, frozen)
        assert not model.get_layer("h").trainable


class Gained(keras.Model):
    """A model whose `compile` takes other arguments than that of Keras."""

    def compile(self, opt: Any, gain: float = 1.0, **kwargs: Any) -> None:
        super().compile(optimizer=opt, **kwargs)
        self.gain = gain

    def get_compile_config(self) -> dict[str, Any]:
        return {"gain": self.gain}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile("sgd", gain=config["gain"], loss=SPARSE)


def test_a_compile_of_ones_own_is_there_on_the_way_back() -> None:
    inputs = keras.Input((4,))
    model = Gained(inputs, layers.Dense(3, "softmax")(inputs))
    model.compile("sgd", gain=3.0, loss=SPARSE)
    plain = fitted({"l2": 0.1}, model).to_keras()
    assert plain.gain == 3.0
    (member,) = rg.train(model, ROWS, LABELS, {"l2": 0.1}, epochs=1)
    assert member.model.gain == 3.0


def test_clipping_in_two_ways_is_refused_since_keras_has_one() -> None:
    with pytest.raises(ValueError, match=r"'clip_norm'.*clips by clipvalue already"):
        rg.Recipe({"clip_norm": 1.0}).apply(network(keras.optimizers.SGD(clipvalue=0.5)))


def test_a_model_can_be_pickled() -> None:
    applied = fitted({"l2": 0.1, "dropout": 0.2}, network())
    again = pickle.loads(pickle.dumps(applied))
    assert {key: float(v) for key, v in again.strengths.items()} == {
        key: float(v) for key, v in applied.strengths.items()
    }
    np.testing.assert_array_equal(again.predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0))


@pytest.mark.parametrize("technique", ["clip_norm", "adaptive_clip"])
def test_adapters_that_come_after_it_was_compiled_are_clipped_too(technique: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="h"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    applied: Any = rg.Recipe({technique: 1e-3}).apply(model)
    applied.get_layer("h").enable_lora(2)
    before = applied.get_layer("h").lora_kernel_a.numpy().copy()
    applied.fit(np.ones((8, 4)), np.ones(8), verbose=0)
    assert np.abs(applied.get_layer("h").lora_kernel_a - before).max() < 1e-3
