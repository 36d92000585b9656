"""What the checks look at: a model with its layers, what follows what, its penalties, and the data where there are some."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import keras

from regularity import _keras
from regularity.recipe._regularized import Regularized, is_penalty
from regularity.recipe._sites import variables_by_path

NORMALIZATIONS = tuple(
    getattr(keras.layers, name)
    for name in (
        "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization",
    )
)  # fmt: skip
DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
)  # spatial ones are Dropout too
# What hands on each number as it is, one by one or in another shape.
_PASSES_ON = (
    keras.layers.InputLayer, keras.layers.Identity, keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute,
)  # fmt: skip
ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)
_SAMPLE = 512  # rows that losses are computed on


class Penalty(NamedTuple):
    """A penalty that is in the loss.

    Args:
        path: Of the layer.
        layer: It.
        variable: What is penalized.
        l1: Strength of its absolute values; NaN where the regularizer is of another kind.
        l2: Strength of its squares, likewise.
    """

    path: str
    layer: Any
    variable: Any
    l1: float
    l2: float


@dataclass(frozen=True)
class Seen:
    """A model to be checked.

    Args:
        model: It; with a recipe, what plain Keras has of that.
        trained: It as it trains: the same but with a recipe.
        x: Rows, or None.
        y: Their targets, or None.
        callbacks: What `fit` is to be given.
    """

    model: Any
    trained: Any
    x: Any = None
    y: Any = None
    callbacks: Sequence[Any] = ()

    @cached_property
    def layers(self) -> list[tuple[str, Any]]:
        """Each layer with its path, outer before inner."""
        return list(_keras.walk(self.model))

    @cached_property
    def optimizer(self) -> Any:
        """What makes the step, or None where the model is not compiled."""
        optimizer = getattr(self.model, "optimizer", None)
        return None if optimizer is None else _keras.innermost(optimizer)

    @cached_property
    def penalties(self) -> list[Penalty]:
        """The penalties on weights that are in the loss: their variables are trained, their strengths above 0."""
        trained = {id(variable) for variable in self.model.trainable_variables}
        found = []
        for path, layer in self.layers:
            for variable in _keras.own_variables(layer):
                regularizer = getattr(variable, "regularizer", None)
                if regularizer is None or id(variable) not in trained:
                    continue
                l1, l2 = strengths(regularizer)
                if l1 != 0 or l2 != 0:
                    found.append(Penalty(path, layer, variable, l1, l2))
        return found

    @cached_property
    def penalized(self) -> set[int]:
        """The variables that have a regularizer or are penalized by a recipe, trained or not, by identity."""
        found = {
            id(v) for _, layer in self.layers for v in _keras.own_variables(layer) if getattr(v, "regularizer", None)
        }
        if self.model is not self.trained:  # by what the copy lacks, since Keras has no such thing
            variables = variables_by_path(self.model, dict(self.layers))
            paths = [key.partition("@")[2] for key in self._penalties_of_recipe]
            found |= {id(variables[path]) for path in paths if path in variables}  # else it is of what a layer puts out
        return found

    @cached_property
    def penalizes(self) -> bool:
        """Whether the loss that is reported holds a penalty."""
        return bool(self.penalties or self._penalties_of_recipe) or any(
            getattr(layer, "activity_regularizer", None) for _, layer in self.layers
        )

    @cached_property
    def _penalties_of_recipe(self) -> list[str]:
        """The penalties that a recipe has above 0, by key."""
        strengths = self.trained.strengths if isinstance(self.trained, Regularized) else {}
        return [key for key, strength in strengths.items() if is_penalty(key) and float(strength) > 0]

    @cached_property
    def is_new(self) -> bool:
        """Whether it is compiled and no batch has trained it."""
        return self.optimizer is not None and int(_keras.batches_seen(self.trained.optimizer)) == 0

    def following(self, layer: Any, through: tuple[type, ...] = ()) -> Iterator[Any]:
        """The operations that take a layer's output, looking through those that hand it on as it is and those of `through`."""
        for following in self._followers.get(id(layer), ()):
            if isinstance(following, (*_PASSES_ON, *through)):
                yield from self.following(following, through)
            else:
                yield following

    @cached_property
    def outputs(self) -> set[int]:
        """The operations whose outputs are the model's, by identity."""
        model = self.model
        if isinstance(model, keras.Sequential):
            return {id(model.layers[-1])} if model.layers else set()
        return {id(tensor._keras_history.operation) for tensor in getattr(model, "outputs", None) or []}

    @cached_property
    def losses(self) -> tuple[float, float] | None:
        """The loss of some rows with the weights as they are: of the data alone, and the penalties; None without data."""
        if self.x is None or self.y is None or self.optimizer is None or _keras.compiled_loss(self.trained) is None:
            return None
        x, y = (keras.tree.map_structure(lambda a: a[:_SAMPLE], each) for each in (self.x, self.y))
        with keras.StatelessScope([(v, v) for v in self.trained.weights]):  # metrics of single outputs would take note
            outputs = self.trained(x, training=False)
            penalty = float(sum(map(float, self.trained.losses)))
            return float(self.trained.compute_loss(x, y, outputs)) - penalty, penalty

    @cached_property
    def rows(self) -> int | None:
        """How many rows there are, or None."""
        return None if self.x is None else len(keras.tree.flatten(self.x)[0])

    @cached_property
    def _followers(self) -> dict[int, list[Any]]:
        """By the identity of an operation, what takes its output, in this graph and in those inside it."""
        found: dict[int, list[Any]] = {}
        for graph in (self.model, *(layer for _, layer in self.layers)):
            if isinstance(graph, keras.Sequential) or hasattr(graph, "_nodes_by_depth"):
                for before, after in _keras.edges(graph):
                    found.setdefault(id(before), []).append(after)
        return found


def strengths(regularizer: Any) -> tuple[float, float]:
    """The strengths of absolute values and of squares; NaN, both, of what is no L1, L2 or L1L2."""
    known = [name for name in ("l1", "l2") if hasattr(regularizer, name)]
    if not known:
        return float("nan"), float("nan")
    return float(getattr(regularizer, "l1", 0.0)), float(getattr(regularizer, "l2", 0.0))
