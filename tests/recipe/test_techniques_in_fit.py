"""What recipes do in `fit` is what Keras's own forms do, where it has them, or the paper's algorithm written out."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import regularity as rg
from regularity.recipe import sites_of

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(70, 6)).astype("float32")
LABELS = RANDOM.integers(0, 3, 70)
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
SPARSE = "sparse_categorical_crossentropy"
# Adam's first steps magnify the rounding of single precision.
CLOSE = {"atol": 1e-5}


def network(optimizer: Any = "adam", loss: Any = SPARSE, **hidden: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu", name="hidden", **hidden), layers.Dense(3, "softmax", name="last")]
    )
    model.compile(optimizer, loss)
    return model


def trained(model: Any, y: Any = LABELS, **how: Any) -> np.ndarray:
    model.fit(ROWS, y, **{"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0, **how})
    return flat(model)


def flat(model: Any) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


def test_label_smoothing_of_whole_numbers_is_keras_of_one_hot_labels() -> None:
    ours = trained(rg.Recipe({"label_smoothing": 0.2}).apply(network()))
    stock = trained(network(loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.2)), ONE_HOT)
    np.testing.assert_allclose(ours, stock, **CLOSE)


@pytest.mark.parametrize("kind", ["CategoricalCrossentropy", "CategoricalFocalCrossentropy"])
def test_label_smoothing_of_one_hot_labels_is_keras(kind: str) -> None:
    loss = getattr(keras.losses, kind)
    ours = trained(rg.Recipe({"label_smoothing": 0.2}).apply(network(loss=loss())), ONE_HOT)
    np.testing.assert_allclose(ours, trained(network(loss=loss(label_smoothing=0.2)), ONE_HOT), **CLOSE)


def test_label_smoothing_of_two_classes_is_keras_and_validation_has_none() -> None:
    def binary(smoothing: float) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(1, "sigmoid")])
        model.compile("adam", keras.losses.BinaryCrossentropy(label_smoothing=smoothing))
        return model

    y = (LABELS > 1).astype("int32")
    applied: Any = rg.Recipe({"label_smoothing": 0.3}).apply(binary(0.0))
    np.testing.assert_allclose(trained(applied, y), trained(binary(0.3), y), **CLOSE)
    plain = binary(0.0)
    plain.set_weights(applied.get_weights())
    assert applied.evaluate(ROWS, y, verbose=0) == pytest.approx(plain.evaluate(ROWS, y, verbose=0), rel=1e-6)


def test_label_smoothing_goes_with_logits_and_sample_weights() -> None:
    def logits(loss: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
        model.compile("adam", loss)
        return model

    weight = np.random.default_rng(1).random(70).astype("float32")
    sparse = logits(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ours = trained(rg.Recipe({"label_smoothing": 0.2}).apply(sparse), sample_weight=weight)
    stock = logits(keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2))
    np.testing.assert_allclose(ours, trained(stock, ONE_HOT, sample_weight=weight), **CLOSE)


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 0.7}])
def test_mixing_whole_numbers_is_mixing_their_one_hot_form(mixing: dict[str, float]) -> None:
    sparse: Any = rg.Recipe(mixing).apply(network(), seed=3)
    one_hot: Any = rg.Recipe(mixing).apply(network(loss="categorical_crossentropy"), seed=3)
    np.testing.assert_allclose(trained(sparse), trained(one_hot, ONE_HOT), **CLOSE)


def test_mixup_is_the_mean_gradient_of_both_targets() -> None:
    """The loss of a mixture is linear in its targets: share * loss(y) + (1 - share) * loss(y of the partner)."""
    from regularity.catalogue.batch import mixup

    model = network(keras.optimizers.SGD(0.1))
    applied: Any = rg.Recipe({"mixup": 0.5}).apply(model, seed=5)
    (generator,) = applied.__dict__["_generators"].values()
    state = np.asarray(generator.state)
    twin = keras.random.SeedGenerator(0)
    twin.state.assign(state)
    x, pairs = mixup(ROWS, 0.5, twin)
    applied.train_on_batch(ROWS, LABELS)

    def loss(weights: Any) -> Any:
        predicted, _ = model.stateless_call(weights, [], x)
        chosen = lambda y: -jnp.log(predicted[jnp.arange(70), y]).mean()  # noqa: E731
        return pairs.share * chosen(LABELS) + (1 - pairs.share) * chosen(LABELS[np.asarray(pairs.other)])

    weights = [v.value for v in model.trainable_variables]
    for after, weight, gradient in zip(applied.get_weights(), weights, jax.grad(loss)(weights), strict=True):
        np.testing.assert_allclose(after, weight - 0.1 * gradient, atol=1e-6)


def test_rows_that_are_mixed_twice_have_targets_that_are_mixed_twice() -> None:
    """Each by the draws of both, in the order in which the rows were: partners of partners are not the same either way."""
    model = keras.Sequential([keras.Input((70,)), layers.Dense(70, use_bias=False)])
    rows: Any = np.eye(70, dtype="float32")
    model.compile(keras.optimizers.SGD(70.0), lambda y, predicted: -keras.ops.sum(y * predicted, -1))
    recipe = {"mixup": 2.0, "cutmix": 1.0}
    applied: Any = rg.Recipe(recipe).apply(model, seed=5)
    x = y = rows
    for name, strength in recipe.items():
        twin = keras.random.SeedGenerator(0)
        twin.state.assign(np.asarray(applied.__dict__["_generators"][name].state))
        x, pairs = rg.techniques()[name].function(x, strength, twin)
        y = pairs.mix(y)
    before = applied.get_weights()[0]
    applied.train_on_batch(rows, rows)
    np.testing.assert_allclose(applied.get_weights()[0] - before, np.asarray(x).T @ np.asarray(y), atol=1e-5)


def two_hidden() -> Any:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "tanh", name="first"), layers.Dense(5, "relu", name="second")]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), SPARSE)
    return model


def test_manifold_mixup_is_the_papers_loss_of_what_one_layer_puts_out_mixed() -> None:
    """By hand in JAX: `f` from the layer on, of the mixture of what it puts out, against the mixture of targets."""
    places = set()
    for seed in (0, 1, 4):  # which draw another place each
        model = two_hidden()
        applied: Any = rg.Recipe({"manifold_mixup": 2.0}).apply(model, seed=seed)
        (generator,) = applied.__dict__["_generators"].values()
        twin = keras.random.SeedGenerator(0)
        twin.state.assign(np.asarray(generator.state))
        pairs, at_places = rg.techniques()["manifold_mixup"].function(ROWS, 2.0, twin, 3)
        share, other = float(pairs.share), np.asarray(pairs.other)
        (place,) = (i for i, at in enumerate(at_places) if float(at.share) < 1)
        places.add(place)

        def loss(weights: Any, place: int = place, share: float = share, other: Any = other) -> Any:
            def mixed(h: Any, here: int) -> Any:
                return share * h + (1 - share) * h[other] if here == place else h

            h = mixed(jnp.tanh(mixed(ROWS, 0) @ weights[0] + weights[1]), 1)
            h = mixed(jax.nn.relu(h @ weights[2] + weights[3]), 2)
            targets = share * ONE_HOT + (1 - share) * ONE_HOT[other]
            return -(targets * jax.nn.log_softmax(h @ weights[4] + weights[5])).sum(-1).mean()

        weights = [v.value for v in model.trainable_variables]
        assert float(applied.train_on_batch(ROWS, LABELS)) == pytest.approx(float(loss(weights)), rel=1e-5)
        for after, weight, gradient in zip(applied.get_weights(), weights, jax.grad(loss)(weights), strict=True):
            np.testing.assert_allclose(after, weight - 0.1 * gradient, atol=1e-6)
        found = applied.evaluate(ROWS, LABELS, verbose=0)
        assert found == pytest.approx(applied.to_keras().evaluate(ROWS, LABELS, verbose=0), rel=1e-6)
    assert places == {0, 1, 2}


def test_places_of_manifold_mixup_are_drawn_evenly_and_one_at_a_step() -> None:
    generator, places = keras.random.SeedGenerator(0), []
    for _ in range(300):
        pairs, at_places = rg.techniques()["manifold_mixup"].function(ROWS[:4], 1.0, generator, 3)
        shares = [float(at.share) for at in at_places]
        assert sorted(shares) == [float(pairs.share), 1.0, 1.0]
        places.append(int(np.argmin(shares)))
    assert stats.chisquare(np.bincount(places)).pvalue > 1e-3


def test_manifold_mixup_mixes_only_where_all_of_the_network_passes() -> None:
    """Beside a branch the rows would go on unmixed, and the targets would not be those of what is put out."""
    inputs = keras.Input((6,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    block = keras.Sequential([layers.Dense(8, "relu", name="in"), layers.Dense(8, "tanh", name="out")], name="block")
    joined = layers.ReLU(name="joined")(layers.Add()([stem, layers.Dense(8, "relu", name="branch")(stem)]))
    twice = layers.Dense(8, "relu", name="twice")
    model = keras.Model(inputs, layers.Dense(3, "softmax")(twice(twice(block(joined)))))
    model.compile("sgd", SPARSE)
    applied: Any = rg.Recipe({"manifold_mixup": 1.0}).apply(model)
    assert applied.__dict__["_mixed_at"] == ["", "stem", "joined", "block/in", "block/out"]


def test_manifold_mixup_goes_with_other_mixtures_and_more_rows() -> None:
    recipe = {"manifold_mixup": 1.0, "mixup": 0.4, "r_drop": 1.0, "dropout": 0.3, "fgsm": 0.05, "sam": 0.05}
    how: dict[str, Any] = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
    applied: Any = rg.Recipe(recipe).apply(two_hidden(), seed=0)
    history = applied.fit(ROWS, LABELS, **how).history
    _, member = rg.train(two_hidden(), ROWS, LABELS, [{}, recipe], init="keep", **how)
    np.testing.assert_allclose(member.history["loss"], history["loss"], rtol=1e-5)
    for a, b in zip(applied.to_keras().get_weights(), member.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_training_metrics_compare_mixed_rows_with_their_own_labels() -> None:
    model = network()
    model.compile(keras.optimizers.SGD(0.0), SPARSE, metrics=["accuracy"])
    applied: Any = rg.Recipe({"mixup": 0.0}).apply(model)
    found = applied.fit(ROWS, LABELS, verbose=0).history["accuracy"][0]
    assert found == pytest.approx((model.predict(ROWS, verbose=0).argmax(1) == LABELS).mean(), abs=1e-6)


def test_clip_norm_is_keras_global_clipnorm() -> None:
    ours = trained(rg.Recipe({"clip_norm": 0.05}).apply(network(keras.optimizers.SGD(1.0))))
    np.testing.assert_allclose(ours, trained(network(keras.optimizers.SGD(1.0, global_clipnorm=0.05))), **CLOSE)


def test_max_norm_is_keras_constraint() -> None:
    ours = trained(rg.Recipe({"max_norm@hidden": 0.5}).apply(network()))
    np.testing.assert_allclose(ours, trained(network(kernel_constraint=keras.constraints.MaxNorm(0.5))), **CLOSE)


@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_unit_norm_is_keras_constraint(rate: float) -> None:
    ours = trained(rg.Recipe({"unit_norm@hidden": rate}).apply(network()))
    keras_own = keras.constraints.MinMaxNorm(1.0, 1.0, rate) if rate < 1 else keras.constraints.UnitNorm()
    np.testing.assert_allclose(ours, trained(network(kernel_constraint=keras_own)), **CLOSE)


def test_unit_norm_leaves_a_constraint_that_the_model_has() -> None:
    own = keras.constraints.NonNeg()
    applied: Any = rg.Recipe({"unit_norm@hidden": 1.0}).apply(network(kernel_constraint=own))
    trained(applied)
    kernel = applied.get_weights()[0]
    assert (kernel >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-5)
    assert isinstance(applied.to_keras().layers[0].kernel_constraint, keras.constraints.NonNeg)


def test_a_model_with_unit_norm_of_keras_keeps_it() -> None:
    def model() -> Any:
        return network(kernel_constraint=keras.constraints.UnitNorm())

    applied: Any = rg.Recipe({"l2": 0.1, "max_norm": None}).apply(model())
    assert not [key for key in applied.strengths if key.startswith("unit_norm")]
    trained(applied)
    np.testing.assert_allclose(np.linalg.norm(applied.get_weights()[0], axis=0), 1, atol=1e-5)
    assert isinstance(applied.to_keras().layers[0].kernel_constraint, keras.constraints.UnitNorm)


def test_unit_norm_and_max_norm_go_together_and_the_bound_comes_back() -> None:
    applied: Any = rg.Recipe({"max_norm@hidden": 0.5, "unit_norm@hidden": 0.5}).apply(network())
    trained(applied)
    # shortened to 0.5 at most, then half the way to 1
    norms = np.linalg.norm(applied.get_weights()[0], axis=0)
    assert (norms <= 0.75 + 1e-5).all()
    assert (norms >= 0.5).all()
    plain = applied.to_keras()
    assert plain.layers[0].kernel_constraint.get_config()["max_value"] == 0.5
    assert plain.layers[1].kernel_constraint is None


def test_ema_is_keras_moving_average() -> None:
    ours = trained(rg.Recipe({"ema": 0.8}).apply(network()))
    np.testing.assert_allclose(ours, trained(network(keras.optimizers.Adam(use_ema=True, ema_momentum=0.8))), **CLOSE)


def test_swa_is_the_mean_of_the_last_weights_of_a_plain_training() -> None:
    passed: list[np.ndarray] = []
    model = network()
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: passed.append(flat(note.model)))
    trained(model, callbacks=[note])
    ours = trained(rg.Recipe({"swa": 0.5}).apply(network()))
    np.testing.assert_allclose(ours, np.mean(passed[5:], 0), **CLOSE)  # 10 steps in all


def test_sam_is_the_paper_written_out() -> None:
    model = network()
    weights = [jnp.asarray(w) for w in model.get_weights()]

    def loss(weights: Any, x: Any, y: Any) -> Any:
        predicted, _ = model.stateless_call(weights, [], x)
        return -jnp.log(predicted[jnp.arange(len(y)), y]).mean()

    for i in range(0, 70, 16):
        x, y = ROWS[i : i + 16], LABELS[i : i + 16]
        ascent = jax.grad(loss)(weights, x, y)
        norm = jnp.sqrt(sum((g**2).sum() for g in ascent))
        there = [w + 0.3 * g / norm for w, g in zip(weights, ascent, strict=True)]
        weights = [w - 0.1 * g for w, g in zip(weights, jax.grad(loss)(there, x, y), strict=True)]
    ours: Any = rg.Recipe({"sam": 0.3}).apply(network(keras.optimizers.SGD(0.1)))
    np.testing.assert_allclose(trained(ours, epochs=1), np.concatenate([w.ravel() for w in weights]), **CLOSE)


def residual(blocks: int) -> Any:
    inputs = keras.Input((6,))
    h = layers.Dense(8, "relu", name="stem")(inputs)
    for n in range(blocks):
        h = layers.Add(name=f"add{n}")([h, layers.Dense(8, name=f"branch{n}")(h)])
    model = keras.Model(inputs, layers.Dense(3, "softmax")(h))
    model.compile("adam", SPARSE)
    return model


def test_drop_path_rises_linearly_with_depth_and_a_name_gives_just_that() -> None:
    applied: Any = rg.Recipe({"drop_path": 0.4, "drop_path@branch1": 0.1}).apply(residual(4))
    rates = {key: float(rate) for key, rate in applied.strengths.items()}
    assert rates == pytest.approx(
        {"drop_path@branch0": 0.1, "drop_path@branch1": 0.1, "drop_path@branch2": 0.3, "drop_path@branch3": 0.4}
    )


def test_every_residual_block_of_a_real_network_has_its_branch() -> None:
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=5)
    model.compile("adam", SPARSE)
    sites = [site for site in sites_of(model) if site.technique == "drop_path"]
    # four stages of 3, 4, 6 and 3 blocks, the first of each with a shortcut that has weights too
    assert [site.path for site in sites] == [
        f"conv{stage}_block{block}_3_bn"
        for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True)
        for block in range(1, blocks + 1)
    ]
    assert [site.share for site in sites] == pytest.approx([(n + 1) / 16 for n in range(16)])


def test_what_a_model_brings_is_found_and_comes_back() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", kernel_constraint=keras.constraints.MaxNorm(2.0, axis=[0, 1, 2])),
            layers.SpatialDropout2D(0.2),
            layers.GaussianNoise(0.1),
            layers.Flatten(),
            layers.AlphaDropout(0.1),
            layers.GaussianDropout(0.3),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.9, global_clipnorm=2.0), SPARSE)
    applied: Any = rg.Recipe({}).apply(model)
    found = {key.partition("@")[0]: float(value) for key, value in applied.strengths.items()}
    assert found == pytest.approx(
        {
            "spatial_dropout": 0.2,
            "gaussian_noise": 0.1,
            "alpha_dropout": 0.1,
            "gaussian_dropout": 0.3,
            "max_norm": 1 / 2.0,
            "ema": 0.9,
            "clip_norm": 1 / 2.0,
        }
    )
    plain = applied.to_keras()
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in model.layers]
    for ours, theirs in zip(plain.layers, model.layers, strict=True):
        config, expected = ours.get_config(), theirs.get_config()
        assert config.keys() == expected.keys()
        for name in ("rate", "stddev"):
            assert config.get(name) == expected.get(name)
    assert plain.layers[0].kernel_constraint.get_config() == {"max_value": 2.0, "axis": [0, 1, 2]}
    optimizer = plain.optimizer
    assert (optimizer.use_ema, optimizer.ema_momentum, optimizer.global_clipnorm) == (True, 0.9, 2.0)


@pytest.mark.parametrize("noise", ["dropout", "gaussian_dropout", "gaussian_noise", "alpha_dropout", "drop_connect"])
def test_noise_is_of_training_alone_and_differs_from_step_to_step(noise: str) -> None:
    applied: Any = rg.Recipe({noise: 0.4}).apply(network(keras.optimizers.SGD(0.0)), seed=0)
    losses = [applied.train_on_batch(ROWS, LABELS) for _ in range(3)]
    assert all(abs(a - b) > 1e-6 for a, b in itertools.combinations(losses, 2))
    plain = network()
    np.testing.assert_allclose(applied.predict(ROWS, verbose=0), plain.predict(ROWS, verbose=0), atol=1e-6)


def test_drop_connect_in_expectation_is_the_plain_layer() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    model.compile("sgd", "mse")
    applied: Any = rg.Recipe({"drop_connect@dense*": 0.3}).apply(model, seed=0)
    outputs = [np.asarray(applied(ROWS[:5], training=True)) for _ in range(400)]
    # 400 draws: standard error below 0.05 for outputs of about 1
    np.testing.assert_allclose(np.mean(outputs, 0), np.asarray(model(ROWS[:5])), atol=0.25)
    kernels = np.asarray(model.layers[0].kernel)
    single = np.asarray(applied(np.eye(6, dtype="float32"), training=True))
    assert set(np.round(np.ravel(single / kernels), 4)) <= {0.0, np.round(1 / 0.7, 4).astype("float32")}
