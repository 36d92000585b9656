"""`rg.compact`: what is left puts out the same, by Keras itself; what can't go stays."""

import itertools
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import regularity as rg

RNG = np.random.default_rng(0)


def emptied(model, share, seed=0):
    """The model with random biases, and with about a share of its units cut off from what comes in or from what reads them."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights([w + 0.3 * random.random(w.shape).astype("float32") for w in layer.get_weights()])
    for source, readers in readers_of(model):
        kernel, *bias = source.get_weights()
        gone = np.flatnonzero(random.random(kernel.shape[-1]) < share)
        kernel[..., gone[::2]] = 0.0
        source.set_weights([kernel, *bias])
        for reader in readers:
            read, *rest = reader.get_weights()
            places = read.reshape(-1, kernel.shape[-1], read.shape[-1])
            places[:, gone[1::2]] = 0.0
            reader.set_weights([read, *rest])
    return model


def readers_of(model):
    if "stem" in [layer.name for layer in model.layers]:
        names = {"stem": ["left", "right"], "wide": ["inner"]}
        return [(model.get_layer(name), [model.get_layer(n) for n in readers]) for name, readers in names.items()]
    units = [layer for layer in model.layers if isinstance(layer, (layers.Dense, layers.Conv2D))]
    return [(source, [reader]) for source, reader in itertools.pairwise(units)]


def dense(activation="relu"):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(12, activation),
            layers.Dropout(0.2),
            layers.Dense(9, activation),
            layers.Dense(3),
        ]
    )
    return model, (5,)


def convolution(padding="valid"):
    stack = [
        layers.Conv2D(6, 3, padding=padding, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(2, padding="same"),
        layers.Conv2D(5, 2, padding=padding), layers.Activation("tanh"), layers.Flatten(), layers.Dense(7, "elu"), layers.Dense(2, "softmax"),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((9, 9, 2)), *stack]), (9, 9, 2)


def branches():
    """Two layers that read one, and a block that goes around another."""
    inputs = keras.Input((4,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    left, right = layers.Dense(6, "relu", name="left")(stem), layers.Dense(5, "tanh", name="right")(stem)
    inner = layers.Dense(6, name="inner")(layers.Dense(7, "relu", name="wide")(left))
    joined = layers.Concatenate()([layers.Add()([left, inner]), right])
    return keras.Model(inputs, layers.Dense(2, name="out")(joined)), (4,)


MODELS = [dense, lambda: dense("sigmoid"), convolution, lambda: convolution("same"), branches]


@pytest.mark.parametrize("make", MODELS)
def test_what_is_left_puts_out_the_same(make):
    model, shape = make()
    emptied(model, 0.5)
    x = RNG.normal(size=(16, *shape)).astype("float32")
    before = [w.copy() for w in model.get_weights()]
    small = rg.compact(model, threshold=0.0)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(small.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert type(small) is type(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@given(share=st.floats(0, 1), seed=st.integers(0, 100), make=st.sampled_from([dense, branches]))
def test_any_share_of_units_may_be_empty(share, seed, make):
    model, shape = make()
    emptied(model, share, seed)
    x = np.random.default_rng(seed).normal(size=(5, *shape)).astype("float32")
    small = rg.compact(model, threshold=0.0)
    np.testing.assert_allclose(small(x), model(x), atol=1e-4)
    assert small.count_params() <= model.count_params()


def test_units_that_go_are_those_that_are_empty():
    model, _ = dense()
    kernel, bias = model.layers[0].get_weights()
    kernel[:, [1, 4]] = 0.0
    model.layers[0].set_weights([kernel, bias])
    assert [layer.units for layer in rg.compact(model).layers if hasattr(layer, "units")] == [10, 9, 3]
    np.testing.assert_array_equal(rg.compact(model).layers[0].get_weights()[0], np.delete(kernel, [1, 4], 1))


def test_what_went_takes_with_it_what_it_alone_has_read():
    model, _ = dense()
    kernel, bias = model.layers[2].get_weights()
    kernel[3, 1:] = 0.0  # the fourth unit is read by one alone,
    model.layers[2].set_weights([kernel, bias])
    last, bias = model.layers[3].get_weights()
    last[0] = 0.0  # which nothing reads
    model.layers[3].set_weights([last, bias])
    assert [layer.units for layer in rg.compact(model).layers if hasattr(layer, "units")] == [11, 8, 3]


def test_what_is_joined_or_looks_at_all_stays():
    model, _ = branches()
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    small = {layer.name: layer for layer in rg.compact(model).layers}
    assert (small["left"].units, small["inner"].units, small["right"].units) == (6, 6, 5)
    assert small["wide"].units == 1  # one is left, since a layer must have one
    soft = keras.Sequential([keras.Input((3,)), layers.Dense(4, "softmax"), layers.Dense(2)])
    soft.layers[0].set_weights([np.zeros((3, 4)), np.zeros(4)])
    assert rg.compact(soft).layers[0].units == 4


# -- copies of all kinds of models -------------------------------------------------------------------------------------


def table():
    normalization = layers.Normalization()
    normalization.adapt(RNG.normal(3.0, 2.0, (20, 4)))
    stack = [
        normalization, layers.Dense(7, "relu", name="a"), layers.Dropout(0.1), layers.Dense(6, layers.LeakyReLU(0.1), name="b"),
        rg.layers.Dropout(0.1), layers.BatchNormalization(), layers.Dense(6, name="c"), layers.PReLU(), layers.Dense(5),
        layers.LayerNormalization(), layers.Dense(2),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((4,)), *stack]), (4,), {"a": 5, "b": 4, "c": 6}


def images():
    stack = [
        layers.Conv2D(4, 2, padding="same", name="a"), layers.BatchNormalization(), layers.ReLU(), layers.AveragePooling2D(2, padding="same"),
        layers.Conv2D(4, 2, activation="gelu", name="b"), layers.GroupNormalization(2), layers.DepthwiseConv2D(2, padding="same"),
        layers.Conv2D(4, 1, name="c"), layers.SeparableConv2D(3, 2, padding="same"), layers.Conv2DTranspose(3, 2),
        layers.Conv2D(5, 2, activation="softplus", name="d"), layers.Flatten(), layers.BatchNormalization(),
        layers.Dense(5, "elu", name="e"), layers.Dense(2),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((6, 6, 2)), *stack]), (6, 6, 2), {"a": 2, "b": 4, "c": 4, "d": 3, "e": 3}


def series():
    stack = [
        layers.Conv1D(5, 2, activation="silu", name="a"), layers.Conv1D(4, 2, padding="causal", name="b"),
        layers.GlobalAveragePooling1D(), layers.Dense(4, "tanh", name="c"), layers.Dense(2),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((6, 3)), *stack]), (6, 3), {"a": 5, "b": 2, "c": 2}


def words():
    stack = [
        layers.Embedding(9, 3, mask_zero=True), layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(3),
        layers.Dense(5, "relu", name="a"), layers.Dense(2),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((5,), dtype="int32"), *stack]), (5,), {"a": 3}


def attention():
    inputs = keras.Input((4, 3))
    joined = layers.LayerNormalization()(layers.Add()([inputs, layers.MultiHeadAttention(2, 2)(inputs, inputs)]))
    outputs = layers.Dense(3, name="b")(layers.Dense(6, "gelu", name="a")(joined))
    return keras.Model(inputs, layers.Dense(2)(layers.Add()([joined, outputs]))), (4, 3), {"a": 4, "b": 3}


def several():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    stem = layers.Dense(6, "relu", name="a")(left)
    joined = layers.Concatenate()([layers.Dense(4, name="b")(stem), layers.Dense(4, name="c")(right)])
    outputs = {
        "one": layers.Dense(2, name="one")(layers.Dense(5, name="d")(joined)),
        "two": layers.Dense(1, name="two")(joined),
    }
    return (
        keras.Model({"left": left, "right": right}, outputs),
        {"left": (4,), "right": (3,)},
        {"a": 4, "b": 4, "c": 4, "d": 3},
    )


def shared():
    tower = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3)], name="tower")
    called_twice = layers.Dense(4, "relu", name="a")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    far = layers.Subtract()([tower(called_twice(left)), tower(called_twice(right))])
    outputs = layers.Dense(2)(layers.Dense(5, "sigmoid", name="b")(far))
    return keras.Model([left, right], outputs), [(4,), (4,)], {"a": 4, "b": 3}


def nested():
    inside = keras.Input((6,))
    inner = keras.Model([inside], [layers.Dense(3, "relu")(inside)], name="inner")
    outside = keras.Input((4,))
    (last,) = inner([layers.Dense(6, "relu", name="a")(outside)])
    return keras.Model(outside, layers.Dense(2)(layers.Dense(5, "relu", name="b")(last))), (4,), {"a": 6, "b": 3}


KINDS = [table, images, series, words, attention, several, shared, nested]


def with_dead(model, names, seed=0):
    """The model with random weights, but for two units of each of these layers, which nothing comes into."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path else -1.0
        if variable.shape and "float" in variable.dtype:
            variable.assign(random.uniform(low, 1.0, variable.shape))
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    for name in names:
        kernel, *rest = model.get_layer(name).get_weights()
        kernel[..., 1:4:2] = 0.0
        model.get_layer(name).set_weights([kernel, *rest])
    return model


def rows_of(shape, whole=False):
    if isinstance(shape, dict):
        return {name: rows_of(each) for name, each in shape.items()}
    if isinstance(shape, list):
        return [rows_of(each) for each in shape]
    return RNG.integers(1, 9, (6, *shape)) if whole else RNG.normal(size=(6, *shape)).astype("float32")


def assert_same(one, other, atol=1e-5):
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("make", KINDS)
def test_each_kind_of_layer_is_kept_as_it_is_or_made_smaller(make, tmp_path):
    model, shape, units = make()
    with_dead(model, units)
    x = rows_of(shape, whole=make is words)
    outputs = keras.tree.map_structure(np.asarray, model(x))
    for threshold in (0.0, 1e-3):
        small = rg.compact(model, threshold)
        assert_same(small(x), outputs)
        assert {
            name: small.get_layer(name).get_config().get("units") or small.get_layer(name).filters for name in units
        } == units
    small.save(tmp_path / "small.keras")
    assert_same(keras.models.load_model(tmp_path / "small.keras")(x), outputs)
    for trained, other in ((small, model), (model, small)):  # neither holds what the other trains
        before = [np.array(w) for w in other.get_weights()]
        trained.compile("sgd", "mse")
        trained.train_on_batch(x, keras.tree.map_structure(np.zeros_like, outputs))
        for old, new in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert np.isfinite(keras.tree.flatten(other(x))[0]).all()


def test_a_layer_that_models_inside_the_model_share_is_one_in_the_copy():
    encoder = layers.Dense(4, "relu")
    first = keras.Sequential([keras.Input((4,)), encoder], name="first")
    inside = keras.Input((4,))
    second = keras.Model(inside, layers.Dense(3)(encoder(inside)), name="second")
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(layers.Concatenate()([encoder(inputs), first(inputs), second(inputs)]))
    model = with_dead(keras.Model(inputs, outputs), [encoder.name])
    small = rg.compact(model)
    x = rows_of((4,))
    assert_same(small(x), model(x))
    assert len(small.weights) == len(model.weights)


def test_what_would_lose_weights_in_the_copy_is_refused():
    dense = layers.Dense(3)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Add()([layers.TimeDistributed(dense)(inputs), dense(inputs)]))
    with pytest.raises(ValueError, match=r"can't be copied.*have each hold a layer of its own"):
        rg.compact(model)
    attention = layers.MultiHeadAttention(1, 2)
    model = keras.Model(inputs, attention(inputs, inputs))
    attention.query_dense.enable_lora(1)
    with pytest.raises(ValueError, match=r"query_dense' was copied, but its copy has 2 weights.*Take off"):
        rg.compact(model)


def test_small_weights_that_a_normalization_makes_large_are_not_zero():
    tiny = [
        keras.Input((4,)),
        layers.Dense(6, name="a"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dense(6, name="b"),
    ]
    stack = [
        *tiny,
        layers.BatchNormalization(),
        layers.Dense(6, name="c"),
        layers.LayerNormalization(),
        layers.Dense(2),
    ]
    model = keras.Sequential(stack)
    with_dead(model, [])
    for name in "abc":
        model.get_layer(name).set_weights([w * 5e-4 for w in model.get_layer(name).get_weights()])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = 1e-9
            layer.moving_variance.assign(np.full(6, 1e-8))
            layer.moving_mean.assign(np.zeros(6))
    assert rg.compact(model).count_params() == model.count_params()
    gamma = np.ones(6)
    gamma[[0, 5]] = 0.0  # but where it takes all to zero, all is the same
    model.layers[1].gamma.assign(gamma)
    small, x = rg.compact(model), rows_of((4,))
    assert [small.get_layer(name).units for name in "abc"] == [4, 6, 6]
    assert_same(small(x), model(x), atol=1e-4)


def unit_norm(x):
    return x / keras.ops.norm(x, axis=-1, keepdims=True)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("activation", [layers.Softmax(), unit_norm, "softmax", lambda x: keras.ops.softmax(x)])
def test_units_stay_where_an_activation_may_look_at_all_of_them(activation):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation, name="a"), layers.Dense(2)])
    behind = activation if isinstance(activation, layers.Layer) else layers.Activation(activation)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), behind, layers.Dense(2)])
    for each in (model, other):
        small, x = rg.compact(with_dead(each, ["a"])), rows_of((4,))
        assert small.layers[0].units == 6
        assert_same(small(x), each(x))


@keras.saving.register_keras_serializable("tests")
def all_ones(shape, dtype):
    return keras.ops.ones(shape, dtype)


def lora(model):
    model.get_layer("a").enable_lora(2)


def quantized(model):
    with pytest.warns(UserWarning, match="InputLayer"):
        model.quantize("int8")


ODD = {
    "a PReLU as activation": ({"activation": layers.PReLU()}, None, 6),
    "adapters": ({}, lora, 6),
    "quantized kernels": ({}, quantized, 6),
    "an initializer with an array": (
        {"kernel_initializer": keras.initializers.Constant(np.ones((4, 6)).tolist())},
        None,
        6,
    ),
    "an initializer of the user's": ({"kernel_initializer": all_ones}, None, 6),
    "another initializer": (
        {"kernel_initializer": "orthogonal", "bias_initializer": keras.initializers.Constant(0.1)},
        None,
        4,
    ),
    "half precision": ({"dtype": "bfloat16"}, None, 4),
}


@pytest.mark.parametrize("case", ODD)
def test_what_can_not_be_made_smaller_stays(case):
    arguments, change, units = ODD[case]
    dense = layers.Dense(6, name="a", **{"activation": "sigmoid", **arguments})
    model = keras.Sequential([keras.Input((4,)), dense, layers.Dense(2)])
    x = rows_of((4,))
    model(x)
    with_dead(model, ["a"])
    if change:
        change(model)
    small = rg.compact(model)
    assert small.get_layer("a").units == units
    assert_same(small(x), model(x), atol=0.02 if "half" in case else 1e-5)


def test_batch_normalization_that_always_trains_keeps_units():
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dense(6, name="a")(inputs), training=True)
    model = with_dead(keras.Model(inputs, layers.Dense(2)(hidden)), ["a"])
    x = rows_of((4,))
    small = rg.compact(model)
    assert small.get_layer("a").units == 6
    assert_same(small(x), model(x))


@given(data=st.data())
def test_random_stacks_put_out_the_same_and_never_get_bigger(data):
    number = st.integers(1, 4)
    activation = st.sampled_from(["relu", "sigmoid", "tanh", "gelu", "softmax", None])
    stack, shape = [keras.Input((6, 2))], (6, 2)
    for _ in range(data.draw(st.integers(0, 2), "convolutions")):
        padding = data.draw(st.sampled_from(["valid", "same", "causal"]))
        stack.append(layers.Conv1D(data.draw(number), 2, padding=padding, activation=data.draw(activation)))
        stack += data.draw(st.sampled_from([[], [layers.BatchNormalization()], [layers.MaxPooling1D(2, 1, "same")]]))
    stack += data.draw(
        st.sampled_from(
            [[layers.Flatten()], [layers.GlobalMaxPooling1D()], [layers.Flatten(), layers.BatchNormalization()]]
        )
    )
    for _ in range(data.draw(st.integers(0, 2), "dense layers")):
        stack.append(layers.Dense(data.draw(number), data.draw(activation), use_bias=data.draw(st.booleans())))
    model = with_dead(keras.Sequential([*stack, layers.Dense(2)]), [])
    for layer in model.layers:
        if isinstance(layer, (layers.Dense, layers.Conv1D)):
            kernel, *rest = layer.get_weights()
            for axis in (-1, -2):  # what comes into a unit, and what reads it
                dead = data.draw(st.lists(st.booleans(), min_size=kernel.shape[axis], max_size=kernel.shape[axis]))
                kernel[(..., dead) if axis == -1 else (..., dead, slice(None))] = 0.0
            layer.set_weights([kernel, *rest])
    x = rows_of(shape)
    for threshold in (0.0, 1e-3):
        small = rg.compact(model, threshold)
        assert_same(small(x), model(x), atol=1e-4)
        assert small.count_params() <= model.count_params()


def test_a_group_penalty_makes_a_smaller_network_that_is_as_good():
    random = np.random.default_rng(1)
    x = random.normal(size=(300, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(64, "relu"), layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    (member,) = rg.train(model, x, y, {"group_lasso": 0.01, "proximal_l1": 0.01}, epochs=60, verbose=0)
    small = rg.compact(member.model, threshold=0.01)
    whole, left = (m.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] for m in (member.model, small))
    assert small.layers[0].units < 48
    assert left == pytest.approx(whole, abs=0.02)
    small.fit(x, y, epochs=1, verbose=0)  # compiled as the given one was


def test_it_is_kept_in_a_file(tmp_path):
    model, shape = convolution()
    emptied(model, 0.5)
    small = rg.compact(model)
    small.save(tmp_path / "small.keras")
    x = RNG.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "small.keras")(x), small(x), atol=1e-6)


def test_what_can_not_be_compacted_says_why():
    model, _ = dense()
    for threshold in (-1.0, np.nan, np.inf, "0.1", True):
        with pytest.raises(ValueError, match=r"`threshold`. Expected a number from 0"):
            rg.compact(model, threshold)
    with pytest.raises(ValueError, match="Sequential or Functional"):
        rg.compact(layers.Dense(2))
    with pytest.raises(ValueError, match="Sequential or Functional"):
        rg.compact(keras.Sequential([layers.Dense(2)]))


def test_the_command_line_writes_it_and_says_what_went(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    model, _ = dense()
    emptied(model, 0.5)
    model.save("model.keras")
    code, out, _ = command_line("compact", "model.keras", "--out", "small.keras", "--threshold", "0")
    assert code == 0
    assert f"of {model.count_params()} weights" in out
    assert "of 12 units" in out
    small = keras.models.load_model("small.keras")
    assert small.count_params() < model.count_params()
    normalization = layers.Normalization(axis=None)
    normalization.adapt(RNG.normal(size=(9, 4)))
    stack = [normalization, layers.Dense(6, "relu", name="a"), layers.Dense(2)]
    with_dead(keras.Sequential([keras.Input((4,)), *stack]), ["a"]).save("normalized.keras")
    code, out, _ = command_line("compact", "normalized.keras", "--out", "small.keras", "--json")
    assert code == 0
    assert json.loads(out)["layers"] == [{"layer": "a", "before": 6, "after": 4}]
    code, _, error = command_line("compact", "model.keras", "--out", "small.h5")
    assert code == 2
    assert "--out to end in .keras" in error
