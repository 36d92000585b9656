"""Members in chunks, chunks in lanes: what to train is a queue, and every core or accelerator works it off.

A chunk trains through all its epochs while it is warm in the cache, then makes room for the next; so only the chunks
in the lanes hold optimizer state. On CPU a lane is a thread: XLA runs two small programs side by side faster than
either by its own threads (see `benchmarks/`), and one device holds what all members share.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from regularity.data import Data, each, stream_batches
from regularity.population._checkpoints import Checkpoint
from regularity.population._compiling import compile_with, compiler_options, without_collecting
from regularity.population._program import Epoch, Program, State
from regularity.population._tasks import Outcome, Plan, Task, epoch_order

_BLOCK_STEPS = 16  # batches of a stream that train in one call
_BLOCKS = 1000  # of an epoch of a stream that doesn't tell how long it is: perhaps many
_READ_ROWS = 256  # rows that are read through the network at once when scoring, at most


def lanes() -> list[Any]:
    """The device of each lane: a core each on CPU, an accelerator each elsewhere."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return devices
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [devices[i % len(devices)] for i in range(max(cores, len(devices)))]


class Pool:
    """The lanes of this machine with a thread for each, and what waits for them, first come first served.

    Args:
        lanes: The device of each lane.
    """

    def __init__(self, lanes: Sequence[Any]) -> None:
        self.lanes = list(lanes)
        self.stop = threading.Event()
        self._idle = list(lanes)
        self._threads = ThreadPoolExecutor(len(self.lanes), "lane")

    @property
    def devices(self) -> str:
        """How many lanes of what kind."""
        return f"{len(self.lanes)} × {self.lanes[0].device_kind}"

    def submit(self, work: Callable[[Any], list[Outcome]]) -> "Future[list[Outcome]]":
        """Have the next lane that is free do some work, which is given its device."""

        def in_lane() -> list[Outcome]:
            device = self._idle.pop()
            try:
                return work(device)
            finally:
                self._idle.append(device)

        return self._threads.submit(in_lane)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()  # an interrupted run ends with the epoch it is in
        self._threads.shutdown(cancel_futures=True)


class Queued(NamedTuple):
    """A chunk that waits for a lane: the last one is filled up with its last member to the size of all."""

    tasks: list[Task]
    members: int


class Chunk:
    """A chunk in training: its state on a device, and what its members have reported."""

    def __init__(self, program: Program, plan: Plan, tasks: Sequence[Task], device: Any, epoch_steps: int) -> None:
        self.program, self.plan, self.tasks, self.device = program, plan, tasks, device
        # drawn where the model is: under another default device JAX would compile each draw once more
        started = program.start(
            [t.strengths for t in tasks],
            [t.seed for t in tasks],
            [t.learning_rate for t in tasks],
            plan.fresh,
            [t.epochs * epoch_steps for t in tasks],
            [t.schedules for t in tasks],
        )
        self.state: State = jax.device_put(started, device)
        self.judged = self.state  # the same, or with what belongs to averaged weights
        self.outcomes = [Outcome() for _ in tasks]
        self.epoch = 0
        self.reads = _reads(plan, tasks)

    @property
    def states(self) -> tuple[State, State | None]:
        """What it goes on from: its state, and that which it is judged by where this is another."""
        return jax.tree.map(np.asarray, (self.state, self.judged if self.program.restates else None))

    def resume(self, states: tuple[State, State | None], outcomes: list[Outcome], epoch: int) -> None:
        """Go on from where another chunk of the same members was."""
        self.state, judged = jax.device_put(states, self.device)
        self.judged = self.state if judged is None else judged
        self.outcomes, self.epoch = outcomes, epoch

    @property
    def done(self) -> np.ndarray:
        """Which members are at the end of their training."""
        return np.array([self.epoch >= t.epochs or (t.stop is not None and t.stop.stopped) for t in self.tasks])

    @property
    def frozen(self) -> np.ndarray:
        return self.done | np.array([outcome.diverged is not None for outcome in self.outcomes])

    def record(self, report: Any, validation: dict[str, Any], scores: Sequence[np.ndarray]) -> None:
        """Note an epoch of every member that is still in training."""
        report, validation = jax.tree.map(np.asarray, (report, validation))
        trained = ~self.done
        self.epoch += 1
        for i, outcome in enumerate(self.outcomes):
            if not trained[i]:
                continue
            if not report.finite[i] and outcome.diverged is None:
                outcome.diverged = self.epoch
            gone = outcome.diverged is not None
            for name, values in {**report.logs, **{f"val_{k}": v for k, v in validation.items()}}.items():
                value = np.full_like(values[i], np.nan, "float64") if gone else values[i]
                # as in Keras, a metric that is not one number stays an array
                outcome.history.setdefault(name, []).append(float(value) if np.ndim(value) == 0 else value)
            outcome.norm.append(float(report.norm[i]))
            outcome.zeros.append(float(report.zeros[i]))
            mine = [np.full_like(found[i], np.nan) if gone else found[i] for found in scores]
            if mine:
                outcome.held_out.append(mine[0])
            if len(mine) > 1:
                outcome.seen.append(mine[1][0])

    def finish(self) -> list[Outcome]:
        for i, (task, outcome) in enumerate(zip(self.tasks, self.outcomes, strict=True)):
            if task.keep_weights:
                outcome.weights = self.program.weights(self.judged, i)
        del self.state, self.judged
        return self.outcomes


class Lanes:
    """What rows and streams have in common: lanes, and reading members after an epoch."""

    def __init__(self, program: Program, plan: Plan, lanes: Sequence[Any]) -> None:
        self.program, self.plan, self.lanes = program, plan, lanes
        self._programs: dict[Any, Future[Any]] = {}
        self._compilers = ThreadPoolExecutor(max(2, len(lanes)), "compile")
        self._lock = threading.Lock()
        self._calls = plan.calls or 1
        self._placed: dict[Any, Any] = {}

    def call(self, name: str, device: Any, *arguments: Any, donate: bool = False) -> Any:
        """Call a function of the program, compiled once for a device and the arguments' shapes, whatever the lane.

        Args:
            name: Of the function.
            device: Where it runs.
            *arguments: What it takes.
            donate: Whether the memory of the first argument may be used for what it returns.
        """
        return self.compiled(name, device, *arguments, donate=donate).result()(*arguments)

    def compiled(self, name: str, device: Any, *arguments: Any, donate: bool = False) -> "Future[Any]":
        """Start to compile a function of the program, beside others that compile; at once where it has been."""
        leaves, structure = jax.tree.flatten(arguments)
        key = (name, device, structure, donate, tuple((a.shape, a.dtype) for a in leaves))
        with self._lock:  # one traces at a time: Keras keeps losses on the model meanwhile
            if key not in self._programs:
                function = jax.jit(getattr(self.program, name), donate_argnums=(0,) if donate else ())
                with jax.default_device(device), without_collecting():
                    traced = function.trace(*arguments)
                    lowered = traced.lower()
                # a loop whose length is an argument passes through all that there is room for, at most
                passes = arguments[3].shape[0] if len(arguments) == 5 else None  # as `advance` is called then
                options = compiler_options(device, traced.jaxpr, self._calls, passes)
                self._programs[key] = self._compilers.submit(compile_with, lowered, options)
            return self._programs[key]

    def place(self, name: str, value: Any, device: Any) -> Any:
        """Put something that all members read on a device, once."""
        with self._lock:
            if (name, device) not in self._placed:
                self._placed[name, device] = jax.device_put(value, device)
            return self._placed[name, device]

    def shared(self, device: Any) -> Any:
        return self.place("shared", self.program.shared, device)

    def validation(self, state: State, device: Any) -> tuple[Any, ...]:
        """What `validate` takes for a state: all validation rows, in full steps and a ragged last one.

        In the steps of `fit`: what a layer adds to the loss, or a metric of the user's, may depend on who is in a batch.
        """
        data = self.plan.validation
        assert data is not None
        size = self.plan.batch_size
        full, rows = data.rows // size * size, np.arange(data.rows, dtype="int32")
        placed = self.place("validation", data.batch(), device)
        return state, self.shared(device), placed, rows[:full].reshape(-1, size), rows[full:]

    def end_epoch(self, chunk: Chunk, state: State, report: Epoch) -> None:
        """Take a chunk on to what an epoch has made of it, but members that are frozen or not finite stay as they were."""
        keep = np.asarray(report.finite) & ~chunk.frozen
        if not keep.all():
            state = self.call("guarded", chunk.device, keep, state, chunk.state)
        chunk.state = chunk.judged = state

    def validate(self, chunk: Chunk) -> dict[str, Any]:
        if self.plan.validation is None:
            return {}
        return self.call("validate", chunk.device, *self.validation(chunk.state, chunk.device))

    def train(self, chunks: Sequence[Queued], advance: Callable[[int], None]) -> Iterator[list[Outcome]]:
        """Train chunks and give their members' outcomes, in order."""
        raise NotImplementedError


class RowLanes(Lanes):
    """Training on arrays: each chunk runs through all its epochs in one lane."""

    def train(self, chunks: Sequence[Queued], advance: Callable[[int], None]) -> Iterator[list[Outcome]]:
        with Pool(self.lanes) as pool:
            for future in self.submit(chunks, pool, advance):
                yield future.result()

    def submit(
        self, chunks: Sequence[Queued], pool: Pool, advance: Callable[[int], None]
    ) -> "list[Future[list[Outcome]]]":
        """Queue chunks for the lanes of a pool."""
        tasks = [task for chunk in chunks for task in chunk.tasks]
        longest = max(task.epoch_rows or len(self._rows(task)) for task in tasks)
        if self.plan.full_steps:
            longest += -longest % self.plan.batch_size
        per_member = self.plan.shuffle or any(task.rows is not None for task in tasks)
        if self.plan.calls is None:
            self._calls = max(self._calls, sum(max(task.epochs for task in chunk.tasks) for chunk in chunks))
        begun = time.monotonic()

        def work(chunk: Queued, device: Any) -> list[Outcome]:
            return self._train_chunk(chunk, device, longest, per_member, pool.stop, advance, begun)

        return [pool.submit(partial(work, chunk)) for chunk in chunks]

    def _train_chunk(
        self,
        queued: Queued,
        device: Any,
        longest: int,
        per_member: bool,
        stop: threading.Event,
        advance: Callable[[int], None],
        begun: float,
    ) -> list[Outcome]:
        checkpoint = Checkpoint(self.plan.checkpoints, queued.tasks)
        states, outcomes, begin = checkpoint.load() or (None, [], 0)
        if outcomes and states is None:  # all that was left to do was to tell of it
            return outcomes
        self._compile(queued.tasks, device, longest, per_member)
        chunk = Chunk(self.program, self.plan, queued.tasks, device, -(-longest // self.plan.batch_size))
        if states is not None:
            chunk.resume(states, outcomes, begin)
        data, shared = self.place("data", self.plan.data.batch(), device), self.shared(device)
        epochs = max(task.epochs for task in queued.tasks)
        for epoch in range(begin, epochs):
            if stop.is_set():
                break
            order, tail = self._order(queued.tasks, epoch, longest, per_member)
            before, done = chunk.judged, chunk.done
            in_steps = len(order) > 0  # what they make may be written over; what the epoch began with may not
            state = chunk.state
            if in_steps:
                state = self.call("advance", device, state, shared, data, *self.with_room(order))
            state, report = self.call("finish", device, state, shared, data, tail, donate=in_steps)
            self.end_epoch(chunk, state, report)
            if self.program.restates:
                if self.plan.scores or any(task.epochs == epoch + 1 for task in queued.tasks):
                    chunk.judged = self.call("restate", device, chunk.state, shared, data, order, tail)
                if done.any():  # those stay as they were judged, whoever trains on beside them
                    chunk.judged = self.call("guarded", device, ~done, chunk.judged, before)
            chunk.record(report, self.validate(chunk), self._scores(chunk, data))
            self._tell(chunk, queued.members)
            advance(sum(epoch < task.epochs for task in queued.tasks[: queued.members]))
            if chunk.done.all():
                break
            if checkpoint.is_due and epoch < epochs - 1:
                checkpoint.save((chunk.states, chunk.outcomes, chunk.epoch))
        if any(task.keep_outputs for task in chunk.tasks):
            self._keep_outputs(chunk, data)
        outcomes = chunk.finish()
        if checkpoint.is_worth_it(begun) and not stop.is_set():  # others of the same job may train on for long
            checkpoint.save((None, outcomes, epochs))
        return outcomes

    def _compile(self, tasks: Sequence[Task], device: Any, longest: int, per_member: bool) -> None:
        """Start to compile all that an epoch calls, what takes longest first; weights are drawn meanwhile."""
        state, shared = self.program.shapes(len(tasks), device), self.shared(device)
        data = self.place("data", self.plan.data.batch(), device)
        order, tail = self._order(tasks, 0, longest, per_member)
        if len(order):
            self.compiled("advance", device, state, shared, data, *self.with_room(order))
        self.compiled("finish", device, state, shared, data, tail, donate=len(order) > 0)
        if self.plan.validation is not None:
            self.compiled("validate", device, *self.validation(state, device))
        for read in _reads(self.plan, tasks):
            if any(score != "loss" for score in self.plan.scores):
                self.compiled("predict", device, state, shared, data[0], read.rows)
            if "loss" in self.plan.scores:
                self.compiled("losses", device, state, shared, data, read.rows, read.weight(*read.sets[0]))

    @staticmethod
    def _tell(chunk: Chunk, members: int) -> None:
        """Tell those who may stop members how the epoch has gone for them."""
        for task, outcome in zip(chunk.tasks[:members], chunk.outcomes, strict=False):
            if task.stop is not None and len(outcome.held_out) == chunk.epoch:
                task.stop.told(chunk.epoch, outcome.held_out[-1], outcome.diverged is not None)

    def _rows(self, task: Task) -> np.ndarray:
        return np.arange(self.plan.data.rows) if task.rows is None else task.rows

    def _order(
        self, tasks: Sequence[Task], epoch: int, longest: int, per_member: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch's full steps, (steps, ...), and of its ragged last one, (1, ...).

        An epoch is the same number of rows for every member: one whose fold has a row less draws a row once more.
        """
        steps = longest // self.plan.batch_size
        full = steps * self.plan.batch_size
        if not per_member:
            rows = np.arange(longest, dtype="int32")
            return rows[:full].reshape(steps, self.plan.batch_size), rows[None, full:]
        orders = [epoch_order(task.seed, epoch, self._rows(task), longest, self.plan.shuffle) for task in tasks]
        rows = np.stack(orders).astype("int32")  # (members, rows)
        in_steps = rows[:, :full].reshape(len(tasks), steps, self.plan.batch_size)
        return np.ascontiguousarray(in_steps.swapaxes(0, 1)), rows[None, :, full:]

    def with_room(self, order: np.ndarray) -> tuple[np.ndarray] | tuple[np.ndarray, np.int32]:
        """The steps of an epoch as `advance` takes them: with room for those of the longest epoch, and how many they are."""
        # a GPU may have to ask the host after each step of a loop whose length it does not know
        if self.plan.longest is None or self.lanes[0].platform != "cpu":
            return (order,)
        steps, room = np.int32(len(order)), -(-self.plan.longest // self.plan.batch_size) - len(order)
        return np.concatenate([order, np.zeros((room, *order.shape[1:]), order.dtype)]) if room else order, steps

    def _outputs(self, chunk: Chunk, data: Any, rows: np.ndarray) -> Any:
        """What a chunk's members put out for the rows of a read, of (members, rows, ...)."""
        found = self.call("predict", chunk.device, chunk.judged, self.shared(chunk.device), data[0], rows)
        return jax.tree.map(_by_member, found)

    def _keep_outputs(self, chunk: Chunk, data: Any) -> None:
        outputs = self._outputs(chunk, data, chunk.reads[0].rows)
        for i, (task, outcome) in enumerate(zip(chunk.tasks, chunk.outcomes, strict=True)):
            if task.keep_outputs:
                many = sum(map(len, task.held_out))
                outcome.outputs = jax.tree.map(lambda a, i=i, many=many: a[i, :many].copy(), outputs)

    def _scores(self, chunk: Chunk, data: Any) -> list[np.ndarray]:
        """Scores of a chunk's members on the rows that it reads, held out or trained on, each of (members, sets, scores)."""
        shared, device = self.shared(chunk.device), chunk.device
        found = []
        for read in chunk.reads:
            outputs = None
            if any(score != "loss" for score in self.plan.scores):
                outputs = self._outputs(chunk, data, read.rows)
            rows, of_sets = _by_member(read.rows), []
            for at, valid in read.sets:
                of_scores = []
                for score in self.plan.scores:
                    if score == "loss":
                        weight = read.weight(at, valid)
                        of_scores.append(
                            -np.asarray(self.call("losses", device, chunk.judged, shared, data, read.rows, weight))
                        )
                    else:
                        picked = jax.tree.map(lambda a, at=at: _picked(a, at), outputs)
                        of_scores.append(score(picked, _picked(rows, at), valid))
                of_sets.append(np.stack(of_scores, -1))
            found.append(np.stack(of_sets, 1))
        return found


class _Read(NamedTuple):
    """Rows to read a chunk's members on: those of all their sets, in blocks of one size, of (blocks, members, size).

    A set is where its rows stand among a member's, of (members, longest), and which of these are not padding.
    """

    rows: np.ndarray
    sets: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, sets: Sequence[Sequence[np.ndarray]]) -> "_Read":
        """Each member's own sets of rows, as many for every member."""
        rows = [np.concatenate(own) for own in sets]
        longest = max(map(len, rows))
        blocks = -(-longest // _READ_ROWS)
        size = -(-longest // blocks)
        padded = np.stack([np.resize(r, blocks * size) for r in rows]).astype("int32")
        places = []
        for s in range(len(sets[0])):
            starts = np.array([[sum(map(len, own[:s]))] for own in sets])
            lengths = np.array([[len(own[s])] for own in sets])
            offset = np.arange(lengths.max())
            places.append((starts + np.minimum(offset, lengths - 1), offset < lengths))
        return cls(np.ascontiguousarray(padded.reshape(len(rows), blocks, size).swapaxes(0, 1)), places)

    def weight(self, at: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """1 for the rows of a set, 0 for the others, in the shape of all rows."""
        blocks, members, size = self.rows.shape
        weight = np.zeros((members, blocks * size), "float32")
        np.maximum.at(weight, (np.arange(members)[:, None], at), valid.astype("float32"))
        return np.ascontiguousarray(weight.reshape(members, blocks, size).swapaxes(0, 1))


def _reads(plan: Plan, tasks: Sequence[Task]) -> list[_Read]:
    """What is read of a chunk after an epoch: its members' held-out rows, and some of those they train on."""
    if not plan.scores or not all(task.held_out for task in tasks):
        return []
    held_out = _Read.of([task.held_out for task in tasks])
    return [held_out, _Read.of([_sample(task) for task in tasks])] if plan.seen else [held_out]


def _picked(a: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Each member's own entries of the second axis."""
    return a[np.arange(len(a))[:, None], at]


def _by_member(a: Any) -> np.ndarray:
    """From (blocks, members, size, ...) to (members, rows, ...)."""
    moved = np.moveaxis(np.asarray(a), 1, 0)
    return moved.reshape(len(moved), -1, *moved.shape[3:])


def _sample(task: Task) -> tuple[np.ndarray]:
    """As many of a member's training rows as it has held-out ones, the same in every epoch."""
    assert task.rows is not None
    rows = np.random.default_rng([task.seed, 2**32]).permutation(task.rows)
    return (rows[: max(sum(map(len, task.held_out)), 1)],)


class StreamLanes(Lanes):
    """Training on a stream: each batch is read once and trains every chunk, so all chunks are in memory at once."""

    def train(self, chunks: Sequence[Queued], advance: Callable[[int], None]) -> Iterator[list[Outcome]]:
        if self.program.restates:
            raise ValueError(
                "Expected arrays: averages of weights need the statistics of batch normalization once more from the rows. "
                "Received: a stream. Pass arrays, or leave the averages out (the techniques ema and swa, or use_ema)."
            )
        steps = self._epoch_steps()
        held = [
            Chunk(self.program, self.plan, queued.tasks, self.lanes[n % len(self.lanes)], steps)
            for n, queued in enumerate(chunks)
        ]
        epochs = max(task.epochs for queued in chunks for task in queued.tasks)
        self._calls = max(self._calls, epochs * len(chunks) * (-(-steps // _BLOCK_STEPS) or _BLOCKS))
        with ThreadPoolExecutor(min(len(self.lanes), len(chunks))) as lanes:
            for epoch in range(epochs):
                # what they make of it may be written over, what the epoch began with may not
                states = [jax.tree.map(lambda a: a.copy(), chunk.state) for chunk in held]
                for block in _blocks(self.plan.data):
                    states = list(lanes.map(self._advance, held, states, [block] * len(held)))
                for chunk, trained, queued in zip(held, states, chunks, strict=True):
                    state, report = self.call("report", chunk.device, trained, donate=True)
                    self.end_epoch(chunk, state, report)
                    chunk.record(report, self.validate(chunk), [])
                    advance(sum(epoch < task.epochs for task in queued.tasks[: queued.members]))
        yield from (chunk.finish() for chunk in held)

    def _epoch_steps(self) -> int:
        """How many batches an epoch has, or 0 where the stream doesn't tell and nothing asks."""
        try:
            return len(self.plan.data)
        except TypeError:
            if self.program.model.__dict__["_clock"] is None:
                return 0
            raise ValueError(
                "Expected a stream that tells how many batches it has, since a recipe depends on how long training is. "
                f"Received: {type(self.plan.data).__name__} without a length. Pass arrays, or a PyDataset or tf.data.Dataset "
                "of known size."
            ) from None

    def _advance(self, chunk: Chunk, state: State, block: Data) -> State:
        """What a state of a chunk becomes on the batches of a block."""
        batches = jax.tree.leaves(block.x)[0].shape[:2]
        data = jax.device_put(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), block.batch()), chunk.device)
        order = np.arange(batches[0] * batches[1], dtype="int32").reshape(batches)
        return self.call("advance", chunk.device, state, self.shared(chunk.device), data, order, donate=True)


def _shapes(batch: Data) -> list[tuple[int, ...]]:
    return [np.shape(leaf) for leaf in jax.tree.leaves((batch.x, batch.y, batch.sample_weight))]


def _blocks(stream: Any) -> Iterator[Data]:
    """Runs of batches of one shape, stacked to (batches, rows, ...)."""
    run: list[Data] = []

    def stacked() -> Data:
        return Data(
            *(each(lambda *a: np.stack(a), *(getattr(b, part) for b in run)) for part in ("x", "y", "sample_weight"))
        )

    for batch in stream_batches(stream):
        if run and (_shapes(batch) != _shapes(run[0]) or len(run) == _BLOCK_STEPS):
            yield stacked()
            run = []
        run.append(batch)
    if run:
        yield stacked()
