"""Snapshot ensembles: the training of Keras with a learning rate in cycles, whose ends are put together."""

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
    return network(layers.Dense(8, use_bias=False, name="hidden"), layers.BatchNormalization(momentum=0.7), layers.ReLU())


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


def test_members_scores_are_those_of_the_mean_of_the_networks():
    recipes = [{"snapshots": 1.0}, {"snapshots": 0.5, "dropout": 0.2}, {}]
    members = rg.train(network(), X, Y, recipes, epochs=5, batch_size=12, validation_data=(X[:20], Y[:20]), verbose=0)
    for member in members:
        model = member.model
        loss = model.evaluate(X[:20], Y[:20], verbose=0)
        loss = loss[0] if isinstance(loss, list) else loss
        assert member.history["val_loss"][-1] == pytest.approx(loss, abs=1e-5)
    assert [len(member.model.get_weights()) for member in members] == [20, 20, 4]


def test_a_search_hands_out_five_networks_in_one_and_the_source_that_trains_them():
    space = {"snapshots": (0.9, 1.0)}
    study = rg.search(
        network(), X, Y, rg.Space(space), trials=3, epochs=5, batch_size=12, storage="sqlite://", verbose=0
    )
    trial = study.table["snapshots"].first_valid_index()
    recipe = rg.Recipe({"snapshots": study.table.loc[trial, "snapshots"], "epochs": 5})
    program = source(network(), recipe, batch_size=12)
    names = {"x": X, "y": Y}
    exec(program, names)
    assert "snapshots" in program
    assert names["model"].predict(X[:4], verbose=0).shape == (4, 3)


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
