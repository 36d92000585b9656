"""Data in any form become NumPy arrays; what does not fit the model is refused before anything compiles."""

from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.utils.class_weight import compute_sample_weight

import regularity as rg
from regularity.data import Data, gather, is_stream, stream_batches, to_data

ROWS = np.arange(24, dtype="float32").reshape(8, 3)
CLASSES = np.array([0, 1, 0, 1, 0, 1, 0, 1])


def model(inputs: int = 3, outputs: int = 2, loss: Any = "sparse_categorical_crossentropy") -> Any:
    built = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs)])
    built.compile("adam", loss)
    return built


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in data comes before the first program is made."""

    def made(*arguments: Any) -> None:
        raise AssertionError("a program was made")

    monkeypatch.setattr("regularity.population._population.Program", made)


# -- forms --------------------------------------------------------------------------------------------------------------


def as_torch(array: Any) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed: make test EXTRAS=dev,torch")
    return torch.tensor(array, requires_grad=array.dtype.kind == "f")


def as_tensorflow(array: Any) -> Any:
    return pytest.importorskip(
        "tensorflow", reason="TensorFlow is not installed: make test EXTRAS=dev,tensorflow"
    ).constant(array)


FORMS = {
    "numpy": np.asarray,
    "double": lambda a: a.astype("float64" if a.dtype.kind == "f" else "int64"),
    "list": lambda a: a.tolist(),
    "jax": keras.ops.convert_to_tensor,
    "variable": lambda a: keras.Variable(a, dtype="float32" if a.dtype.kind == "f" else "int32"),
    "pandas": lambda a: pd.DataFrame(a) if a.ndim > 1 else pd.Series(a),
    "pandas with odd names": lambda a: (
        pd.DataFrame(a, columns=["cpu", "detach", "numpy"]) if a.ndim > 1 else pd.Series(a)
    ),
    "pandas nullable": lambda a: (pd.DataFrame(a) if a.ndim > 1 else pd.Series(a)).convert_dtypes(),
    "objects": lambda a: a.astype(object),
    "torch": as_torch,
    "tensorflow": as_tensorflow,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_arrays(form: str) -> None:
    data = to_data(model(), FORMS[form](ROWS), FORMS[form](CLASSES), sample_weight=FORMS[form](ROWS[:, 0]))
    for got, expected in [(data.x, ROWS), (data.y, CLASSES), (data.sample_weight, ROWS[:, 0])]:
        assert isinstance(got, np.ndarray)
        assert got.dtype.itemsize <= 4
        np.testing.assert_array_equal(got, expected)
    assert data.rows == 8


def test_dicts_and_lists_keep_their_form() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    both = keras.Model([a, b], keras.layers.Dense(2)(a + b))
    both.compile("adam", "sparse_categorical_crossentropy")
    named = to_data(both, {"a": pd.DataFrame(ROWS), "b": ROWS}, CLASSES)
    assert set(named.x) == {"a", "b"}
    assert named.take([2]).x["b"].tolist() == [[6, 7, 8]]
    listed = to_data(both, (ROWS, ROWS), CLASSES)
    assert [type(part) for part in listed.x] == [np.ndarray, np.ndarray]
    assert listed.take(slice(2)).rows == 2


def test_one_column_fits_a_model_with_one_input_as_in_keras() -> None:
    assert to_data(model(1), pd.Series(ROWS[:, 0]), CLASSES).rows == 8


def test_class_weights_become_weights_of_rows() -> None:
    assert to_data(model(), ROWS, CLASSES, class_weight={1: 3.0}).sample_weight.tolist() == [1, 3] * 4
    hot = to_data(
        model(loss="categorical_crossentropy"), ROWS, keras.utils.to_categorical(CLASSES), class_weight={0: 2.0}
    )
    assert hot.sample_weight.tolist() == [2, 1] * 4


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    rare = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    expected = compute_sample_weight("balanced", rare)
    found = to_data(model(), ROWS, rare, class_weight="balanced").sample_weight
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    hot = to_data(
        model(loss="categorical_crossentropy"), ROWS, keras.utils.to_categorical(rare), class_weight="balanced"
    )
    np.testing.assert_allclose(hot.sample_weight, expected, rtol=1e-6)


# -- what is refused ---------------------------------------------------------------------------------------------------


def spoiled(value: float) -> Any:
    rows = ROWS.copy()
    rows[5, 1] = value
    return rows


REFUSED = {
    "different length": (ROWS, CLASSES[:5], r"same number of rows.*x with 8, y with 5"),
    "empty": (ROWS[:0], CLASSES[:0], "at least one row"),
    "nothing": ([], [], "at least one row"),
    "number": (1.0, 1.0, "to have rows"),
    "nan": (spoiled(np.nan), CLASSES, r"x to be finite.*1 of 8 rows, the first in row 5"),
    "infinity": (spoiled(np.inf), CLASSES, "x to be finite"),
    "missing in a frame": (pd.DataFrame(ROWS).astype("Float32").mask(ROWS > 20), CLASSES, "x to be finite"),
    "too wide": (np.ones((8, 4)), CLASSES, r"x of shape \(rows, 3\).*\(8, 4\)"),
    "too deep": (np.ones((8, 3, 2)), CLASSES, r"x of shape \(rows, 3\)"),
    "too flat": (np.ones(8), CLASSES, r"x of shape \(rows, 3\)"),
    "two inputs": ([ROWS, ROWS], CLASSES, r"1 input\(s\).*Received: 2"),
    "label too high": (ROWS, CLASSES + 1, r"classes from 0 to 1.*from 1 to 2"),
    "label below 0": (ROWS, CLASSES - 1, "classes from -1 to 0"),
    "label in between": (ROWS, CLASSES + 0.5, "whole numbers"),
    "one-hot": (ROWS, np.eye(2)[CLASSES], "looks one-hot"),
    "no targets": (ROWS, None, "Expected y, since the model was compiled with a loss"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_do_not_fit_are_refused_before_anything_compiles(case: str) -> None:
    x, y, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        rg.train(model(), x, y, {"l2": 0.1})


def test_text_is_refused_with_its_columns() -> None:
    frame = pd.DataFrame({"size": [1.0, 2.0], "colour": ["red", "blue"]})
    with pytest.raises(TypeError, match=r"x to hold numbers.*'colour'.*OneHotEncoder"):
        rg.train(model(2), frame, [0, 1])
    with pytest.raises(TypeError, match=r"y to hold numbers.*LabelEncoder"):
        rg.train(model(), ROWS, ["a", "b"] * 4)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="x to have rows of one shape"):
        rg.train(model(), [[1, 2, 3], [1, 2]], [0, 1])


def test_labels_not_one_hot_are_refused_for_a_loss_that_needs_it() -> None:
    with pytest.raises(ValueError, match=r"one-hot, of shape \(rows, 2\).*to_categorical"):
        rg.train(model(loss="categorical_crossentropy"), ROWS, CLASSES)


@pytest.mark.parametrize(
    ("loss", "y"), [("mse", ROWS), (keras.losses.MeanAbsoluteError(), ROWS[:, 0]), ("binary_crossentropy", ROWS / 24)]
)
def test_targets_of_another_shape_are_refused_where_keras_would_spread_them(loss: Any, y: Any) -> None:
    with pytest.raises(ValueError, match=r"y of shape \(rows, 2\).*Received: shape"):
        rg.train(model(loss=loss), ROWS, y)


def test_binary_labels_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y from 0 to 1.*from 1.* to 2"):
        rg.train(model(outputs=1, loss="binary_crossentropy"), ROWS, CLASSES + 1)


def test_ignored_class_is_no_label_out_of_range() -> None:
    ignoring = model(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    assert to_data(ignoring, ROWS, np.where(CLASSES, 1, -1)).rows == 8
    with pytest.raises(ValueError, match="classes from -2 to 1"):
        to_data(ignoring, ROWS, np.where(CLASSES, 1, -2))


def test_missing_input_is_refused_by_name() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    both = keras.Model({"a": a, "b": b}, keras.layers.Dense(2)(a + b))
    both.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"\['b'\] missing"):
        rg.train(both, {"a": ROWS}, ROWS[:, :2])


def test_validation_data_are_checked_under_their_name() -> None:
    with pytest.raises(ValueError, match="validation_data: x to be finite"):
        rg.train(model(), ROWS, CLASSES, validation_data=(spoiled(np.nan), CLASSES))
    with pytest.raises(ValueError, match=r"`validation_data` as \(x, y\)"):
        rg.train(model(), ROWS, CLASSES, validation_data=0.2)


def test_weights_of_rows_and_of_classes_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        rg.train(model(), ROWS, CLASSES, sample_weight=np.ones(8), class_weight={0: 1.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"batch_size": 2.5}, "`batch_size`"),
        ({"seeds": 0}, "`seeds`"),
        ({"seeds": [-1]}, "`seeds`"),
        ({"init": "new"}, "`init`"),
        ({"recipes": {"l2@nothing": 1}}, "matches no place"),
        ({"recipes": {"l3": 1}}, "Invalid key"),
    ],
    ids=str,
)
def test_arguments_are_checked_before_anything_compiles(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rg.train(model(), ROWS, CLASSES, **arguments)


@pytest.mark.parametrize("recipes", ["l2", 3, []], ids=str)
def test_what_is_no_recipe_is_refused(recipes: Any) -> None:
    with pytest.raises(TypeError, match="recipe"):
        rg.train(model(), ROWS, CLASSES, recipes)


# -- streams --------------------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return ROWS[2 * index : 2 * index + 2], CLASSES[2 * index : 2 * index + 2]


def generator() -> Iterator[Any]:
    for i in range(4):
        yield Batches()[i]


def test_streams_are_told_from_arrays() -> None:
    assert is_stream(Batches())
    assert is_stream(generator())
    assert not any(is_stream(x) for x in (ROWS, pd.DataFrame(ROWS), [ROWS], {"a": ROWS}, keras.ops.ones(3)))


@pytest.mark.parametrize("stream", [Batches, generator])
def test_gathered_stream_is_its_rows_in_order(stream: Any) -> None:
    data = gather(stream())
    np.testing.assert_array_equal(data.x, ROWS)
    np.testing.assert_array_equal(data.y, CLASSES)
    assert data.sample_weight is None


def test_empty_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        gather(iter(()))


def test_batches_of_a_stream() -> None:
    assert [batch.rows for batch in stream_batches(Batches())] == [2, 2, 2, 2]


def test_targets_beside_a_stream_are_refused() -> None:
    with pytest.raises(ValueError, match="stream to bring targets and weights itself"):
        rg.train(model(), Batches(), CLASSES)


def test_take_gives_rows_of_every_part() -> None:
    taken = Data({"a": ROWS, "b": [ROWS, ROWS]}, CLASSES, None).take(np.array([7, 0]))
    assert taken.rows == 2
    np.testing.assert_array_equal(taken.x["b"][1], ROWS[[7, 0]])
    np.testing.assert_array_equal(taken.y, [1, 0])


# -- more that is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "uint64", "uint32"])
def test_whole_numbers_beyond_int32_do_not_wrap(dtype: str) -> None:
    large = np.full((8, 3), 2**31 + 2, dtype)
    assert to_data(model(), large, CLASSES).x[0, 0] == np.float32(2**31 + 2)
    assert next(stream_batches(iter([(large, CLASSES)]))).x[0, 0] == np.float32(2**31 + 2)
    with pytest.raises(ValueError, match="y to hold classes from 0 to 1"):
        to_data(model(), ROWS, large[:, 0])


def test_target_without_a_loss_is_refused() -> None:
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    built.compile("adam")
    for call in (rg.train, rg.path):
        with pytest.raises(ValueError, match="Expected a model compiled with a loss"):
            call(built, ROWS, CLASSES)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("even", TypeError, "Expected a mapping from class to weight.*or 'balanced'.*Received: class_weight='even'"),
        ([1.0, 2.0], TypeError, "Expected a mapping from class to weight"),
        ({"0": 1.0}, ValueError, r"Expected classes of \[0, 1\] as keys. Received: the keys \['0'\]"),
        ({0: 1.0, 7: 2.0}, ValueError, r"Received: the keys \[7\]"),
        ({0: "2"}, ValueError, "Expected numbers from 0 as weights. Received: '2' for the class 0"),
    ],
)
def test_class_weights_that_can_not_be_are_refused(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rg.train(model(), ROWS, CLASSES, class_weight=weights)


def test_balanced_weights_of_what_is_no_class_are_refused() -> None:
    regressor = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    regressor.compile("adam", "mse")
    with pytest.raises(ValueError, match="Expected targets that are classes where class_weight='balanced'"):
        rg.train(regressor, ROWS, ROWS[:, 0] + 0.5, class_weight="balanced")


def test_rows_of_different_lengths_are_refused() -> None:
    ragged = [[1.0, 2.0], [1.0]] * 4
    for rows in (ragged, np.array(ragged, dtype=object)):
        with pytest.raises(ValueError, match=r"x to have rows of one shape.*lengths from 1 to 2. Pad them"):
            to_data(model(), rows, CLASSES)


def test_sparse_rows_are_refused() -> None:
    with pytest.raises(TypeError, match=r"x to be a dense array. Received: a sparse csr_matrix.*x.toarray\(\)"):
        to_data(model(), sparse.csr_matrix(ROWS), CLASSES)


def test_stream_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regularity.data._memory", lambda: 10_000)
    with pytest.raises(ValueError, match="Expected a stream that ends and fits into memory"):
        gather((ROWS, CLASSES) for _ in iter(int, 1))


class Boundless(keras.utils.PyDataset):
    def __getitem__(self, index: int) -> Any:
        return Batches()[index % 4]


class Endless(Boundless):
    num_batches = None  # so Keras says it


def test_stream_that_says_that_it_does_not_end_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Expected a stream that ends, since an epoch is one pass"):
        rg.train(model(), Endless())
    with pytest.raises(ValueError, match="or give a PyDataset its `__len__`"):
        rg.train(model(), Boundless())
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test EXTRAS=dev,tensorflow")
    repeated = tf.data.Dataset.from_tensor_slices((ROWS, CLASSES)).batch(2).repeat()
    for call in (rg.train, gather):
        with pytest.raises(ValueError, match="Expected a stream that ends, since an epoch is one pass"):
            call(*([model()] if call is rg.train else []), repeated)


def test_recipe_of_another_json_is_a_value_error() -> None:
    for text in ("[1]", "3", "{"):
        with pytest.raises(ValueError, match="Expected a recipe as JSON"):
            rg.Recipe.from_json(text)


def test_strength_as_text_is_shown_with_quotes() -> None:
    with pytest.raises(ValueError, match=r"Received: dropout='0.5'"):
        rg.Recipe({"dropout": "0.5"})


@pytest.mark.parametrize("kind", ["jax", "torch"])
def test_numbers_of_bfloat16_are_taken_in_single_precision(kind):
    values = np.repeat(np.float32([[0.5, -2.0, 1.0]]), 8, 0)[:, : ROWS.shape[1]]  # which it holds exactly
    given = as_torch(values).bfloat16() if kind == "torch" else jax.numpy.asarray(values, "bfloat16")
    found = to_data(model(), given, CLASSES).x
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("named", [False, True], ids=["layers", "dict"])
def test_targets_by_name_may_come_in_any_order(named: bool) -> None:
    inputs = keras.Input((3,))
    heads = {"z": keras.layers.Dense(1, name="z")(inputs), "c": keras.layers.Dense(2, name="c")(inputs)}
    both = keras.Model(inputs, heads if named else list(heads.values()))
    both.compile("adam", {"c": "mse", "z": "mae"} if named else "mse")
    y = {"z": ROWS[:, :1], "c": ROWS[:, :2]}
    for order in (y, dict(reversed(y.items()))):
        assert set(to_data(both, ROWS, order).y) == {"z", "c"}
        with pytest.raises(ValueError, match=r"Expected y\['c'\] of shape \(rows, 2\)"):
            to_data(both, ROWS, order | {"c": ROWS})


def test_a_head_that_stands_twice_has_a_target_for_each() -> None:
    long, short, head = keras.Input((5, 3)), keras.Input((7, 3)), keras.layers.Dense(1)
    twice = keras.Model([long, short], [head(long), head(short)])
    twice.compile("adam", ["mse", "mae"])
    x = [np.zeros((8, 5, 3)), np.zeros((8, 7, 3))]
    assert [a.shape for a in to_data(twice, x, [np.zeros((8, 5, 1)), np.zeros((8, 7, 1))]).y] == [(8, 5, 1), (8, 7, 1)]


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 2.0}])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 1], [0, 0, 1, 0, 0]])
@pytest.mark.parametrize("axis", [False, True])
def test_class_weight_for_a_class_at_each_step_is_refused(weight: Any, labels: list[int], axis: bool) -> None:
    inputs = keras.Input((5, 3))
    steps = keras.Model(inputs, keras.layers.Dense(2, "softmax")(inputs))
    steps.compile("adam", "sparse_categorical_crossentropy")
    y = np.tile(labels, (8, 1))
    with pytest.raises(ValueError, match="one class for each row"):
        to_data(steps, np.zeros((8, 5, 3)), y[..., None] if axis else y, class_weight=weight)
