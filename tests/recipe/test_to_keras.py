"""The ways out of a regularized model: files that train on, and plain Keras that loads without Regularity."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import regularity as rg

RECIPE = {"l1": 1e-3, "l2@hidden": 1e-2, "dropout": 0.3, "activity_l2@hidden": 1e-3, "weight_decay": 0.05}


def network(optimizer: Any = "adam") -> Any:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8, "relu", name="hidden"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, "softmax", name="out"),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6)).astype("float32"), random.integers(0, 3, 32)


@pytest.fixture(scope="module")
def applied(data: tuple[Any, Any]) -> Any:
    model = rg.Recipe(RECIPE).apply(network(), seed=1)
    model.fit(*data, verbose=0)
    return model


@pytest.fixture(scope="module")
def plain(applied: Any) -> Any:
    return applied.to_keras()


def test_strengths_are_read_back_as_a_recipe(applied: Any) -> None:
    strengths = {key: float(variable) for key, variable in applied.strengths.items()}
    assert strengths["dropout@hidden"] == pytest.approx(0.3)
    assert strengths["l1@hidden/kernel"] == strengths["l1@out/kernel"] == pytest.approx(1e-3)
    assert strengths["weight_decay@out/kernel"] == pytest.approx(0.05)
    again = rg.Recipe(strengths).apply(network()).strengths
    assert strengths == {key: float(variable) for key, variable in again.items()}


def test_saved_model_keeps_strengths_and_trains_on(data: tuple[Any, Any], tmp_path: Path) -> None:
    applied = rg.Recipe(RECIPE).apply(network(), seed=1)
    applied.fit(*data, verbose=0)
    applied.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {k: float(v) for k, v in loaded.strengths.items()} == {k: float(v) for k, v in applied.strengths.items()}
    np.testing.assert_allclose(loaded(data[0]), applied(data[0]), atol=1e-6)
    assert loaded.optimizer.iterations == applied.optimizer.iterations
    np.testing.assert_allclose(sum(loaded.losses), sum(applied.losses), rtol=1e-6)
    again = keras.models.load_model(tmp_path / "model.keras")
    for model in (applied, again):
        model.strengths["dropout@hidden"].assign(0.0)  # files of Keras have no seeds
    histories = [model.fit(*data, shuffle=False, epochs=2, verbose=0).history["loss"] for model in (applied, again)]
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-6)
    loaded.strengths["l1@out/kernel"].assign(10.0)
    assert loaded.evaluate(*data, verbose=0, return_dict=True)["loss"] > 10


def test_plain_model_holds_only_stock_objects(plain: Any) -> None:
    config = plain.to_json()
    assert "regularity" not in config
    assert type(plain) is keras.Sequential
    assert [type(layer).__name__ for layer in plain.layers] == ["Dense", "Dropout", "BatchNormalization", "Dense"]
    modules = {layer["module"] for layer in json.loads(config)["config"]["layers"]}
    assert modules == {"keras.layers"}


def test_plain_model_has_stock_strengths(plain: Any) -> None:
    hidden, dropout, _, out = plain.layers
    assert type(hidden.kernel_regularizer) is keras.regularizers.L1L2
    assert (hidden.kernel_regularizer.l1, hidden.kernel_regularizer.l2) == pytest.approx((1e-3, 1e-2))
    assert type(hidden.activity_regularizer) is keras.regularizers.L2
    assert type(out.kernel_regularizer) is keras.regularizers.L1
    assert hidden.bias_regularizer is None
    assert dropout.rate == pytest.approx(0.3)
    assert plain.optimizer.weight_decay == pytest.approx(0.05)
    decayed = [v.path.split("/", 1)[1] for v in plain.trainable_variables if plain.optimizer._use_weight_decay(v)]
    assert decayed == ["hidden/kernel", "out/kernel"] or sorted(decayed) == ["hidden/kernel", "out/kernel"]


def test_plain_model_gives_equal_predictions_and_losses(plain: Any, applied: Any, data: tuple[Any, Any]) -> None:
    np.testing.assert_allclose(plain(data[0]), applied(data[0]), atol=1e-6)
    ours, theirs = (model.evaluate(*data, verbose=0, return_dict=True) for model in (applied, plain))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_plain_model_trains_the_same(data: tuple[Any, Any]) -> None:
    user = network(keras.optimizers.SGD(0.05))
    applied = rg.Recipe(RECIPE).apply(user, seed=1)
    plain = applied.to_keras()
    plain.layers[1].seed_generator.state.assign(np.asarray(applied.layers[1].seed_generator.state))
    ours, theirs = (m.fit(*data, epochs=3, shuffle=False, verbose=0).history["loss"] for m in (applied, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_plain_model_loads_where_regularity_is_unknown(plain: Any, data: tuple[Any, Any], tmp_path: Path) -> None:
    plain.save(tmp_path / "plain.keras")
    np.save(tmp_path / "x.npy", data[0])
    script = (
        "import sys, keras, numpy as np; sys.modules['regularity'] = None; "
        "print(keras.models.load_model('plain.keras').predict(np.load('x.npy'), verbose=0).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(json.loads(run.stdout.splitlines()[-1]), plain(data[0]), atol=1e-6)


def test_strengths_of_0_leave_nothing_behind() -> None:
    user = network()
    assert (
        rg.Recipe(dict.fromkeys(("l1", "l2", "dropout", "activity_l1"), 0.0)).apply(user).to_keras().to_json()
        == user.to_json()
    )


def test_strengths_that_the_model_brings_are_kept_as_they_were() -> None:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(
            8, "relu", kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), bias_regularizer="l2", name="a"
        ),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(2, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1), name="b"),
    ]
    user = keras.Sequential(layers)
    user.compile("adam", "mse")
    applied = rg.Recipe().apply(user)
    np.testing.assert_allclose(sum(applied.losses), sum(user.losses), rtol=1e-6)
    assert applied.to_keras().to_json() == user.to_json()


def test_penalty_that_is_no_technique_stays_beside_ours() -> None:
    user = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(2, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1))]
    )
    user.compile("adam", "mse")
    kernel = user.get_weights()[0]
    applied = rg.Recipe({"l2": 0.5}).apply(user)
    assert float(sum(applied.losses)) == pytest.approx(float(sum(user.losses) + 0.5 * (kernel**2).sum()), rel=1e-5)


def test_penalty_of_ours_keeps_its_settings_and_takes_the_strength_of_the_recipe() -> None:
    held = rg.regularizers.SparseGroupLasso(0.1, l1_share=0.9)
    user = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, kernel_regularizer=held, name="a")])
    user.compile("adam", "mse")
    applied = rg.Recipe().apply(user)
    assert list(applied.strengths) == ["sparse_group_lasso@a/kernel"]
    np.testing.assert_allclose(sum(applied.losses), sum(user.losses), rtol=1e-6)
    twice = rg.Recipe({"sparse_group_lasso": 0.2}).apply(user)
    np.testing.assert_allclose(sum(twice.losses), 2 * sum(user.losses), rtol=1e-6)
    assert "regularity" not in applied.to_keras().to_json()


# -- weight decay that the optimizer brings ------------------------------------------------------------------------------


def test_decay_of_the_optimizer_becomes_strengths() -> None:
    optimizer = keras.optimizers.AdamW(weight_decay=0.02)
    user = network()
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    user.compile(optimizer, "sparse_categorical_crossentropy")
    assert {key: round(float(v), 6) for key, v in rg.Recipe().apply(user).strengths.items()} == {
        "weight_decay@hidden/kernel": 0.02,
        "weight_decay@out/kernel": 0.02,
    }


def test_decay_excluded_by_variable_is_excluded_in_the_new_model(data: tuple[Any, Any]) -> None:
    user = network()
    optimizer = keras.optimizers.AdamW(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in user.trainable_variables if v is not user.layers[0].kernel]
    )
    user.compile(optimizer, "sparse_categorical_crossentropy")
    applied = rg.Recipe().apply(user)
    assert list(applied.strengths) == ["weight_decay@hidden/kernel"]
    plain = applied.to_keras()
    histories = [
        model.fit(*data, epochs=3, shuffle=False, verbose=0).history["loss"] for model in (applied, plain, user)
    ]
    np.testing.assert_allclose(histories[0], histories[2], atol=1e-5)
    np.testing.assert_allclose(histories[1], histories[2], atol=1e-5)


# -- models that were trained before ---------------------------------------------------------------------------------------


def test_loaded_model_can_be_regularized(data: tuple[Any, Any], tmp_path: Path) -> None:
    user = network()
    user.fit(*data, verbose=0)
    user.save(tmp_path / "trained.keras")
    loaded = keras.models.load_model(tmp_path / "trained.keras")
    applied = rg.Recipe({"l2": 1.0, "dropout": 0.5}).apply(loaded)
    np.testing.assert_allclose(applied(data[0]), user(data[0]), atol=1e-6)
    kernels = [layer.get_weights()[0] for layer in (user.layers[0], user.layers[-1])]
    assert float(sum(applied.losses)) == pytest.approx(sum(float((k**2).sum()) for k in kernels), rel=1e-5)
    assert loaded.losses == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_pretrained_backbone_that_is_frozen() -> None:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed: make test EXTRAS=dev,hub")
    backbone = hub.models.BertBackbone(
        vocabulary_size=10, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8, max_sequence_length=6
    )  # fmt: skip
    backbone.trainable = False
    inputs = {
        name: keras.Input((6,), dtype="int32", name=name) for name in ("token_ids", "segment_ids", "padding_mask")
    }
    hidden = keras.layers.Dense(6, "relu", name="neck")(backbone(inputs)["pooled_output"])
    user = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(hidden))
    user.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x = {name: random.integers(0, 2, (8, 6)).astype("int32") for name in inputs}
    x["padding_mask"][:] = 1
    y = random.integers(0, 3, 8)
    applied = rg.Recipe({"l2": 0.1, "dropout": 0.2}).apply(user, init="fresh", seed=0)
    assert set(applied.strengths) == {"l2@neck/kernel", "l2@head/kernel", "dropout@neck"}
    copied = next(layer for layer in applied.layers if layer.name == backbone.name)
    assert len(applied.trainable_variables) == 4
    np.testing.assert_allclose(copied(x)["pooled_output"], backbone(x)["pooled_output"], atol=1e-6)
    applied.fit(x, y, verbose=0)
    np.testing.assert_allclose(copied(x)["pooled_output"], backbone(x)["pooled_output"], atol=1e-6)
    np.testing.assert_allclose(applied.to_keras()(x), applied(x), atol=1e-6)


@pytest.mark.parametrize("recipe", [{"max_norm@h/kernel": 2.0}, {"weight_decay": 0.1}, {"snapshots": 1.0}], ids=str)
def test_of_a_file_that_is_loaded_without_compiling(recipe: Any, tmp_path: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="h"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    applied: Any = rg.Recipe(recipe).apply(model)
    applied.save(tmp_path / "model.keras")
    for _ in range(2):  # it keeps what the optimizer is to hold
        loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        loaded.save(tmp_path / "model.keras")
    stock = loaded.to_keras()
    rows = np.ones((2, 4), "float32")
    np.testing.assert_allclose(stock(rows), applied(rows), rtol=1e-6)
    if "max_norm@h/kernel" in recipe:
        assert stock.get_layer("h").kernel.constraint.max_value == 2.0
    loaded.compile("adam", "mse")
    assert loaded.strengths.keys() == applied.strengths.keys()
