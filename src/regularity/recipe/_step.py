"""The training step of a model with a recipe: Keras's own, with what a recipe adds at each place in the order of the data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, Technique
from regularity.catalogue._schedules import shape

# Hooks that only Keras's training step on JAX has, where a step is a pure function.
_ON_JAX = ("batch", "targets", "perturb")


class Acting(NamedTuple):
    """A technique that takes part in the whole training step.

    Args:
        technique: Its declaration.
        strength: The weight of the model that holds its strength.
        generator: What it draws by, for those that draw.
    """

    technique: Technique
    strength: keras.Variable
    generator: Any


class TrainingStep:
    """Overrides of `keras.Model`'s training step; what no technique of the recipe takes part in stays as it is."""

    def _acting(self, hook: str) -> list[Acting]:
        return [acting for acting in self.__dict__.get("_in_step", ()) if acting.technique.hook == hook]

    def train_step(self, *arguments: Any) -> Any:
        """Place 'batch': rows change before the model sees them, their targets when the loss is computed."""
        scheduled = self.__dict__.get("_scheduled") or {}
        names = [acting.technique.name for hook in _ON_JAX for acting in self._acting(hook)]
        names += [f"{key} on a schedule" for key in scheduled]
        if names and keras.backend.backend() != "jax":
            raise ValueError(
                f"To train with {names}, Keras has to run on JAX. Received: the backend {keras.backend.backend()!r}. Set the "
                "environment variable KERAS_BACKEND to 'jax' before Keras is imported, or train by regularity.train, which "
                "does so in a process of its own."
            )
        if scheduled:
            state, data = arguments
            logs, new = self._step_on_rows(self._at_their_strengths(state), data)
            return logs, self._at_their_strengths(new, state)
        return self._step_on_rows(*arguments)

    def _at_their_strengths(self, state: Any, before: Any = None) -> Any:
        """A state with each scheduled strength as it is at this step; or, given the state before it, as it was there."""
        groups = list(map(list, state))
        held = (self.non_trainable_variables, self.optimizer.variables)  # type: ignore[attr-defined]
        places = {id(v): (g, i) for g, variables in zip((1, 2), held, strict=True) for i, v in enumerate(variables)}

        def read(variable: Any) -> Any:
            group, i = places[id(variable)]
            return groups[group][i]

        for strength, number in self.__dict__["_scheduled"].values():
            group, i = places[id(strength)]
            if before is not None:
                groups[group][i] = before[group][i]
                continue
            step = keras.ops.cast(read(_keras.innermost(self.optimizer).iterations), "float32")  # type: ignore[attr-defined]
            groups[group][i] = groups[group][i] * shape(
                read(number), step, *keras.ops.unstack(read(self.__dict__["_clock"]))
            )
        return tuple(groups)

    def _step_on_rows(self, *arguments: Any) -> Any:
        if not self._acting("batch"):
            return super().train_step(*arguments)  # type: ignore[misc]
        state, data = arguments
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        trainable, non_trainable, *others = state
        variables = self.non_trainable_variables  # type: ignore[attr-defined]
        pairs = []
        with keras.StatelessScope(state_mapping=list(zip(variables, non_trainable, strict=True))) as scope:
            for technique, strength, generator in self._acting("batch"):
                x, mixed = technique.function(x, strength.value, generator)
                if mixed is not None:
                    pairs.append(mixed)
                    weight = None if weight is None else keras.tree.map_structure(mixed.mix, weight)
        drawn = {id(acting.generator.state) for acting in self._acting("batch")}
        non_trainable = [
            scope.get_current_value(v) if id(v) in drawn else value
            for v, value in zip(variables, non_trainable, strict=True)
        ]
        self.__dict__["_pairs"] = pairs  # for the loss; metrics compare with a row's own target
        try:
            return super().train_step((trainable, non_trainable, *others), (x, y, weight))  # type: ignore[misc]
        finally:
            del self.__dict__["_pairs"]

    def compute_loss(self, *arguments: Any, **keywords: Any) -> Any:
        """Place 'targets': those of mixed rows are mixed, those of classes smoothed."""
        pairs, targets = self.__dict__.get("_pairs", ()), self._acting("targets")
        training = keywords.get("training", arguments[4] if len(arguments) > 4 else True)
        if not training or not (pairs or targets):
            return super().compute_loss(*arguments, **keywords)  # type: ignore[misc]

        def change(y: Any, classes: int | None) -> Any:
            for pair in pairs:
                y = pair.mix(y)
            for technique, strength, _ in targets if classes else ():
                y = technique.function(y, keras.ops.cast(strength.value, y.dtype), classes)
            return y

        with _keras.changed_losses(self, lambda loss: _keras.with_targets(loss, change)):
            return super().compute_loss(*arguments, **keywords)  # type: ignore[misc]

    def compute_loss_and_updates(
        self, trainable: Sequence[Any], non_trainable: Sequence[Any], *arguments: Any, **keywords: Any
    ) -> Any:
        """Place 'gradient': it is taken at other weights."""
        compute = super().compute_loss_and_updates  # type: ignore[misc]
        for technique, strength, _ in self._acting("perturb") if keywords.get("training") else ():
            place = [id(v) for v in self.non_trainable_variables].index(id(strength))  # type: ignore[attr-defined]
            here = jax.lax.stop_gradient(list(trainable))
            gradients = jax.grad(lambda w: compute(w, non_trainable, *arguments, **keywords)[0])(here)
            there = technique.function(here, gradients, non_trainable[place])
            # the loss is that of the weights over there, as a function of those here
            trainable = [w + jax.lax.stop_gradient(t - h) for w, t, h in zip(trainable, there, here, strict=True)]
        return compute(trainable, non_trainable, *arguments, **keywords)

    def fit(self, x: Any = None, y: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras's own `fit`; what depends on how long training is, is told beforehand."""
        clock = self.__dict__.get("_clock")
        if clock is not None:
            bound = dict(zip(("batch_size", "epochs"), arguments, strict=False)) | keywords
            begin = float(_keras.innermost(self.optimizer).iterations)  # type: ignore[attr-defined]
            clock.assign([begin, float(_steps(x, bound))])
            history = super().fit(x, y, *arguments, **keywords)  # type: ignore[misc]
            self._restate(x, bound.get("batch_size") or 32)
            return history
        return super().fit(x, y, *arguments, **keywords)  # type: ignore[misc]

    def _restate(self, x: Any, batch_size: int) -> None:
        """Give averaged weights the statistics of batch normalization that they have on the rows."""
        momentums = _keras.batch_statistics(self)
        statistics = [v for v in self.non_trainable_variables if id(v) in momentums]  # type: ignore[attr-defined]
        averaging = [s for s in self.__dict__["_sites"] if CATALOGUE[s.technique].hook == "average"]
        if not statistics or not any(float(self.strengths[s.key]) for s in averaging):  # type: ignore[attr-defined]
            return
        totals, steps = [0.0 for _ in statistics], 0
        for batch in _keras.batches(x, batch_size):
            for variable in statistics:
                variable.assign(np.zeros(variable.shape, "float32"))
            self(batch, training=True)  # type: ignore[operator]
            totals = [t + keras.ops.convert_to_numpy(v) for t, v in zip(totals, statistics, strict=True)]
            steps += 1
        for variable, total in zip(statistics, totals, strict=True):
            variable.assign(total / steps / (1 - momentums[id(variable)]))


def _steps(x: Any, keywords: dict[str, Any]) -> int:
    """How many steps `fit` will take."""
    epochs = (keywords.get("epochs") or 1) - (keywords.get("initial_epoch") or 0)
    if keywords.get("steps_per_epoch"):
        return epochs * keywords["steps_per_epoch"]
    leaves = keras.tree.flatten(x)
    if leaves and hasattr(leaves[0], "shape"):
        split = keywords.get("validation_split") or 0.0
        rows = int(leaves[0].shape[0] * (1 - split))
        return epochs * -(-rows // (keywords.get("batch_size") or 32))
    try:
        return epochs * len(x)
    except TypeError:
        raise ValueError(
            "Invalid value received for argument `steps_per_epoch`. Expected how many steps an epoch has, since the data "
            "don't tell and this recipe depends on how long training is. Received: steps_per_epoch=None"
        ) from None


def in_step(technique: str) -> bool:
    """Whether a technique takes part by the overrides of this module."""
    return CATALOGUE[technique].hook in _ON_JAX
