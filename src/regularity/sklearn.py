"""Estimators of scikit-learn: a network for tables whose regularization is searched while it is fitted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

__all__ = ["RegularizedClassifier", "RegularizedRegressor"]

_TRIALS = 50
_CATEGORIES = 50  # of a column; rarer ones are taken together
_BLOCK = 256  # rows that are predicted together


class _Regularized(BaseEstimator):
    """What classifier and regressor share: preprocessing, network and search."""

    hidden: Sequence[int]
    learning_rate: float
    trials: int | None
    budget: Any
    ensemble: bool
    random_state: Any

    def _search(self, model: Any, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Search, and keep what predicts."""
        import regularity as rg

        folds = self.folds  # type: ignore[attr-defined]
        if isinstance(folds, int):
            folds = max(2, min(folds, len(x)))
        self.study_ = rg.search(
            model, x, y, self.techniques, _TRIALS if self.trials is None and self.budget is None else self.trials, self.budget,  # type: ignore[attr-defined]
            folds=folds, epochs=self.epochs, batch_size=self.batch_size, score=self.scoring, sample_weight=sample_weight,  # type: ignore[attr-defined]
            storage="sqlite://" if self.storage is None else self.storage, verbose=self.verbose,  # type: ignore[attr-defined]
            seed=int(check_random_state(self.random_state).randint(2**31)),
        )  # fmt: skip
        self.recipe_ = self.study_.best if self.ensemble else self.study_.recipe
        self.model_ = self.study_.ensemble() if self.ensemble else self.study_.model
        self.n_iter_ = self.recipe_.epochs

    def _network(self, inputs: int, outputs: int, activation: str, loss: str) -> Any:
        import keras

        layers = [keras.layers.Dense(units, "relu") for units in self.hidden]
        model = keras.Sequential(
            [keras.Input((inputs,)), *layers, keras.layers.Dense(outputs, activation, name="output")], name="table"
        )
        model.compile(keras.optimizers.Adam(self.learning_rate), loss)
        return model

    def _inputs(self, X: Any, y: Any = None, fit: bool = False) -> Any:
        """Checked rows, and targets where they are given; text and categories stay as they are in a data frame."""
        table = hasattr(X, "select_dtypes") and X.select_dtypes(exclude="number").shape[1] > 0
        if not table:
            extra = {"y": y, "multi_output": True, "y_numeric": isinstance(self, RegressorMixin)} if fit else {}
            if fit and isinstance(self, ClassifierMixin):
                extra = {"y": y}
            return validate_data(self, X, reset=fit, dtype="numeric", ensure_all_finite="allow-nan", **extra)
        if X.shape[0] < 1:
            raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
        if not fit:
            return validate_data(self, X, reset=False, skip_check_array=True)
        from sklearn.utils import check_consistent_length, column_or_1d

        X, y = validate_data(self, X, y, reset=True, skip_check_array=True)
        check_consistent_length(X, y)
        return X, (column_or_1d(y, warn=True) if isinstance(self, ClassifierMixin) else np.asarray(y, "float64"))

    def _prepared(self, X: Any) -> np.ndarray:
        """Rows as the network takes them."""
        found = self.preprocessor_.transform(X)
        return np.asarray(found, "float32")

    def _preprocess(self, X: Any) -> np.ndarray:
        """Learn from the rows how to prepare them: what is learned are means and categories, of inputs alone."""
        numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
        if not hasattr(X, "select_dtypes"):
            self.preprocessor_ = numeric
        else:
            categories = make_pipeline(
                SimpleImputer(strategy="constant", fill_value="missing"),
                OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_CATEGORIES, sparse_output=False),
            )
            self.preprocessor_ = ColumnTransformer(
                [
                    ("numbers", numeric, make_column_selector(dtype_include="number")),
                    ("categories", make_pipeline(_AsText(), categories), make_column_selector(dtype_exclude="number")),
                ]
            )
        return np.asarray(self.preprocessor_.fit_transform(X), "float32")

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        x = self._prepared(self._inputs(X))
        # in blocks of one size: a row's rounding depends on where in a product it stands, at its end above all
        blocks = np.pad(x, [(0, -len(x) % _BLOCK), (0, 0)]).reshape(-1, _BLOCK, x.shape[1])
        found = np.concatenate([np.asarray(self.model_(block)) for block in blocks])
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
        return X.astype(object).where(X.notna(), np.nan).map(lambda value: value if value != value else str(value))

    def get_feature_names_out(self, names: Any = None) -> Any:
        return names


class RegularizedClassifier(ClassifierMixin, _Regularized):
    """A network for tables whose regularization is searched while it is fitted.

    Numbers are imputed by the median and standardised, text and categories one-hot encoded, a missing one being a
    category of its own.

    Args:
        hidden: Units of the hidden layers.
        techniques: As in `rg.search`.
        trials: As in `rg.search`; 50 where no budget is given either.
        budget: As in `rg.search`.
        epochs: How long members train at most.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        folds: As in `rg.search`; no more than there are rows.
        scoring: A name or scorer of scikit-learn; by default accuracy.
        class_weight: Mapping from class to weight, `balanced`, or None.
        ensemble: Whether the averaged fold models of the best recipe predict, else the answer trained on all rows.
        storage: As in `rg.search`, but by default the study leaves no file.
        random_state: Sets all that is random.
        verbose: As in `rg.search`.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from regularity.sklearn import RegularizedClassifier
        >>> x, y = load_wine(return_X_y=True)
        >>> table = RegularizedClassifier(hidden=(16,), trials=4, epochs=5, random_state=0).fit(x, y)
        >>> table.predict_proba(x[:2]).shape
        (2, 3)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256, 256, 256),
        *,
        techniques: Any = "auto",
        trials: int | None = None,
        budget: str | float | None = None,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        folds: Any = 5,
        scoring: Any = None,
        class_weight: Mapping[Any, float] | str | None = None,
        ensemble: bool = True,
        storage: Any = None,
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
        self.scoring = scoring
        self.class_weight = class_weight
        self.ensemble = ensemble
        self.storage = storage
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "RegularizedClassifier":
        """Search, and train what predicts.

        Args:
            X: Rows of numbers, or a data frame; NaN is missing.
            y: A class for each.
            sample_weight: A weight for each in training.
        """
        X, y = self._inputs(X, y, fit=True)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"Expected at least two classes in y. Received: one class, {self.classes_[0]!r}. Nothing can be told apart."
            )
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, y)
            weight = of_class if weight is None else weight * of_class
        x = self._preprocess(X)
        model = self._network(x.shape[1], len(self.classes_), "softmax", "sparse_categorical_crossentropy")
        self._search(model, x, encoder.transform(y), weight)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of (rows, classes), in the order of `classes_`."""
        found = self._outputs(X)
        return found / found.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        found = self._outputs(X)
        return self.classes_[found.argmax(1)]


class RegularizedRegressor(RegressorMixin, _Regularized):
    """A network for tables whose regularization is searched while it is fitted; see `RegularizedClassifier`.

    Targets are standardised inside. Several columns of targets are predicted together.

    Args:
        hidden: Units of the hidden layers.
        techniques: As in `rg.search`.
        trials: As in `rg.search`; 50 where no budget is given either.
        budget: As in `rg.search`.
        epochs: How long members train at most.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        folds: As in `rg.search`; no more than there are rows.
        scoring: A name or scorer of scikit-learn; by default R².
        ensemble: Whether the averaged fold models of the best recipe predict, else the answer trained on all rows.
        storage: As in `rg.search`, but by default the study leaves no file.
        random_state: Sets all that is random.
        verbose: As in `rg.search`.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from regularity.sklearn import RegularizedRegressor
        >>> x, y = load_diabetes(return_X_y=True)
        >>> table = RegularizedRegressor(hidden=(16,), trials=4, epochs=5, random_state=0).fit(x, y)
        >>> table.predict(x[:2]).shape
        (2,)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256, 256, 256),
        *,
        techniques: Any = "auto",
        trials: int | None = None,
        budget: str | float | None = None,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        folds: Any = 5,
        scoring: Any = None,
        ensemble: bool = True,
        storage: Any = None,
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
        self.scoring = scoring
        self.ensemble = ensemble
        self.storage = storage
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "RegularizedRegressor":
        """Search, and train what predicts.

        Args:
            X: Rows of numbers, or a data frame; NaN is missing.
            y: A number, or several, for each.
            sample_weight: A weight for each in training.
        """
        X, y = self._inputs(X, y, fit=True)
        if len(y) < 2:
            raise ValueError(
                f"Expected at least two rows. Received: n_samples={len(y)}. A fold must leave one to train on."
            )
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        self._columns = y.ndim == 2
        targets = y.reshape(len(y), -1)
        self._scaler = StandardScaler().fit(targets)
        x = self._preprocess(X)
        model = self._network(x.shape[1], targets.shape[1], "linear", "mse")
        self._search(model, x, np.asarray(self._scaler.transform(targets), "float32"), weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """A number for each row, or a row of several."""
        outputs = self._outputs(X)
        found = self._scaler.inverse_transform(outputs)
        return found if self._columns else found[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
