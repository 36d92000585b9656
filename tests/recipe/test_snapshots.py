"""Snapshot ensembles: the training of Keras with a learning rate in cycles, whose ends are put together."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity.recipe._source import source

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = RNG.integers(0, 3, 48)
CYCLES = 5


def network(*hidden, rate: object = 0.01):
    keras.utils.set_random_seed(0)
    hidden = hidden or (layers.Dense(8, "relu", name="hidden"),)
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax", name="last")])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    return model


def normalized():
    keras.utils.set_random_seed(0)  # layers draw their seeds when they are made
    return network(
        layers.Dense(8, use_bias=False, name="hidden"), layers.BatchNormalization(momentum=0.7), layers.ReLU()
    )


class Cycles(keras.callbacks.Callback):
    """The formula of the paper, equation 2, set before each batch; the weights after each cycle."""

    def __init__(self, steps, rate, depth=1.0):
        super().__init__()
        self.length, self.rate, self.depth, self.step, self.kept = steps // CYCLES, rate, depth, 0, []

    def on_train_batch_begin(self, batch, logs=None):
        self.step += 1
        falling = self.rate / 2 * (np.cos(np.pi * ((self.step - 1) % self.length) / self.length) + 1)
        self.model.optimizer.learning_rate = (1 - self.depth) * self.rate + self.depth * falling

    def on_train_batch_end(self, batch, logs=None):
        if self.step % self.length == 0:
            self.kept.append(self.model.get_weights())


@pytest.mark.parametrize("depth", [1.0, 0.4])
@pytest.mark.parametrize("make", [network, normalized])
def test_outputs_are_the_mean_of_those_of_keras_at_the_ends_of_the_papers_cycles(make, depth):
    fit = {"epochs": 5, "batch_size": 12, "shuffle": False, "verbose": 0}
    reference, cycles = make(), Cycles(20, 0.01, depth)
    reference.fit(X, Y, callbacks=[cycles], **fit)
    assert len(cycles.kept) == CYCLES
    outputs = []
    for weights in cycles.kept:
        reference.set_weights(weights)
        outputs.append(reference.predict(X, verbose=0))
    assert np.ptp(outputs, 0).max() > 0.01  # they do differ

    applied = rg.Recipe({"snapshots": depth}).apply(make())
    applied.fit(X, Y, **fit)
    np.testing.assert_allclose(applied.predict(X, verbose=0), np.mean(outputs, 0), atol=1e-6)
    np.testing.assert_allclose(applied.to_keras().predict(X, verbose=0), np.mean(outputs, 0), atol=1e-6)
    assert float(applied.optimizer.learning_rate) == pytest.approx(0.01)
    assert len(applied.get_weights()) == len(make().get_weights())


def test_before_training_the_outputs_are_those_of_the_network():
    model = network()
    applied = rg.Recipe({"snapshots": 1.0}).apply(model)
    np.testing.assert_allclose(applied.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


def test_epochs_in_several_calls_are_one_training():
    whole, parted = (rg.Recipe({"snapshots": 1.0}).apply(network(), seed=1) for _ in range(2))
    fit = {"batch_size": 12, "shuffle": False, "verbose": 0}
    whole.fit(X, Y, epochs=6, **fit)
    parted.fit(X, Y, epochs=6, **fit, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop_after(2, parted))])
    parted.fit(X, Y, epochs=6, initial_epoch=3, **fit)
    np.testing.assert_allclose(parted.predict(X, verbose=0), whole.predict(X, verbose=0), atol=1e-6)


def stop_after(last, model):
    return lambda epoch, logs: setattr(model, "stop_training", epoch == last)


def test_averages_of_weights_are_what_is_kept_where_there_are_such():
    fit = {"epochs": 5, "batch_size": 12, "shuffle": False, "verbose": 0}
    reference, cycles = network(), Cycles(20, 0.01)
    reference.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8), "sparse_categorical_crossentropy")

    class Averaged(Cycles):
        def on_train_batch_end(self, batch, logs=None):
            if self.step % self.length == 0:
                self.kept.append([np.asarray(v) for v in self.model.optimizer._model_variables_moving_average])

    cycles = Averaged(20, 0.01)
    reference.fit(X, Y, callbacks=[cycles], **fit)
    outputs = []
    for weights in cycles.kept:
        reference.set_weights(weights)
        outputs.append(reference.predict(X, verbose=0))
    applied = rg.Recipe({"snapshots": 1.0, "ema": 0.8}).apply(network())
    applied.fit(X, Y, **fit)
    np.testing.assert_allclose(applied.to_keras().predict(X, verbose=0), np.mean(outputs, 0), atol=1e-5)


def words():
    """Rows of unlike lengths, whose ends are masked."""
    keras.utils.set_random_seed(0)
    stack = [
        keras.Input((7,), dtype="int32"),
        layers.Embedding(9, 4, mask_zero=True),
        layers.LSTM(5, return_sequences=True),
    ]
    model = keras.Sequential([*stack, layers.Dense(1)], name="net")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.where(np.arange(7) < RNG.integers(2, 8, (48, 1)), RNG.integers(1, 9, (48, 7)), 0)
    return model, x, (x[..., None] % 3).astype("float32")


@pytest.mark.parametrize("of", ["rows", "words"])
def test_members_scores_are_those_of_the_mean_of_the_networks(of):
    model, x, y = (network(), X, Y) if of == "rows" else words()
    recipes = [{"snapshots": 1.0}, {"snapshots": 0.5, "dropout": 0.2}, {}]
    members = rg.train(model, x, y, recipes, epochs=5, batch_size=12, validation_data=(x[:24], y[:24]), verbose=0)
    for member in members:
        loss = member.model.evaluate(x[:24], y[:24], 12, verbose=0)  # a mean over words depends on who is in a batch
        assert member.history["val_loss"][-1] == pytest.approx(loss, abs=1e-5)
    weights = [len(member.model.get_weights()) for member in members]
    assert weights[0] == weights[1] == 5 * weights[2]


def trained(recipe, model=None, steps=20):
    applied = rg.Recipe(recipe).apply(model or network(), seed=1)
    applied.fit(X, Y, epochs=steps // 4, batch_size=12, shuffle=False, verbose=0)
    return applied


def kept(applied):
    return [[np.asarray(held) for _, held in one] for one in applied.__dict__["_snapshots"]]


def test_files_have_all_five(tmp_path):
    applied = trained({"snapshots": 1.0})
    applied.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), applied.predict(X, verbose=0), atol=1e-6)
    np.testing.assert_allclose(loaded.to_keras().predict(X, verbose=0), applied.predict(X, verbose=0), atol=1e-6)
    assert len({one[0].tobytes() for one in kept(loaded)}) == CYCLES


def test_weights_that_are_set_are_those_whose_outputs_are_seen():
    applied, model = trained({"snapshots": 1.0}), network()
    applied.set_weights(model.get_weights())
    np.testing.assert_allclose(applied.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # ours counts batches besides
def test_weights_of_a_file_of_the_stock_network_are_those_whose_outputs_are_seen(tmp_path):
    applied, model = trained({"snapshots": 1.0}), network()
    model.save_weights(tmp_path / "stock.weights.h5")
    applied.save_weights(tmp_path / "own.weights.h5")
    outputs = applied.predict(X, verbose=0)
    applied.load_weights(tmp_path / "stock.weights.h5")
    np.testing.assert_allclose(applied.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    applied.load_weights(tmp_path / "own.weights.h5")  # which has all five
    np.testing.assert_allclose(applied.predict(X, verbose=0), outputs, atol=1e-6)


def test_weights_that_come_in_another_way_than_from_layers_are_all_seen(monkeypatch):
    """As from a checkpoint of Orbax, which Keras reads into the state of a model."""
    applied = trained({"snapshots": 1.0})
    outputs, state = applied.predict(X, verbose=0), applied.get_state_tree(value_format="numpy_array")
    applied.fit(X, Y, verbose=0)
    monkeypatch.setattr(keras.Model, "load_weights", keras.Model.set_state_tree)
    applied.load_weights(state)
    np.testing.assert_allclose(applied.predict(X, verbose=0), outputs, atol=1e-6)
    assert len({one[0].tobytes() for one in kept(applied)}) == CYCLES


@pytest.mark.filterwarnings("ignore:A total of")
def test_of_a_file_with_another_head_all_five_have_what_fits(tmp_path):
    applied = trained({"snapshots": 1.0})
    applied.save_weights(tmp_path / "own.weights.h5")
    hidden = layers.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(4, "softmax", name="last")])
    model.compile("adam", "sparse_categorical_crossentropy")
    other = rg.Recipe({"snapshots": 1.0}).apply(model)
    head = other.layers[-1].get_weights()
    other.load_weights(tmp_path / "own.weights.h5", skip_mismatch=True)
    for one, own in zip(kept(other), kept(applied), strict=True):
        for value, expected in zip(one, [*own[:2], *head], strict=True):
            np.testing.assert_array_equal(value, expected)


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path):
    applied = trained({"snapshots": 1.0})
    outputs = applied.predict(X, verbose=0)
    with pytest.raises((OSError, ValueError)):
        applied.load_weights(tmp_path / "none.weights.h5")
    np.testing.assert_array_equal(applied.predict(X, verbose=0), outputs)


def test_without_a_known_length_the_network_in_training_is_seen():
    applied = rg.Recipe({"snapshots": 1.0}).apply(network())
    for _ in range(7):
        applied.train_on_batch(X, Y)
    weights = applied.get_weights()
    model = network()
    model.set_weights(weights)
    np.testing.assert_allclose(applied.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    assert float(applied.optimizer.learning_rate) == pytest.approx(0.01)


def test_a_schedule_that_touches_zero_leaves_what_is_kept():
    falling = kept(trained({"snapshots": {"strength": 1.0, "schedule": "coslog4"}}, steps=60))
    assert len({one[0].tobytes() for one in falling}) == CYCLES


def test_a_rate_that_a_callback_changes_stays_changed():
    applied = rg.Recipe({"snapshots": 1.0}).apply(network())
    slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    applied.fit(X, Y, epochs=3, batch_size=12, callbacks=[slower], verbose=0)
    assert float(applied.optimizer.learning_rate) == pytest.approx(0.01 / 8)


def test_single_precision_stays_where_the_rest_computes_in_half():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1, dtype="float32")])
        model.layers[-1].bias.assign([2e5])
        model.compile(keras.optimizers.SGD(1e-9), "mae")
        applied = rg.Recipe({"snapshots": 1.0}).apply(model)
        applied.fit(X, np.full(48, 2e5), epochs=1, verbose=0)
        plain = applied.to_keras()
    finally:
        keras.config.set_dtype_policy(policy)
    assert keras.backend.standardize_dtype(plain.output.dtype) == "float32"
    np.testing.assert_allclose(plain.predict(X, verbose=0), 2e5, rtol=1e-3)


def test_outputs_keep_the_names_by_which_losses_are_given():
    inputs = keras.Input((6,))
    shared = layers.Dense(8, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(1, name="b")(shared), layers.Dense(3, "softmax", name="a")(shared)])
    model.compile("adam", {"a": "sparse_categorical_crossentropy", "b": "mse"}, metrics={"a": ["accuracy"]})
    y = {"a": Y, "b": X[:, :1]}
    (member,) = rg.train(model, X, y, {"snapshots": 1.0}, epochs=5, batch_size=12, validation_data=(X, y), verbose=0)
    found = member.model.evaluate(X, y, return_dict=True, verbose=0)
    assert found["loss"] == pytest.approx(member.history["val_loss"][-1], abs=1e-5)
    assert found["a_accuracy"] == pytest.approx(member.history["val_a_accuracy"][-1], abs=1e-5)


def test_decay_rate_and_a_penalty_come_with_it():
    recipe = {"snapshots": 1.0, "weight_decay": 0.1, "l2": 0.05, "learning_rate": 0.003}
    (member,) = rg.train(network(), X, Y, recipe, epochs=5, batch_size=12, verbose=0)
    optimizer: Any = member.model.optimizer
    assert (optimizer.weight_decay, float(optimizer.learning_rate)) == (pytest.approx(0.1), pytest.approx(0.003))
    for variable in member.model.trainable_variables:
        assert optimizer._use_weight_decay(variable) == (variable.name == "kernel")
    kernels = [v for v in member.model.trainable_variables if v.name == "kernel"]
    mean = sum(0.05 * np.square(np.asarray(v)).sum() for v in kernels) / CYCLES
    assert float(sum(member.model.losses)) == pytest.approx(mean, rel=1e-5)


def test_a_search_hands_out_five_networks_for_each_fold_and_the_source_that_trains_them():
    random = np.random.default_rng(3)
    x = random.normal(size=(120, 6)).astype("float32")
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.8 * random.normal(size=120) > 0).astype(int)
    model, space = network(layers.Dense(32, "relu"), rate=0.05), rg.Space({"snapshots": (0.9, 1.0)})
    fixed = {"trials": 4, "epochs": 20, "batch_size": 12, "score": "neg_log_loss", "storage": "sqlite://", "verbose": 0}
    study = rg.search(model, x, y, space, seed=3, **fixed)
    assert study.best["snapshots"] and study.best.epochs == 20  # noqa: PT018
    assert len(study.ensemble().trainable_variables) == 5 * CYCLES * 4
    assert study._evidence.weights["kernel"].nunique() == 2
    assert study.ablation()["score"].notna().all()
    program = source(model, study.best, batch_size=12)
    assert "snapshots" in program
    names = {"x": x, "y": y}
    exec(program, names)
    assert np.isfinite(names["model"].predict(x[:4], verbose=0)).all()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: network(rate=keras.optimizers.schedules.CosineDecay(0.01, 100)), "schedule CosineDecay"),
        (lambda: subclassed(), "what its inputs are"),
    ],
)
def test_what_has_no_cycles_or_no_mean_is_refused(model, why):
    with pytest.raises(ValueError, match=why):
        rg.Recipe({"snapshots": 1.0}).apply(model())


def subclassed():
    @keras.saving.register_keras_serializable(package="tests")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.last = layers.Dense(3, "softmax")

        def build(self, shape):
            self.last.build(shape)

        def call(self, x):
            return self.last(x)

    model = Own()
    model.build((None, 6))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
