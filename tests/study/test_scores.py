"""Scores of outputs equal scikit-learn's own on the same rows, whatever the form of targets and outputs."""

import keras
import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import make_scorer
from sklearn.utils.class_weight import compute_sample_weight

from regularity.data import Data
from regularity.study._scores import check_on_folds, proper, scoring, target_kind

ROWS, MEMBERS, HELD_OUT = 60, 4, 25
CLASSES = 3

FORMS = {
    "integers": ("sparse_categorical_crossentropy", lambda y: y, CLASSES),
    "column": ("sparse_categorical_crossentropy", lambda y: y[:, None], CLASSES),
    "floats": ("sparse_categorical_crossentropy", lambda y: y.astype("float32"), CLASSES),
    "one-hot": ("categorical_crossentropy", lambda y: np.eye(CLASSES, dtype="float32")[y], CLASSES),
    "focal": (keras.losses.CategoricalFocalCrossentropy(name="mine"), lambda y: np.eye(CLASSES)[y], CLASSES),
    "logits": (keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda y: y, CLASSES),
    "one-hot logits": (keras.losses.CategoricalCrossentropy(from_logits=True), lambda y: np.eye(CLASSES)[y], CLASSES),
    "binary": ("binary_crossentropy", lambda y: y, 1),
    "binary column": ("bce", lambda y: y[:, None].astype("float32"), 1),
    "binary bool": ("binary_crossentropy", lambda y: y.astype(bool), 1),
    "binary ties": ("binary_crossentropy", lambda y: y, 1),
    "binary logits": (keras.losses.BinaryCrossentropy(from_logits=True), lambda y: y, 1),
}


def network(loss, outputs):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(outputs)])
    model.compile("sgd", loss)
    return model


def draw_classes(form):
    """A model, its data, classes of (rows,), outputs of (members, rows, outputs) and the probabilities they stand for."""
    loss, encode, outputs = FORMS[form]
    random = np.random.default_rng(0)
    classes = random.integers(0, max(outputs, 2), ROWS)
    logits = 2 * random.normal(size=(MEMBERS, HELD_OUT, outputs)).astype("float32")
    if outputs == 1:
        second = 1 / (1 + np.exp(-logits[..., 0].astype("float64")))
        second = np.round(second, 1).clip(0.1, 0.9) if form == "binary ties" else second
        probabilities = np.stack([1 - second, second], -1)
    else:
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    shown = logits if "logits" in form else probabilities[..., -outputs:].astype("float32")
    x = np.zeros((ROWS, 2), "float32")
    return network(loss, outputs), Data(x, encode(classes)), classes, shown, probabilities


def draw_rows():
    """Rows of each member with some padding at the end, and what of them counts."""
    random = np.random.default_rng(1)
    rows = np.stack([random.permutation(ROWS)[:HELD_OUT] for _ in range(MEMBERS)])
    valid = np.arange(HELD_OUT) < np.array([[HELD_OUT], [HELD_OUT - 1], [18], [20]])
    return rows, valid


def by_member(metric, outputs, targets, rows, valid):
    return [metric(targets[r[v]], o[v]) for o, r, v in zip(outputs, rows, valid, strict=True)]


def accuracy(classes, probabilities):
    return metrics.accuracy_score(classes, probabilities.argmax(-1))


def neg_log_loss(classes, probabilities):
    return -metrics.log_loss(classes, probabilities, labels=range(probabilities.shape[-1]))


@pytest.mark.parametrize("metric", [accuracy, neg_log_loss], ids=lambda m: m.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_score_of_classes_is_that_of_scikit_learn(form, metric):
    model, data, classes, outputs, probabilities = draw_classes(form)
    rows, valid = draw_rows()
    found = scoring(model, data, metric.__name__).score(outputs, rows, valid)
    expected = by_member(metric, probabilities, classes, rows, valid)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_log_loss_beside_a_score_counts_classes_as_it_does(form):
    model, data, classes, outputs, probabilities = draw_classes(form)
    rows, valid = draw_rows()
    beside = {name: proper(model, data, scoring(model, data, name)) for name in ("accuracy", "balanced_accuracy")}
    found = beside["accuracy"].score(outputs, rows, valid)
    np.testing.assert_allclose(found, by_member(neg_log_loss, probabilities, classes, rows, valid), rtol=2e-5)

    def balanced(y, shown):
        weight = compute_sample_weight("balanced", y)
        return -metrics.log_loss(y, shown, sample_weight=weight, labels=range(shown.shape[-1]))

    found = beside["balanced_accuracy"].score(outputs, rows, valid)
    np.testing.assert_allclose(found, by_member(balanced, probabilities, classes, rows, valid), rtol=2e-5)


@pytest.mark.parametrize("name", ["balanced_accuracy", "accuracy", "neg_log_loss"])
def test_what_stands_beside_a_score_is_the_same_for_its_name_and_its_scorer(name):
    model, data, *_ = draw_classes("integers")
    beside = [proper(model, data, scoring(model, data, score)) for score in (name, metrics.get_scorer(name))]
    assert [each and each.name for each in beside] == [beside[0] and beside[0].name] * 2


def test_a_member_that_is_not_finite_on_one_class_has_no_balanced_log_loss():
    model, data, classes, outputs, _ = draw_classes("integers")
    rows, valid = draw_rows()
    outputs = np.where(
        ((classes[rows] == 1) & valid)[..., None] & (np.arange(MEMBERS) == 0)[:, None, None], np.nan, outputs
    )
    found = proper(model, data, scoring(model, data, "balanced_accuracy")).score(outputs, rows, valid)
    assert np.isnan(found).tolist() == [True] + [False] * (MEMBERS - 1)


@pytest.mark.parametrize("form", ["integers", "binary", "logits"])
def test_score_of_classes_by_default_is_accuracy(form):
    model, data, *_ = draw_classes(form)
    assert scoring(model, data).name == "accuracy"


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("low", [-1, 0])
def test_margins_of_a_hinge_are_classes_by_their_sign(loss, low):
    random = np.random.default_rng(0)
    classes = random.integers(0, 2, ROWS)
    margins = random.normal(size=(MEMBERS, HELD_OUT, 1)).astype("float32")
    data = Data(np.zeros((ROWS, 2), "float32"), np.where(classes, 1, low))
    rows, valid = draw_rows()
    found = scoring(network(loss, 1), data).score(margins, rows, valid)
    expected = by_member(
        lambda y, o: metrics.accuracy_score(y, (o[:, 0] > 0).astype(int)), margins, classes, rows, valid
    )
    np.testing.assert_allclose(found, expected)


NUMBERS = {
    "r2": metrics.r2_score,
    "neg_mean_squared_error": lambda y, o: -metrics.mean_squared_error(y, o),
    "neg_root_mean_squared_error": lambda y, o: -metrics.root_mean_squared_error(y, o),
    "neg_mean_absolute_error": lambda y, o: -metrics.mean_absolute_error(y, o),
    "neg_median_absolute_error": lambda y, o: -metrics.median_absolute_error(y, o),
    "explained_variance": metrics.explained_variance_score,
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=["vector", "column", "three columns"])
def test_score_of_numbers_is_that_of_scikit_learn(shape, name):
    random = np.random.default_rng(0)
    y = (5 + random.normal(size=(ROWS, *shape))).astype("float32")
    outputs = (5 + random.normal(size=(MEMBERS, HELD_OUT, *(shape or (1,))))).astype("float32")
    rows, valid = draw_rows()
    judge = scoring(network("mse", outputs.shape[-1]), Data(np.zeros((ROWS, 2)), y), name)
    expected = by_member(NUMBERS[name], outputs, y.reshape(ROWS, -1), rows, valid)
    np.testing.assert_allclose(judge.score(outputs, rows, valid), expected, rtol=1e-4)


def test_score_of_numbers_by_default_is_r2():
    assert scoring(network("mse", 1), Data(np.zeros((9, 2)), np.arange(9.0))).name == "r2"


@pytest.mark.parametrize(("outputs", "expected"), [([2.0, 2.0, 2.0], 1.0), ([2.0, 2.0, 3.0], 0.0)])
def test_r2_of_rows_that_are_all_alike_is_that_of_scikit_learn(outputs, expected):
    assert metrics.r2_score([2.0] * 3, outputs) == expected
    judge = scoring(network("mse", 1), Data(np.zeros((5, 2)), np.array([2.0, 2, 2, 7, 8])), "r2")
    assert judge.score(np.array(outputs)[None, :, None], np.arange(3)[None], np.ones((1, 3), bool)) == [expected]


CLASSES_ONLY = {
    "balanced_accuracy": lambda y, p: metrics.balanced_accuracy_score(y, p.argmax(-1)),
    "f1_macro": lambda y, p: metrics.f1_score(y, p.argmax(-1), average="macro"),
    "matthews_corrcoef": lambda y, p: metrics.matthews_corrcoef(y, p.argmax(-1)),
}


@pytest.mark.parametrize("name", CLASSES_ONLY)
@pytest.mark.parametrize("form", ["integers", "one-hot logits", "binary", "binary logits"])
def test_any_score_of_classes_is_that_of_scikit_learn(form, name):
    model, data, classes, outputs, probabilities = draw_classes(form)
    rows, valid = draw_rows()
    expected = by_member(CLASSES_ONLY[name], probabilities, classes, rows, valid)
    np.testing.assert_allclose(scoring(model, data, name).score(outputs, rows, valid), expected)


@pytest.mark.parametrize(
    ("form", "name", "metric"),
    [
        ("binary logits", "roc_auc", lambda y, p: metrics.roc_auc_score(y, p[:, 1])),
        ("binary ties", "roc_auc", lambda y, p: metrics.roc_auc_score(y, p[:, 1])),
        ("binary", "average_precision", lambda y, p: metrics.average_precision_score(y, p[:, 1])),
        ("logits", "roc_auc_ovr", lambda y, p: metrics.roc_auc_score(y, p, multi_class="ovr")),
        ("integers", "top_k_accuracy", lambda y, p: metrics.top_k_accuracy_score(y, p, k=2)),
    ],
)
def test_score_that_reads_probabilities_is_that_of_scikit_learn(form, name, metric):
    model, data, classes, outputs, probabilities = draw_classes(form)
    rows, valid = draw_rows()
    expected = by_member(metric, probabilities, classes, rows, valid)
    np.testing.assert_allclose(scoring(model, data, name).score(outputs, rows, valid), expected, rtol=1e-5)


def test_scorer_that_the_user_made_is_called():
    model, data, classes, outputs, probabilities = draw_classes("logits")
    rows, valid = draw_rows()
    judge = scoring(model, data, make_scorer(metrics.fbeta_score, beta=2, average="macro"))
    expected = by_member(
        lambda y, p: metrics.fbeta_score(y, p.argmax(-1), beta=2, average="macro"), probabilities, classes, rows, valid
    )
    np.testing.assert_allclose(judge.score(outputs, rows, valid), expected)
    assert judge.name == "fbeta_score"


def test_function_of_estimator_rows_and_targets_is_called_as_a_scorer():
    model, data, classes, outputs, _ = draw_classes("integers")
    rows, valid = draw_rows()

    def share_of_first_class(estimator, x, y):
        return np.mean((estimator.predict(x) == 0) & (y == 0))

    judge = scoring(model, data, share_of_first_class)
    expected = by_member(lambda y, p: np.mean((p.argmax(-1) == 0) & (y == 0)), outputs, classes, rows, valid)
    np.testing.assert_allclose(judge.score(outputs, rows, valid), expected)
    assert judge.name == "share_of_first_class"


@pytest.mark.parametrize(
    ("form", "name"), [("integers", "accuracy"), ("logits", "neg_log_loss"), ("binary", "roc_auc")]
)
def test_rows_that_only_pad_are_ignored(form, name):
    model, data, _, outputs, _ = draw_classes(form)
    rows, valid = draw_rows()
    score = scoring(model, data, name).score
    spoiled = np.where(valid[..., None], outputs, np.nan)
    np.testing.assert_array_equal(score(spoiled, rows, valid), score(outputs, rows, valid))


@pytest.mark.parametrize("name", ["r2", "neg_mean_squared_error", "neg_mean_absolute_error"])
def test_outputs_that_overflow_have_no_finite_score(name):
    judge = scoring(network("mse", 1), Data(np.zeros((9, 2)), np.arange(9, dtype="float32")), name)
    outputs = np.stack([np.arange(9), np.full(9, np.nan), np.full(9, np.inf)]).astype("float32")[..., None]
    rows = np.tile(np.arange(9), (3, 1))
    found = judge.score(outputs, rows, np.ones((3, 9), bool))
    assert np.isfinite(found).tolist() == [True, False, False]


OTHER = {
    "a class for each step of a sequence": ("sparse_categorical_crossentropy", (5,), (5, CLASSES)),
    "one-hot for each step": ("categorical_crossentropy", (5, CLASSES), (5, CLASSES)),
    "several labels": ("binary_crossentropy", (4,), (4,)),
    "targets of another size than outputs": (lambda y, p: keras.ops.mean((p[:, :1] - y) ** 2, -1), (1,), (2,)),
    "a class to ignore": (keras.losses.SparseCategoricalCrossentropy(ignore_class=2), (), (CLASSES,)),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_targets_are_scored_by_the_loss(case):
    loss, target, output = OTHER[case]
    inputs = keras.Input((2,))
    outputs = keras.layers.Reshape(output)(keras.layers.Dense(int(np.prod(output)))(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss)
    data = Data(np.zeros((6, 2)), np.random.default_rng(0).integers(0, 2, (6, *target)))
    assert scoring(model, data).name == "loss"
    if case == "several labels":
        return
    with pytest.raises(ValueError, match=r"Expected 'loss'.*score='accuracy'"):
        scoring(model, data, "accuracy")


def test_soft_labels_are_scored_by_the_loss():
    data = Data(np.zeros((4, 2)), np.array([0.1, 0.9, 0.5, 0.3]))
    assert target_kind(network("binary_crossentropy", 1), data) == "other"
    several = Data(np.zeros((4, 2)), np.array([[0.1, 0.9], [0.5, 0.3]] * 2))
    with pytest.raises(ValueError, match=r"Expected 'loss'.*score='f1_macro'"):
        scoring(network("binary_crossentropy", 2), several, "f1_macro")


SEVERAL = {
    "accuracy": lambda y, p: metrics.accuracy_score(y, p > 0.5),
    "f1_macro": lambda y, p: metrics.f1_score(y, p > 0.5, average="macro"),
    "jaccard_samples": lambda y, p: metrics.jaccard_score(y, p > 0.5, average="samples"),
    "roc_auc": metrics.roc_auc_score,
    "average_precision": metrics.average_precision_score,
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("name", SEVERAL)
def test_score_of_several_labels_is_that_of_scikit_learn(name, logits, labels):
    random = np.random.default_rng(0)
    y = random.integers(0, 2, (ROWS, labels))
    margins = random.normal(size=(MEMBERS, HELD_OUT, labels))
    probabilities = 1 / (1 + np.exp(-margins))
    rows, valid = draw_rows()
    model = network(keras.losses.BinaryCrossentropy(from_logits=logits), labels)
    judge = scoring(model, Data(np.zeros((ROWS, 2)), y.astype("float32")), name)
    found = judge.score(margins if logits else probabilities, rows, valid)
    np.testing.assert_allclose(found, by_member(SEVERAL[name], probabilities, y, rows, valid))


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_a_score_that_counts_only_the_labels_that_are_there_is_refused():
    data = Data(np.zeros((6, 2)), np.array([[0, 1], [1, 0], [1, 1]] * 2))
    with pytest.raises(
        ValueError, match=r"takes labels.*score='neg_log_loss', which says: it is best for outputs that are 1"
    ):
        scoring(network("binary_crossentropy", 2), data, "neg_log_loss")
    assert scoring(network("binary_crossentropy", 2), data, "recall_macro").name == "recall_macro"


def test_the_area_under_the_curve_of_two_classes_among_three_outputs_is_that_of_scikit_learn():
    model, data, classes, outputs, probabilities = draw_classes("integers")
    rows, valid = draw_rows()
    of_two = np.minimum(classes, 1)
    found = scoring(model, Data(data.x, of_two), "roc_auc").score(outputs, rows, valid)
    shown = probabilities[..., 1] / probabilities[..., :2].sum(-1)
    np.testing.assert_allclose(found, by_member(metrics.roc_auc_score, shown, of_two, rows, valid), rtol=1e-5)


def test_a_fold_without_one_of_several_labels_is_said_before_training():
    y = np.zeros((20, 3), "int64")
    y[::3, 0], y[::2, 1], y[3, 2] = 1, 1, 1
    judge = scoring(network("binary_crossentropy", 3), Data(np.zeros((20, 2)), y), "roc_auc")
    with pytest.raises(
        ValueError, match=r"not a number on the held-out rows of fold 1: roc_auc can't be computed from 10 rows\."
    ):
        check_on_folds(judge, [np.arange(10), np.arange(10, 20)])


@pytest.mark.parametrize(
    ("loss", "y", "score", "message"),
    [
        ("mse", np.arange(6.0), "acuracy", r"one of scikit-learn's .*'accuracy'.*score='acuracy'"),
        ("mse", np.arange(6.0), "accuracy", r"one that takes numbers.*score='accuracy'"),
        ("mse", np.arange(6.0), "neg_log_loss", r"one that takes numbers.*score='neg_log_loss'"),
        ("mse", np.arange(6.0), "roc_auc", r"one that takes numbers.*score='roc_auc'"),
        ("mse", np.arange(6.0) % 2, "roc_auc", r"one that takes numbers.*score='roc_auc'"),
        ("mse", np.arange(6.0) - 3, "neg_mean_squared_log_error", r"score='neg_mean_squared_log_error'"),
        ("sparse_categorical_crossentropy", np.arange(6) % 3, "roc_auc", r"one that takes classes.*score='roc_auc'"),
    ],
)
def test_score_that_does_not_fit_is_an_error_before_training(loss, y, score, message):
    with pytest.raises(ValueError, match=message):
        scoring(network(loss, 1 if loss == "mse" else CLASSES), Data(np.zeros((6, 2)), y), score)


def test_score_that_is_no_scorer_is_an_error():
    with pytest.raises(TypeError, match=r"Expected `score` to be a name or a scorer of scikit-learn. Received: 3"):
        scoring(network("mse", 1), Data(np.zeros((6, 2)), np.arange(6.0)), 3)


def test_a_scorer_that_raises_on_some_outputs_has_no_score_there():
    def positive(estimator, x, y):
        predicted = estimator.predict(x)
        if (predicted < 0).any():
            raise ValueError("not below 0")
        return float(predicted.mean())

    y = np.arange(1.0, 7.0, dtype="float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    judge = scoring(model, Data(np.zeros((6, 2), "float32"), y), positive)
    outputs = np.stack([y, -y])[..., None]
    rows = np.tile(np.arange(6), (2, 1))
    found = judge.score(outputs, rows, np.ones((2, 6), bool))
    np.testing.assert_allclose(found, [3.5, np.nan])
