"""The compiled program of a population: Keras's own `train_step`, batched over members and scanned over steps.

    scan over the steps of an epoch      no Python between steps
      vmap over the members of a chunk   one batched matrix product for all of them
        model.train_step                 of the model that Recipe.apply returns

A chunk's state is Keras's own `(trainable, non_trainable, optimizer, metrics)` variables with a leading axis of members.
What no step changes and no member has of its own (a frozen backbone) is shared, and exists once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regularity import _keras
from regularity.catalogue._schedules import number_of
from regularity.data import Data
from regularity.population._compiling import without_collecting
from regularity.recipe import _regularized

NEAR_ZERO = 1e-3  # weights below this count as zero in the share of zeros: penalties bring them near it, seldom to it


class State(NamedTuple):
    """The variables that members have of their own: lists of arrays of (members, ...)."""

    trainable: list[jax.Array]
    non_trainable: list[jax.Array]
    optimizer: list[jax.Array]
    metrics: list[jax.Array]


class Epoch(NamedTuple):
    """What an epoch reports of each member: arrays of (members,)."""

    logs: dict[str, jax.Array]
    finite: jax.Array
    norm: jax.Array  # of all kernels together
    zeros: jax.Array  # share of the kernels' entries that are near zero


class Program:
    """The functions that train and read a chunk of members, compiled once for each shape of chunk.

    Args:
        model: A regularized model on the JAX backend, with a strength at every site that any member sets.
        data: A few rows, of the forms that training will bring.
        batch_size: Rows of a full batch.
    """

    def __init__(self, model: Any, data: Data, batch_size: int) -> None:
        self.model = model
        example = data.take(np.arange(batch_size) % data.rows).batch()
        _keras.symbolic_build(model, example)
        model.reset_metrics()
        state = _keras.jax_state(model)
        self._start = State(*[[jax.device_put(np.array(v)) for v in group] for group in state])
        generators = [generator.state for _, generator in _keras.seed_generators(model)]
        kept = {id(v) for v in [*model.strengths.values(), *generators, *(v for v, _ in self._drawn)]}
        unchanged: list[bool] = []

        def train_step(state: Any, batch: Any) -> Any:
            _, new = model.train_step(state, batch)
            unchanged[:] = [after is before for after, before in zip(new[1], state[1], strict=True)]
            return new

        # Keras's part of a trace takes longest: JAX keeps it for all programs of a device that have batches of a shape
        self._train_step = jax.jit(train_step, inline=True)
        with jax.default_device(jax.local_devices()[0]), without_collecting():
            self._train_step.eval_shape(tuple(state), example)
        self._is_shared = [
            same and id(v) not in kept for same, v in zip(unchanged, model.non_trainable_variables, strict=True)
        ]
        self.shared = [a for a, shared in zip(self._start.non_trainable, self._is_shared, strict=True) if shared]
        self._kernels = [i for i, v in enumerate(model.trainable_variables) if len(v.shape) >= 2]
        places = {id(v): i for i, v in enumerate(model.optimizer.variables)}
        averages = _keras.averages(model.optimizer) or [None] * len(model.trainable_variables)
        self._averages = [None if average is None else places[id(average)] for average in averages]

        own = [v for v, shared in zip(model.non_trainable_variables, self._is_shared, strict=True) if not shared]
        statistics = _keras.batch_statistics(model)
        self._statistics = {i: id(v) for i, v in enumerate(own) if id(v) in statistics}

    @property
    def restates(self) -> bool:
        """Whether weights are judged by averages, for which the statistics of batch normalization are not those of training."""
        return bool(self._statistics) and any(i is not None for i in self._averages)

    @property
    def own_start(self) -> State:
        """The variables that a member has of its own, as one member starts with them."""
        return self._own(self._start)

    @property
    def state_bytes(self) -> int:
        """What one member takes in memory while it trains."""
        return sum(a.size * a.dtype.itemsize for group in self.own_start for a in group)

    @property
    def weight_count(self) -> int:
        """How many numbers a member trains."""
        return sum(a.size for a in self._start.trainable)

    @property
    def signature(self) -> str:
        """What tells this program from others: shapes of weights and layers' classes."""
        shapes = [a.shape for a in self._start.trainable]
        return f"{shapes} {[type(layer).__name__ for _, layer in _keras.walk(self.model)]} {type(self.model.optimizer).__name__}"

    @property
    def has_convolutions(self) -> bool:
        return any(isinstance(layer, _keras.BaseConv) for _, layer in _keras.walk(self.model))

    # -- the state of a chunk ------------------------------------------------------------------------------------

    def start(
        self,
        strengths: Sequence[dict[str, float]],
        seeds: Sequence[int],
        learning_rates: Sequence[float | None],
        fresh: bool,
        steps: Sequence[int],
        schedules: Sequence[Mapping[str, str]],
    ) -> State:
        """The first state of members, on the host, one for each of `strengths`, `seeds`, `learning_rates` and `steps`.

        `steps` is how many each will take in all, `schedules` those of its strengths that are not constant.
        """
        members = len(seeds)
        # stacked on the host: eager JAX would compile a small program for each variable
        state = State(*[[np.repeat(np.asarray(a)[None], members, 0) for a in group] for group in self.own_start])
        where = self._positions()
        for key, variable in self.model.strengths.items():
            group, i = where[id(variable)]
            state[group][i] = np.array([values[key] for values in strengths], "float32")
        generators = _keras.seed_generators(self.model)
        for (_, generator), states in zip(generators, _regularized.seed_states(self.model, seeds), strict=True):
            group, i = where[id(generator.state)]
            state[group][i] = states.astype(state[group][i].dtype)
        if any(rate is not None for rate in learning_rates):
            group, i = where[id(_keras.learning_rate_variable(self.model.optimizer))]
            given = state[group][i]
            state[group][i] = np.array(
                [g if r is None else r for g, r in zip(given, learning_rates, strict=True)], given.dtype
            )
        clock = self.model.__dict__["_clock"]
        if clock is not None:
            group, i = where[id(clock)]
            state[group][i][:, 1] = steps
        for key, (_, number) in self.model.__dict__["_scheduled"].items():
            group, i = where[id(number)]
            state[group][i] = np.array([number_of(names.get(key, "constant")) for names in schedules], "float32")
        if fresh:
            for (variable, _), values in zip(self._drawn, self._draw(seeds), strict=True):
                group, i = where[id(variable)]
                state[group][i] = values
        for kept in self.model.__dict__["_snapshots"]:
            for variable, held in kept:
                if id(variable) in where:  # else it is the same for all, and held already
                    (group, i), (of, j) = where[id(held)], where[id(variable)]
                    state[group][i] = state[of][j].copy()
        return state

    def shapes(self, members: int, device: Any) -> State:
        """What a state of a chunk on a device looks like, for compiling before there is one."""
        there = jax.sharding.SingleDeviceSharding(device)
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((members, *a.shape), a.dtype, sharding=there), self.own_start
        )

    @cached_property
    def _drawn(self) -> list[tuple[Any, Any]]:
        """The variables that members draw anew, with their initializers."""
        return _regularized.drawn_anew(self.model)

    def _draw(self, seeds: Sequence[int]) -> list[np.ndarray]:
        """Fresh weights of (members, ...) by the model's own initializers, equal to `Recipe.apply(init="fresh")`.

        One by one, a tenth of a millisecond each: one program that draws them all takes seconds to compile.
        """
        return [
            np.stack([_keras.draw(initializer, variable, _regularized.weight_seed(seed, i)) for seed in seeds])
            for i, (variable, initializer) in enumerate(self._drawn)
        ]

    def weights(self, state: State, member: int) -> list[np.ndarray]:
        """One member's weights, in the order of the user's model, with moving averages in place where Keras puts them."""
        own, shared = self._positions(), self._shared_positions()
        state = state._replace(trainable=self._judged(state))
        return [
            np.asarray(self.shared[shared[id(v)]])
            if id(v) in shared
            else np.asarray(state[own[id(v)][0]][own[id(v)][1]])[member].copy()
            for v in _regularized.as_given(self.model)
        ]

    def _judged(self, state: State) -> list[jax.Array]:
        """The weights that a member is judged by and handed back with: Keras puts moving averages in their place."""
        pairs = zip(state.trainable, self._averages, strict=True)
        return [weight if i is None else state.optimizer[i] for weight, i in pairs]

    def _own(self, state: State) -> State:
        return state._replace(
            non_trainable=[a for a, s in zip(state.non_trainable, self._is_shared, strict=True) if not s]
        )

    def _positions(self) -> dict[int, tuple[int, int]]:
        """Where in a chunk's state each variable stands, by its id: (group, index)."""
        model = self.model
        own = [v for v, s in zip(model.non_trainable_variables, self._is_shared, strict=True) if not s]
        groups = (model.trainable_variables, own, model.optimizer.variables, model.metrics_variables)
        return {id(v): (g, i) for g, variables in enumerate(groups) for i, v in enumerate(variables)}

    def _shared_positions(self) -> dict[int, int]:
        shared = [v for v, s in zip(self.model.non_trainable_variables, self._is_shared, strict=True) if s]
        return {id(v): i for i, v in enumerate(shared)}

    def _whole(self, own: Sequence[jax.Array], shared: Sequence[jax.Array]) -> list[jax.Array]:
        """All non-trainable variables, from those of one member and those that all share."""
        mine, theirs = iter(own), iter(shared)
        return [next(theirs) if is_shared else next(mine) for is_shared in self._is_shared]

    # -- pure functions of a chunk, to be compiled -----------------------------------------------------------------

    def advance(self, state: State, shared: Any, data: Any, order: jax.Array, steps: jax.Array | None = None) -> State:
        """Train the given steps.

        Args:
            state: Of the chunk.
            shared: What all members share.
            data: The rows as `train_step` takes them, shared by all.
            order: Rows of each step, of (steps, members, batch), or (steps, batch) where all members share them.
            steps: How many of these to train, where it is not all: what is compiled once trains epochs of other lengths too.
        """
        axes = (0, None, None, 0 if order.ndim == 3 else None)
        step = self._batched(self._step, axes, _members(state))
        if steps is not None:
            rows = partial(jax.lax.dynamic_index_in_dim, order, keepdims=False)
            return jax.lax.fori_loop(0, steps, lambda i, s: step(s, shared, data, rows(i)), state)
        return jax.lax.scan(lambda s, rows: (step(s, shared, data, rows), None), state, order)[0]

    def finish(self, state: State, shared: Any, data: Any, order: jax.Array) -> tuple[State, Epoch]:
        """Train the ragged last step of an epoch, of `order` (1, members, rest) or (1, rest), and report the epoch.

        Where the rows fill all batches, `order` is empty.
        """
        return self.report(self.advance(state, shared, data, order) if order.size else state)

    def report(self, state: State) -> tuple[State, Epoch]:
        """Read the metrics of the epoch that ends, and set them back."""
        members = _members(state)
        logs = self._logs(state, members)
        finite = jnp.stack([jnp.isfinite(w).all(tuple(range(1, w.ndim))) for w in state.trainable]).all(0)
        if "loss" in logs:
            finite = finite & jnp.isfinite(logs["loss"])
        logs = {name: jnp.where(_along(finite, value), value, jnp.nan) for name, value in logs.items()}
        judged = self._judged(state)
        kernels = [judged[i] for i in self._kernels]
        square = (
            sum(jnp.sum(jnp.square(w), tuple(range(1, w.ndim))) for w in kernels) if kernels else jnp.zeros(members)
        )
        count = max(1, sum(w[0].size for w in kernels))
        zeros = (
            sum(jnp.sum(jnp.abs(w) < NEAR_ZERO, tuple(range(1, w.ndim))) for w in kernels) / count
            if kernels
            else jnp.zeros(members)
        )
        state = state._replace(metrics=self._fresh_metrics(members))
        return state, Epoch(logs, finite, jnp.sqrt(square), zeros)

    def guarded(self, keep: jax.Array, state: State, before: State) -> State:
        """The state of the members to keep, of (members,), and what it was before of the others.

        A program of its own, which compiles where a member diverges or has fewer epochs than its chunk.
        """
        return jax.tree.map(lambda new, old: jnp.where(_along(keep, new), new, old), state, before)

    def restate(self, state: State, shared: Any, data: Any, order: jax.Array, tail: jax.Array) -> State:
        """The state with the statistics of batch normalization as the averaged weights have them over an epoch's rows.

        Where nothing is averaged, a member's stay those of its training.
        """
        judged = state._replace(trainable=self._judged(state))

        def one(state: State, shared: Any, data: Any, rows: jax.Array) -> list[jax.Array]:
            x = jax.tree.map(lambda a: a[rows], data)[0]
            cleared = [jnp.zeros_like(a) if i in self._statistics else a for i, a in enumerate(state.non_trainable)]
            new = _keras.after_a_pass(self.model, state.trainable, self._whole(cleared, shared), x)
            return self._own(state._replace(non_trainable=new)).non_trainable

        members, passed = _members(state), 0
        step = self._batched(one, (0, None, None, 0 if order.ndim == 3 else None), members)
        first = order[0] if order.size else tail[0]
        kept = _keras.kept_by(self.model, lambda: jax.eval_shape(step, judged, shared, data, first))
        total = [jnp.zeros_like(a) for a in state.non_trainable]

        def add(carry: Any, rows: jax.Array) -> Any:
            found, total = carry
            found = step(judged._replace(non_trainable=found), shared, data, rows)
            size = rows.shape[-1]
            sums = [
                t + size * f if i in self._statistics else t for i, (t, f) in enumerate(zip(total, found, strict=True))
            ]
            return (found, sums), None

        carry = (state.non_trainable, total)
        for part in (order, tail):
            if part.size:
                carry, _ = jax.lax.scan(add, carry, part)
                passed += len(part) * part.shape[-1]
        pairs = zip(judged.trainable, state.trainable, strict=True)
        moved = jnp.stack([(a != b).any(tuple(range(1, a.ndim))) for a, b in pairs]).any(0)
        return state._replace(
            non_trainable=[
                jnp.where(_along(moved, a), t / passed / (1 - kept[self._statistics[i]]), a)
                if i in self._statistics
                else a
                for i, (a, t) in enumerate(zip(state.non_trainable, carry[1], strict=True))
            ]
        )

    def predict(self, state: State, shared: Any, x: Any, rows: jax.Array) -> Any:
        """Outputs of each member on its own rows: from rows (blocks, members, size) to trees of (blocks, members, size, ...)."""

        def one(state: State, shared: Any, x: Any, rows: jax.Array) -> Any:
            batch = jax.tree.map(lambda a: a[rows], x)
            return self._outputs(state, shared, batch)

        return jax.lax.map(
            lambda block: self._batched(one, (0, None, None, 0), rows.shape[1])(state, shared, x, block), rows
        )

    def losses(self, state: State, shared: Any, data: Any, rows: jax.Array, weight: jax.Array) -> jax.Array:
        """The compiled loss without penalties, of each member on its own rows; `weight` is 0 where a row is padding."""

        def one(state: State, shared: Any, data: Any, rows: jax.Array, weight: jax.Array) -> jax.Array:
            x, y, *_ = jax.tree.map(lambda a: a[rows], data)
            return jnp.sum(_keras.row_losses(self.model, y, self._outputs(state, shared, x)) * weight)

        function = self._batched(one, (0, None, None, 0, 0), rows.shape[1])
        sums = jax.lax.map(lambda block: function(state, shared, data, *block), (rows, weight))
        return sums.sum(0) / jnp.maximum(weight.sum((0, 2)), 1)

    def _outputs(self, state: State, shared: Any, x: Any) -> Any:
        """What one member puts out, as `predict` would after `fit`."""
        return self.model.predict_step((self._judged(state), self._whole(state.non_trainable, shared)), (x,))[0]

    def validate(self, state: State, shared: Any, data: Any, order: jax.Array, tail: jax.Array) -> dict[str, jax.Array]:
        """What `fit` reports of validation data, the same for all members: `test_step` over steps (steps, batch) and a rest."""
        members = _members(state)
        metrics = self._fresh_metrics(members)

        def one(metrics: Any, state: State, shared: Any, rows: jax.Array) -> Any:
            batch = jax.tree.map(lambda a: a[rows], data)
            whole = self._whole(state.non_trainable, shared)
            return self.model.test_step((state.trainable, whole, metrics), batch)[1][2]

        step = self._batched(one, (0, 0, None, None), members)
        metrics, _ = jax.lax.scan(lambda m, rows: (step(m, state, shared, rows), None), metrics, order)
        if tail.size:
            metrics = step(metrics, state, shared, tail)
        return self._logs(state._replace(metrics=metrics), members)

    def _step(self, state: State, shared: Any, data: Any, rows: jax.Array) -> State:
        """One training step of one member, on the given rows."""
        batch = jax.tree.map(lambda a: a[rows], data)
        whole = self._whole(state.non_trainable, shared)
        new = self._train_step((state.trainable, whole, state.optimizer, state.metrics), batch)
        return jax.tree.map(lambda a, old: a.astype(old.dtype), self._own(State(*map(list, new))), state)

    def _logs(self, state: State, members: int) -> dict[str, jax.Array]:
        result = self._batched(lambda metrics: _keras.metrics_result(self.model, metrics), (0,), members)(state.metrics)
        return {name: jnp.asarray(value) for name, value in result.items()}

    def _fresh_metrics(self, members: int) -> list[jax.Array]:
        return [jnp.repeat(a[None], members, 0) for a in self._start.metrics]

    @staticmethod
    def _batched(function: Callable[..., Any], axes: tuple[int | None, ...], members: int) -> Callable[..., Any]:
        """`vmap`, but a member that is alone in its chunk runs without it: XLA makes plain matrix products of that."""
        if members > 1:
            return jax.vmap(function, in_axes=axes)

        def alone(*arguments: Any) -> Any:
            unstacked = [
                jax.tree.map(lambda a: a[0], v) if axis == 0 else v for v, axis in zip(arguments, axes, strict=True)
            ]
            return jax.tree.map(lambda a: jnp.asarray(a)[None], function(*unstacked))

        return alone


def _members(state: State) -> int:
    return len(state.trainable[0])


def _along(members: jax.Array, value: jax.Array) -> jax.Array:
    """Something of (members,), to be broadcast with a value of (members, ...)."""
    return members.reshape((-1,) + (1,) * (value.ndim - 1))
