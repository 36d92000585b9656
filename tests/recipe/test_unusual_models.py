"""Models that people do write, and what a recipe makes of them."""

import threading
from typing import Any

import keras
import numpy as np
import pytest

import regularity as rg

ROWS = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def stack(*layers: Any, optimizer: Any = "sgd") -> Any:
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="out")])
    model.compile(optimizer, "mse")
    return model


def trained(model: Any) -> list[np.ndarray]:
    model.fit(ROWS, ROWS[:, 0], shuffle=False, epochs=2, verbose=0)
    return model.get_weights()


class Tutorial(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(3, "relu")
        self.out = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.out(self.hidden(x))


def test_a_subclass_whose_init_takes_nothing_is_copied() -> None:
    model = Tutorial()
    model.compile("sgd", "mse")
    model(ROWS)
    applied = rg.Recipe({"l2": 0.1}).apply(model)
    np.testing.assert_array_equal(applied.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_layer_is_copied() -> None:
    model = stack(keras.layers.Lambda(lambda x: x * 2.0))
    applied = rg.Recipe({"l2": 0.1}).apply(model)
    np.testing.assert_array_equal(applied.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))


def test_a_layer_put_in_gets_a_name_that_is_free() -> None:
    model = stack(
        keras.layers.Dense(3, "relu", name="hidden"), keras.layers.GaussianDropout(0.1, name="hidden_dropout")
    )
    applied = rg.Recipe({"dropout": 0.5}).apply(model, seed=0)
    assert len({layer.name for layer in applied.layers}) == len(applied.layers) == 4
    assert [type(layer).__name__ for layer in applied.to_keras().layers][1] == "Dropout"


def test_optional_inputs_stay_optional() -> None:
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second", optional=True)

    class Either(keras.layers.Layer):
        def call(self, x: Any, y: Any = None) -> Any:
            return x if y is None else x + y

    model = keras.Model({"first": first, "second": second}, keras.layers.Dense(1)(Either()(first, second)))
    model.compile("sgd", "mse")
    applied = rg.Recipe({"l2": 0.1}).apply(model)
    assert applied({"first": ROWS, "second": None}).shape == (16, 1)


def test_a_decay_that_leaves_out_everything_stays_out() -> None:
    def model() -> Any:
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=5.0)
        optimizer.exclude_from_weight_decay(var_names=["kernel", "bias"])
        keras.utils.set_random_seed(0)
        return stack(optimizer=optimizer)

    given = model()
    for ours, stock in zip(trained(rg.Recipe({}).apply(given)), trained(model()), strict=True):
        np.testing.assert_allclose(ours, stock, atol=1e-6)


def test_an_optimizer_with_a_decay_of_its_own_keeps_it() -> None:
    model = stack(keras.layers.Dense(3), optimizer=keras.optimizers.Muon(0.01, weight_decay=0.0, adam_weight_decay=5.0))
    applied = rg.Recipe({}).apply(model)
    assert applied.strengths == {}
    for ours, stock in zip(trained(applied), trained(model), strict=True):
        np.testing.assert_allclose(ours, stock, atol=1e-5)
    with pytest.raises(ValueError, match="Muon has a weight decay of its own"):
        rg.Recipe({"weight_decay": 0.1}).apply(model)


def test_a_regularizer_set_after_build_is_carried_over() -> None:
    model = stack()
    model.layers[0].kernel.regularizer = keras.regularizers.OrthogonalRegularizer(1.0, "rows")
    model.layers[0].bias.regularizer = lambda bias: keras.ops.sum(bias) + 3.0
    applied = rg.Recipe({"l2": 0.1}).apply(model)
    expected = sum(float(loss) for loss in model.losses) + 0.1 * float(np.square(model.get_weights()[0]).sum())
    assert sum(float(loss) for loss in applied.losses) == pytest.approx(expected, rel=1e-5)
    assert sum(float(loss) for loss in applied.to_keras().losses) >= 3.0


def test_a_model_that_has_a_recipe_is_refused_with_the_way_back() -> None:
    applied = rg.Recipe({"l2": 0.1}).apply(stack())
    with pytest.raises(ValueError, match="to_keras"):
        rg.Recipe({"l2": 0.2}).apply(applied)
    again = rg.Recipe({"l2": 0.2}).apply(applied.to_keras())
    assert [float(v) for v in again.strengths.values()] == pytest.approx([0.2])


def test_recipes_may_be_applied_in_threads() -> None:
    model = stack(keras.layers.Dense(3, "relu"))
    original = keras.Variable._initialize_with_initializer
    found: list[list[np.ndarray]] = []

    def work() -> None:
        for _ in range(5):
            found.append(rg.Recipe({"l2": 0.1}).apply(model, init="fresh", seed=0).get_weights())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for weights in found:
        for a, b in zip(weights, found[0], strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(weights[0], model.get_weights()[0])
    assert keras.Variable._initialize_with_initializer is original


def test_an_activity_regularizer_set_after_build_is_carried_over() -> None:
    class Rectified(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.relu(x)

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name}

    model = stack(keras.layers.Dense(3), Rectified(name="relu"))
    model.layers[1].activity_regularizer = keras.regularizers.OrthogonalRegularizer(0.1, "rows")
    model(ROWS)
    expected = sum(float(loss) for loss in model.losses)
    assert expected > 0
    applied = rg.Recipe({"activity_l2@relu": 0.0}).apply(model)
    for copied in (applied, applied.to_keras()):
        copied(ROWS)
        assert sum(float(loss) for loss in copied.losses) == pytest.approx(expected, rel=1e-5)


class Weighed(keras.Model):
    """A model whose loss is scaled by attributes that are set outside of `__init__`."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)

    def compile(self, *args: Any, alpha: float = 0.0, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        self.alpha = alpha

    def call(self, x: Any) -> Any:
        return self.out(x) * self.scale + self.alpha


@pytest.mark.parametrize("set_", [{"scale": 50.0}, {"table": [np.ones(2), {"a": 1}]}, {}])
def test_attributes_set_by_hand_are_carried_over(set_: dict[str, Any]) -> None:
    model = Weighed()
    model.compile("sgd", "mse", alpha=2.0)
    model(ROWS)
    model.stop_training = True
    for name, value in set_.items():
        setattr(model, name, value)
    applied = rg.Recipe({"l2": 0.1}).apply(model)
    for copied in (applied, applied.to_keras()):
        assert copied.alpha == 2.0
        assert not getattr(copied, "stop_training", False)
        np.testing.assert_array_equal(copied(ROWS), model(ROWS))
        for name, value in set_.items():
            np.testing.assert_equal(getattr(copied, name), value)
    if "table" in set_:
        assert applied.table is not model.table
        assert applied.table[0] is not model.table[0]


class Above(keras.metrics.Mean):
    """A metric with an argument that its configuration lacks."""

    def __init__(self, limit: float = 0.0, name: str = "above", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._above = limit


class Kept(Above):
    """The same, with its configuration."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self._above}


def test_a_metric_whose_configuration_lacks_an_argument_is_refused() -> None:
    model = stack()
    model.compile("sgd", "mse", metrics=["mae", Above(5.0)])
    with pytest.raises(ValueError, match=r"Above.*limit.*get_config"):
        rg.Recipe({"l2": 0.1}).apply(model)
    model.compile("sgd", "mse", weighted_metrics=[Kept(5.0)])
    rg.Recipe({"l2": 0.1}).apply(model)
    model = Weighed()
    model.compile("sgd", "mse", metrics=[Above(5.0)])
    model(ROWS)
    with pytest.raises(ValueError, match=r"Above.*limit.*get_config"):
        rg.Recipe({"l2": 0.1}).apply(model)


def test_a_metric_that_has_its_defaults_needs_no_config() -> None:
    class Above(keras.metrics.Mean):
        def __init__(self, threshold: float = 0.5, name: str = "above", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.threshold = threshold

    for threshold in (0.5, 0.7):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[Above(threshold)])
        if threshold == 0.5:
            rg.Recipe({"l2": 0.1}).apply(model)
        else:
            with pytest.raises(ValueError, match=r"lacks \['threshold'\]"):
                rg.Recipe({"l2": 0.1}).apply(model)


def test_a_model_whose_configuration_lacks_an_argument_is_refused() -> None:
    class Scaled(keras.Model):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self._scale = scale
            self.out = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.out(x) * self._scale

        def get_config(self) -> dict[str, Any]:
            return {}

    model = Scaled(3.0)
    model.compile("sgd", "mse")
    model(ROWS)
    with pytest.raises(ValueError, match=r"Scaled lacks \['scale'\].*get_config"):
        rg.Recipe({"l2": 0.1}).apply(model)


def test_a_layer_that_a_wrapper_and_the_graph_hold_is_refused_as_copies_would_part_them() -> None:
    shared = keras.layers.Dense(4, "relu")
    steps, rows = keras.Input((5, 3)), keras.Input((3,))
    both = keras.layers.Concatenate()(
        [keras.layers.Flatten()(keras.layers.TimeDistributed(shared)(steps)), shared(rows)]
    )
    model = keras.Model([steps, rows], both)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"its copy has 4 weights where 2 were expected.*a layer of its own"):
        rg.Recipe({"l2": 1e-3}).apply(model)
