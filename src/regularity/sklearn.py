"""Estimators of scikit-learn: a network for tables whose regularization is searched while it is fitted."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

__all__ = ["RegularizedClassifier", "RegularizedRegressor"]

_TRIALS = 50
_CATEGORIES = 50  # of a column; rarer ones are taken together
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")  # as pandas calls what a column of objects holds
_DATES = ("date", "datetime", "datetime64", "period", "time", "timedelta", "timedelta64")  # as pandas has their names
_BLOCK = 1024  # rows that are predicted together: for many in less than half the time of 256, one waits 6 ms longer


class _Regularized(BaseEstimator):
    """What classifier and regressor share: preprocessing, network and search."""

    hidden: Sequence[int]
    techniques: Any
    trials: int | None
    budget: str | float | None
    epochs: int | None
    batch_size: int
    learning_rate: float
    folds: Any
    seeds: int | None
    ensemble: bool
    storage: Any
    name: str | None
    engine: Any
    live: bool | int
    trial_callbacks: Any
    random_state: Any
    verbose: bool | int

    def _search(
        self,
        model: Any,
        x: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        groups: Any,
        score: Any,
        most_folds: int,
    ) -> None:
        """Search, and keep what predicts."""
        import regularity as rg

        folds = self.folds
        if isinstance(folds, numbers.Integral) and int(folds) > 2:
            folds = max(2, min(int(folds), most_folds))
        trials = _TRIALS if self.trials is None and self.budget is None else self.trials
        storage = "sqlite://" if self.storage is None else self.storage
        self.study_ = rg.search(
            model, x, y, self.techniques, trials, self.budget, folds=folds, epochs=self.epochs, seeds=self.seeds,
            batch_size=self.batch_size, score=score, groups=groups, sample_weight=sample_weight, storage=storage, name=self.name, engine=self.engine, live=self.live, verbose=self.verbose,
            trial_callbacks=self.trial_callbacks, seed=self._seed(),
        )  # fmt: skip
        self._take_model()

    def _seed(self) -> int:
        """Of the search; a study that is kept goes on with its own seed alone, so there none given is 0."""
        given = 0 if self.random_state is None and self.storage is not None else self.random_state
        return int(check_random_state(given).randint(2**31))

    def _take_model(self) -> None:
        """Predict with what `ensemble` says."""
        self.recipe_ = self.study_.best if self.ensemble else self.study_.recipe
        self.model_ = self.study_.ensemble() if self.ensemble else self.study_.model
        self.n_iter_ = self.recipe_.epochs

    def _network(self, inputs: int, outputs: int, activation: str, loss: str) -> Any:
        import keras

        from regularity.population._train import checked_count

        if isinstance(self.hidden, str) or not isinstance(self.hidden, Iterable):
            raise ValueError(
                "Invalid value received for argument `hidden`. Expected the units of each hidden layer, such as (128, 128). "
                f"Received: hidden={self.hidden!r}"
            )
        if not isinstance(self.learning_rate, numbers.Real) or not 0 < self.learning_rate < np.inf:
            raise ValueError(
                "Invalid value received for argument `learning_rate`. Expected a number above 0, such as 0.001. "
                f"Received: learning_rate={self.learning_rate!r}"
            )
        layers = [keras.layers.Dense(checked_count(units, "hidden"), "relu") for units in self.hidden]
        model = keras.Sequential(
            [keras.Input((inputs,)), *layers, keras.layers.Dense(outputs, activation, name="output")], name="table"
        )
        model.compile(keras.optimizers.Adam(float(self.learning_rate)), loss)
        return model

    def _rows_and_targets(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Checked rows to learn from: an array, or a data frame that has more than numbers, as it is."""
        X = _told_as_numbers(X)
        if not _has_more_than_numbers(X):
            kind = {"multi_output": True, "y_numeric": True} if isinstance(self, RegressorMixin) else {}
            return validate_data(self, X, y, dtype="numeric", ensure_all_finite="allow-nan", **kind)
        X, y = validate_data(self, X, y, skip_check_array=True)
        _check_frame(X)
        if isinstance(self, RegressorMixin):
            y = check_array(y, ensure_2d=False, dtype="float64", input_name="y", estimator=self)
        else:
            y = column_or_1d(y, warn=True)
            assert_all_finite(y, input_name="y")
        check_consistent_length(X, y)
        return X, y

    def _rows(self, X: Any) -> Any:
        """Checked rows to predict, of the kind that was learned from."""
        of_numbers = (
            self.preprocessor_.transformers_[0][2] if isinstance(self.preprocessor_, ColumnTransformer) else None
        )
        X = _told_as_numbers(X, of_numbers)
        if not isinstance(self.preprocessor_, ColumnTransformer):
            return validate_data(self, X, reset=False, dtype="numeric", ensure_all_finite="allow-nan")
        if not hasattr(X, "select_dtypes"):
            raise ValueError(
                f"Expected X to be a data frame with the columns that `fit` was given. Received: {type(X).__name__}."
            )
        _check_frame(X)
        return validate_data(self, X, reset=False, skip_check_array=True)

    def _weights(self, sample_weight: Any, X: Any) -> np.ndarray | None:
        return None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)

    def _preprocess(self, X: Any) -> np.ndarray:
        """Learn from all rows how to prepare them.

        Held-out rows of a fold have their part in it, which tells next to nothing: medians, means, scales and the names
        of categories, of inputs alone, the same for every candidate. Targets have no part in it.
        """
        numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
        if not hasattr(X, "select_dtypes"):
            self.preprocessor_ = numeric
        else:
            encoder = OneHotEncoder(
                handle_unknown="infrequent_if_exist", max_categories=_CATEGORIES + 1, sparse_output=False
            )
            self.preprocessor_ = ColumnTransformer(
                [
                    ("numbers", numeric, np.flatnonzero(_are_numbers(X))),
                    ("categories", make_pipeline(_AsText(), encoder), np.flatnonzero(~_are_numbers(X))),
                ]
            )  # by place: names that are whole numbers would be taken for that
        return np.asarray(self.preprocessor_.fit_transform(X), "float32")

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        from keras import ops

        x = np.asarray(self.preprocessor_.transform(self._rows(X)), "float32")
        # in blocks of one size: a row's rounding depends on where in a product it stands, at its end above all
        blocks = np.pad(x, [(0, -len(x) % _BLOCK), (0, 0)]).reshape(-1, _BLOCK, x.shape[1])
        found = np.concatenate([ops.convert_to_numpy(self.model_(block)) for block in blocks])
        return found[: len(x)].astype("float64")

    def __getstate__(self) -> dict[str, Any]:
        """All but the study, which holds the data."""
        return {key: value for key, value in super().__getstate__().items() if key != "study_"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class _AsText(BaseEstimator):
    """Columns of anything as text, so that one encoder takes them; what is missing stays so."""

    def fit(self, X: Any, y: Any = None) -> "_AsText":
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return X.astype(object).where(X.notna(), np.nan).map(_text)

    def get_feature_names_out(self, names: Any = None) -> Any:
        return names


def _text(value: Any) -> Any:
    """A value as text; whole numbers alike, whether a column of codes was read as whole numbers or, for its gaps, as floats."""
    if value != value:
        return value
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


class _AsGiven:
    """A scorer that sees targets and predictions as the user gave them, not as the network has them.

    Args:
        scoring: A name or scorer of scikit-learn.
        scaler: What targets were standardised by.
    """

    def __init__(self, scoring: Any, scaler: StandardScaler) -> None:
        self.scoring, self.scaler = scoring, scaler
        of = getattr(scoring, "_score_func", scoring)
        self.__name__ = scoring if isinstance(scoring, str) else getattr(of, "__name__", "score")

    def __call__(self, estimator: Any, outputs: np.ndarray, y: np.ndarray) -> float:
        shown, targets = (self.scaler.inverse_transform(part.reshape(len(part), -1)) for part in (outputs, y))
        return get_scorer(self.scoring)(estimator, shown, targets[:, 0] if targets.shape[1] == 1 else targets)

    def __repr__(self) -> str:
        return repr(self.scoring)


def _told_as_numbers(X: Any, among: Any = None) -> Any:
    """A data frame whose columns of numbers are of a type of numbers: gaps as None, or decimals, make them objects.

    Args:
        X: What is given.
        among: Which columns are looked at, by place, or None for all.
    """
    if not hasattr(X, "select_dtypes"):
        return X
    found = [
        n
        for n, kind in enumerate(X.dtypes)
        if kind.kind == "O" and (among is None or n in among) and _holds_numbers(X.iloc[:, n])
    ]
    if not found:
        return X
    X = X.copy()
    for n in found:
        X.isetitem(n, X.iloc[:, n].where(X.iloc[:, n].notna(), np.nan).astype("float64"))
    return X


def _holds_numbers(column: Any) -> bool:
    """Whether a column of objects holds numbers, none so large that it is rather a code."""
    from pandas.api.types import infer_dtype

    kind = infer_dtype(column, skipna=True)
    return kind in _NUMBERS and (kind != "integer" or all(abs(value) <= 2**53 for value in column.dropna()))


def _are_numbers(X: Any) -> np.ndarray:
    """Which columns of a data frame hold numbers."""
    return np.array([kind.kind in "iuf" for kind in X.dtypes])


def _has_more_than_numbers(X: Any) -> bool:
    return hasattr(X, "select_dtypes") and not _are_numbers(X).all()


def _check_frame(X: Any) -> None:
    """What scikit-learn checks in an array, of a data frame that no array can hold."""
    if not len(X):
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
    nested = [n for n, kind in enumerate(X.dtypes) if kind.kind == "O" and X.iloc[:, n].map(_holds_several).any()]
    if nested:
        raise ValueError(
            f"Expected one value in each cell. Received: lists or arrays in {X.columns[nested].tolist()}. Make a column of each "
            "of their numbers, or leave them out."
        )
    other = [n for n, kind in enumerate(X.dtypes) if kind.kind == "c" or _are_dates(X.iloc[:, n])]
    if other:
        kind, of = X.dtypes.iloc[other[0]], X.columns[other].tolist()
        raise ValueError(
            "Expected columns of numbers, text, categories or truth values. Received: "
            f"{'dates' if kind.kind == 'O' else kind} in {of}. Turn them into numbers that mean something, for example days "
            "since the first date."
        )


def _holds_several(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict, set, np.ndarray))


def _are_dates(column: Any) -> bool:
    """Whether a column of a data frame holds dates, times or spans of time, of whatever type."""
    from pandas.api.types import infer_dtype

    return column.dtype.kind in "mM" or infer_dtype(column, skipna=True) in _DATES


class RegularizedClassifier(ClassifierMixin, _Regularized):
    """A network for tables whose regularization is searched while it is fitted.

    Numbers are imputed by the median and standardised, text and categories one-hot encoded, a missing one being a
    category of its own. When fitted it has `study_`, what the search found; `recipe_`, what was chosen; `model_`, the Keras
    model that predicts; `preprocessor_`, which makes its inputs; and `classes_`.

    Args:
        hidden: Units of the hidden layers, each a whole number from 1.
        techniques: As in `rg.search`.
        trials: As in `rg.search`; 50 where no budget is given either.
        budget: As in `rg.search`.
        epochs: How long members train at most, from 1; by default as in `rg.search`.
        batch_size: Rows of a step, from 1.
        learning_rate: Of Adam, a number above 0.
        folds: As in `rg.search`; fewer where there are fewer rows.
        seeds: As in `rg.search`.
        scoring: A name or scorer of scikit-learn, which sees classes as whole numbers; by default accuracy.
        class_weight: Mapping from class to weight, `balanced`, or None.
        ensemble: Whether the averaged fold models of the best recipe predict, else the answer trained on all rows.
        storage: As in `rg.search`, but by default the study leaves no file.
        name: As in `rg.search`.
        engine: As in `rg.search`.
        live: As in `rg.search`; it takes a `storage` that is a file.
        trial_callbacks: As in `rg.search`.
        random_state: Sets all that is random; with a `storage`, None is 0, so that the same call goes on where it stopped.
        verbose: As in `rg.search`.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from regularity.sklearn import RegularizedClassifier
        >>> x, y = load_wine(return_X_y=True)
        >>> table = RegularizedClassifier(hidden=(16,), trials=4, epochs=5, random_state=0).fit(x, y)
        >>> table.predict_proba(x[:2]).shape
        (2, 3)

    Kadra et al., "Well-tuned simple nets excel on tabular datasets", 2021.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        *,
        techniques: Any = "auto",
        trials: int | None = None,
        budget: str | float | None = None,
        epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        folds: Any = 5,
        seeds: int | None = None,
        scoring: Any = None,
        class_weight: Mapping[Any, float] | str | None = None,
        ensemble: bool = True,
        storage: Any = None,
        name: str | None = None,
        engine: str | None = None,
        live: bool | int = False,
        trial_callbacks: Any = None,
        random_state: Any = None,
        verbose: bool | int = 0,
    ) -> None:
        self.hidden = hidden
        self.techniques = techniques
        self.trials = trials
        self.budget = budget
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.folds = folds
        self.seeds = seeds
        self.scoring = scoring
        self.class_weight = class_weight
        self.ensemble = ensemble
        self.storage = storage
        self.name = name
        self.engine = engine
        self.live = live
        self.trial_callbacks = trial_callbacks
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "RegularizedClassifier":
        """Search, and train what predicts.

        Args:
            X: Numbers of (rows, columns), or a data frame of pandas; NaN is missing.
            y: A class for each row, of (rows,).
            sample_weight: A weight for each row in training, from 0, of (rows,).
            groups: A group for each row, of (rows,): none is in two folds.

        Returns:
            Itself.

        Raises:
            ValueError: If rows, classes or an argument of the estimator are none that it can take.
        """
        if y is not None and pd.isna(np.asarray(y, object)).any():
            raise ValueError("Input y contains NaN or None. Expected a class for each row; leave out rows without.")
        X, y = self._rows_and_targets(X, y)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"Expected at least two classes in y. Received: one class, {self.classes_.tolist()[0]!r}. Nothing can be told apart."
            )
        weight = self._weights(sample_weight, X)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, y)
            weight = of_class if weight is None else weight * of_class
        x = self._preprocess(X)
        model = self._network(x.shape[1], len(self.classes_), "softmax", "sparse_categorical_crossentropy")
        self._search(model, x, encoder.transform(y), weight, groups, self.scoring, len(x))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Say how probable each class is.

        Args:
            X: Rows as in `fit`.

        Returns:
            Probabilities of (rows, classes), in the order of `classes_`.

        Raises:
            NotFittedError: If it has not been fitted.
            ValueError: If columns are not those of `fit`.
        """
        found = self._outputs(X)
        return found / found.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Args:
            X: Rows as in `fit`.

        Returns:
            Classes of (rows,).

        Raises:
            NotFittedError: If it has not been fitted.
            ValueError: If columns are not those of `fit`.
        """
        found = self._outputs(X)
        return self.classes_[found.argmax(1)]


class RegularizedRegressor(RegressorMixin, _Regularized):
    """A network for tables whose regularization is searched while it is fitted; see `RegularizedClassifier`.

    Targets are standardised inside. Several columns of targets are predicted together. When fitted it has the same
    attributes, but for `classes_`.

    Args:
        hidden: Units of the hidden layers, each a whole number from 1.
        techniques: As in `rg.search`.
        trials: As in `rg.search`; 50 where no budget is given either.
        budget: As in `rg.search`.
        epochs: How long members train at most, from 1; by default as in `rg.search`.
        batch_size: Rows of a step, from 1.
        learning_rate: Of Adam, a number above 0.
        folds: As in `rg.search`; fewer where there are fewer than two rows for each.
        seeds: As in `rg.search`.
        scoring: A name or scorer of scikit-learn; by default R², or the squared error of fewer than four rows.
        ensemble: Whether the averaged fold models of the best recipe predict, else the answer trained on all rows.
        storage: As in `rg.search`, but by default the study leaves no file.
        name: As in `rg.search`.
        engine: As in `rg.search`.
        live: As in `rg.search`; it takes a `storage` that is a file.
        trial_callbacks: As in `rg.search`.
        random_state: Sets all that is random; with a `storage`, None is 0, so that the same call goes on where it stopped.
        verbose: As in `rg.search`.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from regularity.sklearn import RegularizedRegressor
        >>> x, y = load_diabetes(return_X_y=True)
        >>> table = RegularizedRegressor(hidden=(16,), trials=4, epochs=5, random_state=0).fit(x, y)
        >>> table.predict(x[:2]).shape
        (2,)

    Kadra et al., "Well-tuned simple nets excel on tabular datasets", 2021, for classes; here for numbers too.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        *,
        techniques: Any = "auto",
        trials: int | None = None,
        budget: str | float | None = None,
        epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        folds: Any = 5,
        seeds: int | None = None,
        scoring: Any = None,
        ensemble: bool = True,
        storage: Any = None,
        name: str | None = None,
        engine: str | None = None,
        live: bool | int = False,
        trial_callbacks: Any = None,
        random_state: Any = None,
        verbose: bool | int = 0,
    ) -> None:
        self.hidden = hidden
        self.techniques = techniques
        self.trials = trials
        self.budget = budget
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.folds = folds
        self.seeds = seeds
        self.scoring = scoring
        self.ensemble = ensemble
        self.storage = storage
        self.name = name
        self.engine = engine
        self.live = live
        self.trial_callbacks = trial_callbacks
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "RegularizedRegressor":
        """Search, and train what predicts.

        Args:
            X: Numbers of (rows, columns), or a data frame of pandas; NaN is missing.
            y: Numbers of (rows,) or (rows, targets).
            sample_weight: A weight for each row in training, from 0, of (rows,).
            groups: A group for each row, of (rows,): none is in two folds.

        Returns:
            Itself.

        Raises:
            ValueError: If rows, targets or an argument of the estimator are none that it can take.
        """
        X, y = self._rows_and_targets(X, y)
        if len(y) < 2:
            raise ValueError(
                f"Expected at least two rows. Received: n_samples={len(y)}. A fold must leave one to train on."
            )
        weight = self._weights(sample_weight, X)
        self._columns = y.ndim == 2
        targets = y.reshape(len(y), -1)
        self._scaler = StandardScaler().fit(targets)
        x = self._preprocess(X)
        model = self._network(x.shape[1], targets.shape[1], "linear", "mse")
        score = self.scoring
        if score is None and len(x) < 4:
            score = "neg_mean_squared_error"  # R² is no number on a fold of one row
        known = score in get_scorer_names() if isinstance(score, str) else callable(score)
        if known and score not in ("r2", "explained_variance"):  # those are the same of standardised targets
            score = _AsGiven(score, self._scaler)
        y = np.asarray(self._scaler.transform(targets), "float32")
        self._search(model, x, y, weight, groups, score, len(x) // 2)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the numbers of each row.

        Args:
            X: Rows as in `fit`.

        Returns:
            Numbers of (rows,) or (rows, targets), as `fit` was given them.

        Raises:
            NotFittedError: If it has not been fitted.
            ValueError: If columns are not those of `fit`.
        """
        outputs = self._outputs(X)
        found = self._scaler.inverse_transform(outputs)
        return found if self._columns else found[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
