"""The training step of a model with a recipe: Keras's own, with what a recipe adds at each place in the order of the data."""

import contextlib
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, Technique
from regularity.catalogue._schedules import shape
from regularity.catalogue.batch import as_floats
from regularity.recipe._formats import channels_first

# Hooks that only Keras's training step on JAX has, where a step is a pure function.
_ON_JAX = ("batch", "hidden", "targets", "rows", "twice", "adversary", "slope", "perturb", "noise", "cycle")


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

    def _noted(self, name: str) -> Any:
        """What is known while a step is traced, or None."""
        return self.__dict__.get("_notes", {}).get(name)

    @contextlib.contextmanager
    def _noting(self, **notes: Any) -> Iterator[None]:
        before = self.__dict__.get("_notes", {})
        self.__dict__["_notes"] = {**before, **notes}
        try:
            yield
        finally:
            self.__dict__["_notes"] = before

    def train_step(self, *arguments: Any) -> Any:
        """Place 'batch': rows change before the model sees them, or in it; their targets when the loss is computed."""
        scheduled = self.__dict__.get("_scheduled") or {}
        names = [acting.technique.name for hook in _ON_JAX for acting in self._acting(hook)]
        names += [f"{key} on a schedule" for key in scheduled]
        if names and keras.backend.backend() != "jax":
            raise ValueError(
                f"To train with {names}, Keras has to run on JAX. Received: the backend {keras.backend.backend()!r}. Set the "
                "environment variable KERAS_BACKEND to 'jax' before Keras is imported, or train by regularity.train, which "
                "does so in a process of its own."
            )
        if self._acting("noise"):
            group, i = self._places()[id(_keras.batches_seen(self.optimizer))]  # type: ignore[attr-defined]
            with self._noting(step=keras.ops.cast(arguments[0][group][i], "float32")):
                return self._step_of_cycle(*arguments)
        return self._step_of_cycle(*arguments)

    def _places(self) -> dict[int, tuple[int, int]]:
        """Where in the state of a step each variable stands, by its id: (group, index)."""
        groups = (self.trainable_variables, self.non_trainable_variables, self.optimizer.variables)  # type: ignore[attr-defined]
        return {id(v): (group, i) for group, variables in enumerate(groups) for i, v in enumerate(variables)}

    def _step_of_cycle(self, *arguments: Any) -> Any:
        """Place 'update': the learning rate falls within each cycle, at whose end weights are kept beside those in training."""
        cycles = self._acting("cycle")
        if not cycles:
            return self._step_at_strengths(*arguments)
        ((technique, strength, _),), (state, data) = cycles, arguments
        optimizer: Any = self.optimizer  # type: ignore[attr-defined]
        trainable, places = self.trainable_variables, self._places()  # type: ignore[attr-defined]

        def read(state: Any, variable: Any) -> Any:
            group, i = places[id(variable)]
            return state[group][i]

        step = keras.ops.cast(read(state, _keras.batches_seen(optimizer)), "float32")
        depth = read(self._at_their_strengths(state), strength)
        share, number = technique.function(depth, step, *keras.ops.unstack(read(state, self.__dict__["_clock"])))
        rate = _keras.learning_rate_variable(optimizer)
        _, at = places[id(rate)]
        falling = list(state[2])
        falling[at] = falling[at] * keras.ops.cast(share, falling[at].dtype)
        logs, new = self._step_at_strengths((state[0], state[1], falling, *state[3:]), data)
        groups = list(map(list, new))
        groups[2][at] = state[2][at]
        averages = dict(zip(map(id, trainable), _keras.averages(optimizer) or trainable, strict=True))
        for n, kept in enumerate(self.__dict__["_snapshots"]):
            under_way = keras.ops.logical_or(number <= n, read(state, strength) == 0)
            for variable, held in kept:
                _, i = places[id(held)]
                average = averages.get(id(variable))
                now = read(new, variable if average is None else average)
                groups[1][i] = keras.ops.where(under_way, now, groups[1][i])
        return logs, tuple(groups)

    def _step_at_strengths(self, *arguments: Any) -> Any:
        if not self.__dict__.get("_scheduled"):
            return self._step_on_rows(*arguments)
        state, data = arguments
        logs, new = self._step_on_rows(self._at_their_strengths(state), data)
        return logs, self._at_their_strengths(new, state)

    def _at_their_strengths(self, state: Any, before: Any = None) -> Any:
        """A state with each scheduled strength as it is at this step; or, given the state before it, as it was there."""
        groups, places = list(map(list, state)), self._places()

        def read(variable: Any) -> Any:
            group, i = places[id(variable)]
            return groups[group][i]

        for strength, number in self.__dict__["_scheduled"].values():
            group, i = places[id(strength)]
            if before is not None:
                groups[group][i] = before[group][i]
                continue
            step = keras.ops.cast(read(_keras.batches_seen(self.optimizer)), "float32")  # type: ignore[attr-defined]
            groups[group][i] = groups[group][i] * shape(
                read(number), step, *keras.ops.unstack(read(self.__dict__["_clock"]))
            )
        return tuple(groups)

    def _step_on_rows(self, *arguments: Any) -> Any:
        changing = [*self._acting("batch"), *self._acting("hidden")]
        if not changing:
            return super().train_step(*arguments)  # type: ignore[misc]
        state, data = arguments
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        trainable, non_trainable, *others = state
        variables = self.non_trainable_variables  # type: ignore[attr-defined]
        pairs, hidden, first = [], {}, channels_first(self, x)
        with keras.StatelessScope(state_mapping=list(zip(variables, non_trainable, strict=True))) as scope:
            for technique, strength, generator in self._acting("batch"):
                x, mixed = technique.function(_moved(x, first, 1, -1), strength.value, generator)
                x = _moved(x, first, -1, 1)
                if mixed is not None:
                    pairs.append(mixed)
            for technique, strength, generator in self._acting("hidden"):
                places = self.__dict__["_mixed_at"]
                mixed, at_places = technique.function(x, strength.value, generator, len(places))
                pairs.append(mixed)
                hidden = dict(zip(places, at_places, strict=True))
                x = hidden[""].mix(x) if "" in hidden else x
        drawn = {id(acting.generator.state) for acting in changing}
        non_trainable = [
            scope.get_current_value(v) if id(v) in drawn else value
            for v, value in zip(variables, non_trainable, strict=True)
        ]
        # for the loss and the layers; metrics compare with a row's own target
        with self._noting(pairs=pairs, hidden=hidden):
            return super().train_step((trainable, non_trainable, *others), (x, y, weight))  # type: ignore[misc]

    def compute_loss(self, *arguments: Any, **keywords: Any) -> Any:
        """Place 'targets': those of mixed rows are mixed, those of classes smoothed; then the loss of each row changes."""
        pairs, targets = self._noted("pairs") or (), self._acting("targets")
        # Keras computes a loss to build itself too, of rows that have not passed twice
        rows = self._acting("rows") + (self._acting("twice") if self._noted("twice") else [])
        training = keywords.get("training", arguments[4] if len(arguments) > 4 else True)
        if not training or not (pairs or targets or rows):
            return self._with_noise(super().compute_loss(*arguments, **keywords), training)  # type: ignore[misc]

        def smooth(y: Any, classes: int) -> Any:
            for technique, strength, _ in targets:
                y = technique.function(y, keras.ops.cast(strength.value, y.dtype), classes)
            return y

        def of_rows(losses: Any, y: Any, probabilities: Any) -> Any:
            for technique, strength, _ in rows:
                losses = technique.function(losses, y, probabilities, keras.ops.cast(strength.value, losses.dtype))
            return losses

        def changed(loss: Any) -> Any:
            if targets or rows:
                loss = _keras.changed_loss(loss, smooth if targets else None, of_rows if rows else None)
            for pair in reversed(pairs):  # the partner's loss, which the first asks for, knows the partners of the next
                loss = pair.mixed(loss)
            return loss

        with _keras.changed_losses(self, changed):
            return self._with_noise(super().compute_loss(*arguments, **keywords), training)  # type: ignore[misc]

    def _with_noise(self, loss: Any, training: bool) -> Any:
        """The same loss, whose gradient has noise: what is added is 0, since the weights are where they are."""
        step = self._noted("step")
        if step is None or not training:
            return loss
        for technique, strength, generator in self._acting("noise"):
            for variable in self.trainable_variables:  # type: ignore[attr-defined]
                here = jax.lax.stop_gradient(variable.value)
                noise = technique.function(here, strength.value, step, generator)
                loss = loss + keras.ops.cast(keras.ops.sum(noise * (variable.value - here)), loss.dtype)
        return loss

    def compute_loss_and_updates(
        self,
        trainable: Sequence[Any],
        non_trainable: Sequence[Any],
        metrics: Sequence[Any],
        x: Any,
        y: Any,
        sample_weight: Any,
        training: bool = False,
        optimizer_variables: Any = None,
    ) -> Any:
        """Place 'gradient': it is taken of more rows, at other weights, or of more than the loss."""
        whole = super().compute_loss_and_updates  # type: ignore[misc]
        places = {id(v): i for i, v in enumerate(self.non_trainable_variables)}  # type: ignore[attr-defined]

        def acting(hook: str) -> list[tuple[Any, Any]]:
            found = self._acting(hook) if training else ()
            return [(technique.function, non_trainable[places[id(strength)]]) for technique, strength, _ in found]

        def compute(weights: Sequence[Any], rows: Any) -> Any:
            return whole(
                weights, non_trainable, metrics, *rows, training=training, optimizer_variables=optimizer_variables
            )

        def slopes(rows: Any) -> Any:
            """The gradient of the loss for the inputs."""
            return jax.grad(lambda x: compute(trainable, (x, *rows[1:]))[1][0])(rows[0])

        if acting("adversary") or acting("slope"):  # there is no slope in whole numbers
            x = as_floats(x)
        rows, pairs, hidden = (x, y, sample_weight), self._noted("pairs") or (), self._noted("hidden") or {}
        more = [*(acting("adversary")), *((None, 0.0) for _ in acting("twice"))]
        with contextlib.ExitStack() as stack:
            for function, strength in more:
                beside = (
                    rows[0] if function is None else function(rows[0], jax.lax.stop_gradient(slopes(rows)), strength)
                )
                rows = keras.tree.map_structure(_behind, rows, (beside, *rows[1:]))
                pairs = [pair.twice() for pair in pairs]
                hidden = {path: pair.twice() for path, pair in hidden.items()}
                stack.enter_context(self._noting(pairs=pairs, hidden=hidden, twice=function is None))
            reported = None
            for function, strength in acting("perturb"):
                here = jax.lax.stop_gradient(list(trainable))
                (_, found), gradients = jax.value_and_grad(lambda w: compute(w, rows), has_aux=True)(here)
                reported = reported or found[:2]
                there = function(here, gradients, strength)
                # the loss is that of the weights over there, as a function of those here
                trainable = [w + jax.lax.stop_gradient(t - h) for w, t, h in zip(trainable, there, here, strict=True)]
            loss, (unscaled, outputs, *updates) = compute(trainable, rows)
            if reported is not None:  # where the weights are, not where the gradient is taken
                unscaled, outputs = reported
            for function, strength in acting("slope"):
                penalty = function(slopes(rows), strength)
                loss = loss + _keras.scaled(self, penalty, optimizer_variables)
                unscaled = unscaled + penalty
        if more:  # metrics know the rows that were given alone
            outputs = _keras.first(outputs, next(a.shape[0] for a in keras.tree.flatten(x) if a is not None))
        return loss, (unscaled, outputs, *updates)

    def fit(self, *arguments: Any, **keywords: Any) -> Any:
        """Keras's own `fit`; what depends on how long training is, is told beforehand."""
        fit, clock = super().fit, self.__dict__.get("_clock")  # type: ignore[misc]
        if clock is None:
            return fit(*arguments, **keywords)
        call = inspect.signature(fit).bind(*arguments, **keywords)
        call.apply_defaults()
        given = call.arguments
        averaging = [s for s in self.__dict__["_sites"] if CATALOGUE[s.technique].hook == "average"]
        statistics = _keras.batch_statistics(self) if averaging else {}
        if statistics and hasattr(given["x"], "__next__"):
            raise ValueError(
                "Invalid value received for argument `x`. Expected arrays or a stream that can be read again: averaged weights "
                "need new statistics of batch normalization, from another pass over the rows. "
                f"Received: {type(given['x']).__name__}, which can be read once. Leave 'ema' and 'swa' out, or pass arrays."
            )
        steps, done = _steps(given), given.get("initial_epoch") or 0
        clock.assign([float(_keras.batches_seen(self.optimizer)) - done * steps, steps * (given.get("epochs") or 1)])  # type: ignore[attr-defined]
        history = fit(*arguments, **keywords)
        if any(float(self.strengths[s.key]) for s in averaging):  # type: ignore[attr-defined]
            self._restate([v for v in self.non_trainable_variables if id(v) in statistics], given, steps)  # type: ignore[attr-defined]
        return history

    def _restate(self, statistics: Sequence[Any], given: Mapping[str, Any], steps: int) -> None:
        """Give averaged weights the statistics of batch normalization that they have on the rows."""
        if not statistics:
            return
        x, totals, passed, kept = given["x"], [0.0 for _ in statistics], 0, {}
        rows = _training_rows(given)
        if rows is not None:
            order = np.arange(rows)
            if given.get("shuffle", True):  # else rows in the order of their classes would give each batch one class
                np.random.default_rng(0).shuffle(order)
            x = keras.tree.map_structure(lambda a: np.asarray(a)[order], x)
        for batch in itertools.islice(_keras.batches(x, given.get("batch_size") or 32), steps):
            for variable in statistics:
                variable.assign(np.zeros(variable.shape, "float32"))
            kept = _keras.kept_by(self, lambda batch=batch: self(batch, training=True))  # type: ignore[operator]
            size = keras.tree.flatten(batch)[0].shape[0]
            totals = [t + size * keras.ops.convert_to_numpy(v) for t, v in zip(totals, statistics, strict=True)]
            passed += size
        for variable, total in zip(statistics, totals, strict=True):
            variable.assign(total / passed / (1 - kept[id(variable)]))


def _moved(x: Any, which: Any, source: int, destination: int) -> Any:
    """Inputs of which some, as `which` says of each, have an axis moved."""
    return keras.tree.map_structure(lambda a, this: keras.ops.moveaxis(a, source, destination) if this else a, x, which)


def _behind(a: Any, b: Any) -> Any:
    """The rows of one and then those of the other; None where there are none."""
    return None if a is None else keras.ops.concatenate([a, b])


def _training_rows(given: Mapping[str, Any]) -> int | None:
    """How many rows of arrays `fit` trains on, or None for a stream."""
    leaves = keras.tree.flatten(given["x"])
    if not leaves or not hasattr(leaves[0], "shape"):
        return None
    return math.floor(leaves[0].shape[0] * (1.0 - (given.get("validation_split") or 0.0)))


def _steps(given: Mapping[str, Any]) -> int:
    """How many steps `fit` will take an epoch."""
    rows = _training_rows(given)
    if given.get("steps_per_epoch"):
        return given["steps_per_epoch"]
    if rows is not None:
        return -(-rows // (given.get("batch_size") or 32))
    for count in (lambda x: x.num_batches, len):
        try:
            return int(count(given["x"]))
        except (TypeError, AttributeError, NotImplementedError):
            continue
    raise ValueError(
        "Invalid value received for argument `steps_per_epoch`. Expected how many steps an epoch has, since the data "
        "don't tell and this recipe depends on how long training is. Received: steps_per_epoch=None"
    )


def in_step(technique: str) -> bool:
    """Whether a technique takes part by the overrides of this module."""
    return CATALOGUE[technique].hook in _ON_JAX
