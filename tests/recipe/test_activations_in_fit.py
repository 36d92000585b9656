"""Techniques of place 'activations' in whole models, against what Keras's own arguments do and against the papers' rules."""

from typing import Any

import jax
import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import regularity as rg
from regularity.catalogue import activations
from regularity.recipe import sites_of
from regularity.recipe._recipe import as_given

RANDOM = np.random.default_rng(0)
SEQUENCES = RANDOM.normal(size=(24, 5, 4)).astype("float32")
ROWS = RANDOM.normal(size=(48, 6)).astype("float32")
HOW: dict[str, Any] = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
CLOSE = {"atol": 2e-6}  # sums in another order, in single precision


def ended(inputs: Any, hidden: Any) -> Any:
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="last")(hidden))
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


def labels(rows: np.ndarray) -> np.ndarray:
    return np.arange(len(rows)) % 3


def fitted(model: Any, rows: np.ndarray) -> list[np.ndarray]:
    model.fit(rows, labels(rows), **HOW)
    return model.get_weights()


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def recurrent(kind: Any, **dropouts: float) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    return ended(inputs, kind(6, name="memory", **dropouts)(inputs))


CELLS = [layers.LSTM, layers.GRU, layers.SimpleRNN]


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "dropouts", [{"dropout": 0.4}, {"recurrent_dropout": 0.3}, {"dropout": 0.2, "recurrent_dropout": 0.3}], ids=str
)
def test_dropout_of_recurrent_layers_is_keras_with_the_same_masks(kind: Any, dropouts: dict[str, float]) -> None:
    model = recurrent(kind, **dropouts)
    applied: Any = rg.Recipe({}).apply(model)
    names = {"dropout": "variational_dropout", "recurrent_dropout": "recurrent_dropout"}
    assert as_given(model) == rg.Recipe({names[name]: rate for name, rate in sorted(dropouts.items())})
    found = fitted(applied, SEQUENCES)
    plain = applied.to_keras()
    same(found, fitted(model, SEQUENCES))
    cell, twin = (m.get_layer("memory").cell for m in (plain, model))
    for name in ("dropout", "recurrent_dropout"):
        assert getattr(cell, name) == pytest.approx(getattr(twin, name))
    assert plain.get_layer("memory").get_config()["recurrent_dropout"] == model.get_layer("memory").recurrent_dropout


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
def test_a_recipe_gives_recurrent_layers_the_dropout_that_keras_would(kind: Any) -> None:
    """From a layer without to one with it, whose seed is that of the recipe's model."""
    applied: Any = rg.Recipe({"variational_dropout": 0.3, "recurrent_dropout": 0.4}).apply(recurrent(kind), seed=3)
    stock = recurrent(kind, dropout=0.3, recurrent_dropout=0.4)
    state = applied.get_layer("memory").cell.seed_generator.state
    stock.get_layer("memory").cell.seed_generator.state.assign(keras.ops.copy(state))
    same(fitted(applied, SEQUENCES), fitted(stock, SEQUENCES))


def test_both_directions_and_stacks_of_cells_drop() -> None:
    inputs = keras.Input((5, 4))
    both = layers.Bidirectional(layers.LSTM(3, name="way", return_sequences=True), name="both")(inputs)
    stacked = layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(2)]), name="stack")(both)
    model = ended(inputs, stacked)
    recipe = {"recurrent_dropout": 0.3, "variational_dropout": 0.2, "recurrent_drop_connect": 0.3}
    applied: Any = rg.Recipe(recipe).apply(model)
    assert sum(key.startswith("recurrent_dropout@") for key in applied.strengths) == 4
    assert np.isfinite(np.concatenate([np.ravel(w) for w in fitted(applied, SEQUENCES)])).all()
    np.testing.assert_allclose(
        applied.to_keras().predict(SEQUENCES, verbose=0), applied.predict(SEQUENCES, verbose=0), atol=1e-6
    )


def attention(dropout: float) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3, dropout=dropout, seed=7, name="look")(inputs, inputs)
    return ended(inputs, layers.GlobalAveragePooling1D()(attended))


def test_dropout_of_attention_is_keras_with_the_same_masks() -> None:
    model = attention(0.4)
    assert as_given(model) == rg.Recipe({"attention_dropout": 0.4})
    applied: Any = rg.Recipe({}).apply(model)
    same(fitted(applied, SEQUENCES), fitted(model, SEQUENCES))
    put_in: Any = rg.Recipe({"attention_dropout": 0.4}).apply(attention(0.0), seed=2)
    stock, held = attention(0.4), put_in.get_layer("look")._dropout_layer.seed_generator.state
    stock.get_layer("look")._dropout_layer.seed_generator.state.assign(keras.ops.copy(held))
    same(fitted(put_in, SEQUENCES), fitted(stock, SEQUENCES))
    assert put_in.to_keras().get_layer("look").get_config()["dropout"] == pytest.approx(0.4)
    off: Any = rg.Recipe({"attention_dropout": 0.0}).apply(attention(0.4))
    assert off.to_keras().get_layer("look").get_config()["dropout"] == 0
    same(fitted(off, SEQUENCES), fitted(attention(0.0), SEQUENCES))


def test_dropout_does_not_go_inside_attention() -> None:
    model = attention(0.0)
    assert not rg.Recipe({}).apply(model).strengths  # what an attention layer holds at 0 is nothing that it brings
    assert not any(site.technique == "dropout" and "/" in site.path for site in sites_of(model))


@pytest.mark.parametrize(
    ("technique", "what"), [("recurrent_drop_connect", "recurrent_kernel"), ("embedding_dropout", "embeddings")]
)
def test_masks_of_variables_hold_for_all_steps_and_rows(technique: str, what: str) -> None:
    keras.utils.set_random_seed(0)
    words = keras.Input((6,), dtype="int32")
    model = ended(words, layers.SimpleRNN(5, name="memory")(layers.Embedding(11, 4, name="words")(words)))
    applied: Any = rg.Recipe({technique: 0.5}).apply(model, seed=4)
    rows = RANDOM.integers(0, 11, (8, 6)).astype("int32")
    ((_, generator),) = applied.__dict__["_generators"].items()
    twin = keras.random.SeedGenerator(0)
    twin.state.assign(keras.ops.copy(generator.state))
    variable = next(v for v in applied.trainable_variables if v.name == what)
    masked = rg.techniques()[technique].function(variable.value, 0.5, twin)
    if technique == "embedding_dropout":
        kept = np.asarray(masked) != 0
        assert (kept.all(1) | ~kept.any(1)).all()
    plain = model
    plain.set_weights([np.asarray(masked) if v is variable else np.asarray(v) for v in applied.trainable_variables])
    fixed = [v.value for v in applied.non_trainable_variables]
    found, _ = applied.stateless_call([v.value for v in applied.trainable_variables], fixed, rows, training=True)
    np.testing.assert_allclose(found, plain.predict(rows, verbose=0), atol=1e-6)


def test_shake_drop_goes_forward_by_one_number_and_backward_by_another() -> None:
    """The rule of the paper, over one less the rate: a row that is shaken has its own two numbers."""
    rate, rows = 0.4, np.ones((4000, 2), "float32")
    output, pull = jax.vjp(lambda x: activations.shake_drop(x, rate, keras.random.SeedGenerator(3)), rows)
    forward, backward = np.asarray(output) * (1 - rate), np.asarray(pull(rows)[0]) * (1 - rate)
    assert (forward == forward[:, :1]).all()
    assert (backward == backward[:, :1]).all()
    shaken = ~np.isclose(forward[:, 0], 1)
    assert stats.binomtest(int(shaken.sum()), 4000, rate).pvalue > 1e-3
    np.testing.assert_allclose(backward[~shaken], 1, rtol=1e-6)
    assert stats.kstest(forward[shaken, 0], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest(backward[shaken, 0], stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(forward[shaken, 0], backward[shaken, 0])[0, 1]) < 0.1


def test_shake_shake_is_the_papers_two_sums_of_a_row() -> None:
    """Forward `2 * (a * f + (1 - a) * g)`, backward the same of other numbers, as wide around 1/2 as the strength says."""
    strength, rows = 0.6, np.ones((4000, 2), "float32")
    shake = lambda f, g: activations.shake_shake((f, g), strength, keras.random.SeedGenerator(3))  # noqa: E731
    output, pull = jax.vjp(shake, 3 * rows, 5 * rows)
    a, b = (np.asarray(x) / 2 for x in (output[0] / 3, pull((rows, rows))[0]))
    for share in (a, b):
        assert (share == share[:, :1]).all()
        assert stats.kstest(share[:, 0], stats.uniform(0.5 - strength / 2, strength).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) < 0.1
    np.testing.assert_allclose(output[1], 2 * (1 - a) * 5, rtol=1e-5)
    np.testing.assert_allclose(pull((rows, rows))[1], 2 * (1 - b), rtol=1e-5)


def test_a_block_of_two_branches_is_shaken_as_a_whole() -> None:
    """What a block puts out in training is the paper's `x + a * f + (1 - a) * g`, where the model has their mean."""
    inputs = keras.Input((6,))
    f, g = (layers.Dense(6, name=name)(inputs) for name in "fg")
    model = ended(inputs, layers.Add(name="add")([inputs, layers.Average(name="mean")([f, g])]))
    assert [s.key for s in sites_of(model) if s.technique == "shake_shake"] == ["shake_shake@mean"]
    assert not any(s.technique == "drop_path" for s in sites_of(model) if s.path in "fg")
    applied: Any = rg.Recipe({"shake_shake": 1.0}).apply(model, seed=0)
    within = keras.Model(applied.input, [applied.get_layer(name).output for name in ("f", "g", "add")])
    f, g, y = (np.asarray(a) for a in within(ROWS, training=True))
    share = (y - ROWS - g) / (f - g)
    np.testing.assert_allclose(share, share[:, :1] * np.ones(6), atol=1e-3)
    assert share.min() > -1e-3
    assert share.max() < 1 + 1e-3
    assert np.ptp(share[:, 0]) > 0.5
    plain = model.predict(ROWS, verbose=0)
    np.testing.assert_allclose(applied.predict(ROWS, verbose=0), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("kernels", "shaken"),
    [
        ((1, 1), True),
        ((2, 2), True),
        ((1, 2), False),
        ((0, 0), False),
        ((2, 0, 2), True),
        ((2, 1, 2), True),
        ((1, 1, 1), False),
        ((1, 2, 1), False),
        ((1, 0, 2), False),
        ((1, 1, 1, 1), False),
    ],
)
def test_two_branches_have_as_many_kernels_and_what_is_skipped_fewer(kernels: tuple[int, ...], shaken: bool) -> None:
    inputs = keras.Input((6,))
    ends = []
    for count in kernels:
        end = layers.ReLU()(inputs)
        for _ in range(count):
            end = layers.Dense(6)(end)
        ends.append(end)
    model = ended(inputs, layers.Add()(ends))
    assert any(site.technique == "shake_shake" for site in sites_of(model)) == shaken


def test_two_towers_that_share_nothing_are_no_branches() -> None:
    first, second = keras.Input((6,)), keras.Input((4,))
    model = ended([first, second], layers.Add()([layers.Dense(5)(first), layers.Dense(5)(second)]))
    with pytest.raises(ValueError, match="no residual block of two branches"):
        rg.Recipe({"shake_shake": 0.5}).apply(model)


@pytest.mark.parametrize(("strength", "learned"), [(10.0, 0.5), (1e-7, 0.0)])
def test_concrete_dropout_learns_a_rate_between_what_the_entropy_and_what_the_rows_want(
    strength: float, learned: float
) -> None:
    """Much reward for entropy: every other unit goes. None, and rows whose labels can be learned: none goes."""
    inputs = keras.Input((6,))
    model = ended(inputs, layers.Dense(8, "relu", name="h")(inputs))
    applied: Any = rg.Recipe({"concrete_dropout": strength}).apply(model, seed=0)
    applied.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    applied.fit(ROWS, ROWS[:, :3].argmax(1), epochs=80, verbose=0)
    (layer,) = (layer for layer in applied.layers if isinstance(layer, rg.layers.ConcreteDropout))
    assert float(layer.rate) == pytest.approx(learned, abs=0.03)


@pytest.mark.parametrize("recipe", [{}, {"concrete_dropout": 0.0}, {"l2": 1e-3}])
def test_concrete_dropout_placed_by_hand_keeps_its_rate_and_leaves_nothing(recipe: dict[str, float]) -> None:
    model = deep(rg.layers.ConcreteDropout(0.02, seed=1, name="learns"))
    model.get_layer("learns").logit.assign(-1.0)
    applied: Any = rg.Recipe(recipe).apply(model, seed=0)
    assert float(applied.get_layer("learns").logit) == -1
    fitted(applied, ROWS)
    assert (float(applied.get_layer("learns").logit) == -1) == (recipe == {"concrete_dropout": 0.0})
    plain = applied.to_keras()
    assert type(plain.get_layer("learns")) is layers.Identity
    np.testing.assert_allclose(plain.predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0), atol=1e-6)
    (member,) = rg.train(model, ROWS, labels(ROWS), recipe, init="keep", **HOW)
    np.testing.assert_allclose(member.model.predict(ROWS, verbose=0), plain.predict(ROWS, verbose=0), atol=2e-6)


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_skips_are_the_residual_network_that_keras_trains(share: float, kind: str) -> None:
    """Around the layers as wide as what they take, and no others."""
    wide, rows = (8, ROWS) if kind == "dense" else (4, RANDOM.normal(size=(48, 5, 5, 2)).astype("float32"))

    def layer(width: int, name: str) -> Any:
        if kind == "dense":
            return layers.Dense(width, "relu", name=name)
        return layers.Conv2D(width, 3, padding="same", activation="relu", name=name)

    def stack(skips: bool) -> Any:
        keras.utils.set_random_seed(0)
        inputs = keras.Input(rows.shape[1:])
        x = layer(wide, "a")(inputs)
        for name in "bc":
            y = layer(wide, name)(x)
            x = layers.Add()([y, layers.Rescaling(share)(x)]) if skips else y
        x = layer(wide - 1, "d")(x)
        return ended(inputs, layers.Flatten()(x) if kind == "convolution" else x)

    applied: Any = rg.Recipe({"skip": share}).apply(stack(skips=False))
    assert list(applied.strengths) == ["skip@b", "skip@c"]
    found = fitted(applied, rows)
    plain = applied.to_keras()
    expected = stack(skips=True)
    same(found, fitted(expected, rows))
    np.testing.assert_allclose(plain.predict(rows, verbose=0), expected.predict(rows, verbose=0), atol=2e-6)
    assert any(isinstance(put_in, layers.Rescaling) for put_in in plain.layers) == (share != 1)
    fitted(plain, rows)
    same(fitted(applied, rows), plain.get_weights())  # it goes on as the model that it is


def test_skips_go_into_stacks_inside_stacks_with_dropout_behind_them() -> None:
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([layers.Dense(6, "tanh", name="skip"), layers.Dense(6, "relu", name="h")], name="inner")
    model = keras.Sequential(
        [keras.Input((6,)), inner, layers.Dense(6, "relu", name="h_skip"), layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
    recipe = {"skip": 0.5, "skip@inner/h": 0.0, "dropout": 0.3, "drop_connect": 0.2, "batch_normalization@h_skip": 1.0}
    applied: Any = rg.Recipe(recipe).apply(model, seed=0)
    assert {k: float(v) for k, v in applied.strengths.items() if k.startswith("skip")} == {
        "skip@inner/skip": 0.5,
        "skip@inner/h": 0.0,
        "skip@h_skip": 0.5,
    }
    fitted(applied, ROWS)
    plain = applied.to_keras()
    np.testing.assert_allclose(plain.predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0), atol=1e-6)
    assert sum(isinstance(layer, layers.Add) for layer in (*plain.layers, *plain.get_layer("inner").layers)) == 2
    (member,) = rg.train(model, ROWS, labels(ROWS), recipe, init="keep", **HOW)
    same(member.model.get_weights(), plain.get_weights())


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_skips_go_around_convolutions_of_any_length_that_keep_it(padding: str) -> None:
    inputs = keras.Input((None, 8))
    x = layers.Conv1D(8, 3, padding=padding, activation="relu", name="h")(inputs)
    applied: Any = rg.Recipe({"skip": 0.5}).apply(ended(inputs, layers.GlobalAveragePooling1D()(x)))
    rows = RANDOM.normal(size=(48, 7, 8)).astype("float32")
    assert list(applied.strengths) == ["skip@h"]
    fitted(applied, rows)


def test_a_class_of_the_users_is_not_made_a_graph() -> None:
    class Mine(keras.Sequential):
        pass

    model = Mine([keras.Input((6,)), layers.Dense(6, "relu"), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="puts out as much as it takes"):
        rg.Recipe({"skip": 1.0}).apply(model)


def test_tokens_are_dropped_behind_the_embedding() -> None:
    words = keras.Input((6,), dtype="int32")
    model = ended(words, layers.GlobalAveragePooling1D()(layers.Embedding(11, 4, name="words")(words)))
    applied: Any = rg.Recipe({"token_dropout": 0.3}).apply(model)
    assert list(applied.strengths) == ["token_dropout@words"]


def deep(*middle: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu", name="h"), *middle, layers.Dense(3, "softmax", name="o")]
    )
    model.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
    return model


def test_batch_normalization_put_in_is_the_layer_of_keras() -> None:
    applied: Any = rg.Recipe({"batch_normalization": 1.0}).apply(deep())
    stock = deep(layers.BatchNormalization())
    found, expected = fitted(applied, ROWS), fitted(stock, ROWS)
    same(found, expected)
    plain = applied.to_keras()
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in stock.layers]
    same(plain.get_weights(), expected)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_of_normalization_is_a_stock_layer_in_the_end(share: float) -> None:
    applied: Any = rg.Recipe({"batch_normalization": share, "dropout": 0.2}).apply(deep(), seed=0)
    fitted(applied, ROWS)
    np.testing.assert_allclose(applied.to_keras().predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0), atol=1e-6)
    (member,) = rg.train(
        deep(), ROWS, labels(ROWS), {"batch_normalization": share, "dropout": 0.2}, init="keep", **{**HOW, "verbose": 0}
    )
    same(member.model.get_weights(), applied.to_keras().get_weights())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("recipe", [{}, {"l2": 1e-3}])
def test_normalization_placed_by_hand_is_kept_and_ends_as_a_stock_layer(share: float, recipe: dict[str, float]) -> None:
    applied: Any = rg.Recipe(recipe).apply(deep(rg.layers.BatchNormalization(share)), seed=0)
    fitted(applied, ROWS)
    plain = applied.to_keras()
    assert type(plain.layers[1]) is layers.BatchNormalization
    np.testing.assert_allclose(plain.predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0), atol=1e-6)
    (member,) = rg.train(deep(rg.layers.BatchNormalization(share)), ROWS, labels(ROWS), recipe, init="keep", **HOW)
    np.testing.assert_allclose(member.model.predict(ROWS, verbose=0), plain.predict(ROWS, verbose=0), atol=2e-6)


def test_normalization_without_a_scale_stays_as_it_was_placed() -> None:
    applied: Any = rg.Recipe({"l2": 1e-3}).apply(deep(rg.layers.BatchNormalization(0.5, scale=False)))
    plain = applied.to_keras()
    assert type(plain.layers[1]) is rg.layers.BatchNormalization
    np.testing.assert_allclose(plain.predict(ROWS, verbose=0), applied.predict(ROWS, verbose=0), atol=1e-6)


def test_members_with_and_without_it_train_in_groups_of_their_own() -> None:
    recipes = [
        {},
        {"batch_normalization": 0.0, "l2": 0.1},
        {"batch_normalization": 1.0},
        {"batch_normalization@h": 0.5, "l2": 0.1},
    ]
    members = rg.train(deep(), ROWS, labels(ROWS), recipes, epochs=2, batch_size=16)
    normalized = [any(isinstance(layer, layers.BatchNormalization) for layer in m.model.layers) for m in members]
    assert normalized == [False, False, True, True]
    alone: Any = rg.Recipe({}).apply(deep(), init="fresh", seed=0)
    np.testing.assert_array_equal(members[0].model.get_weights()[0].shape, alone.get_weights()[0].shape)


def test_members_with_and_without_a_layer_that_learns_train_in_groups_of_their_own() -> None:
    recipes = [{}, {"concrete_dropout": 0.01}, {"concrete_dropout": 0.0, "l2": 0.1}]
    members = rg.train(deep(), ROWS, labels(ROWS), recipes, init="keep", **HOW)
    for member in members:
        applied: Any = member.recipe.apply(deep(), seed=0)
        fitted(applied, ROWS)
        same(member.model.get_weights(), applied.to_keras().get_weights())


@pytest.mark.parametrize("put_in", [rg.layers.BatchNormalization, rg.layers.ConcreteDropout])
def test_what_is_placed_by_hand_and_learns_is_off_in_a_member_whose_recipe_says_so(put_in: Any) -> None:
    (technique,) = (name for name, t in rg.techniques().items() if put_in in t.stock)
    recipes = [{technique: 0.0}, {}]
    members = rg.train(deep(put_in(0.7, name="p")), ROWS, labels(ROWS), recipes, init="keep", **HOW)
    for member in members:
        applied: Any = member.recipe.apply(deep(put_in(0.7, name="p")), seed=0)
        fitted(applied, ROWS)
        np.testing.assert_allclose(
            member.model.predict(ROWS, verbose=0), applied.to_keras().predict(ROWS, verbose=0), atol=2e-6
        )


def test_it_is_put_only_where_no_normalization_stands() -> None:
    model = deep(
        layers.BatchNormalization(), layers.Dense(7, name="g"), layers.BatchNormalization(), layers.ReLU(name="r")
    )
    with pytest.raises(ValueError, match=r"'batch_normalization'.*What would match: layers"):
        rg.Recipe({"batch_normalization": 1.0}).apply(model)
    applied: Any = rg.Recipe({"batch_normalization@h": 1.0}).apply(model)
    assert list(applied.strengths) == ["batch_normalization@h"]
