"""A population: members of one structure, trained together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from regularity.data import Data, stream_batches
from regularity.population._calibration import calibrated_chunk_size, chunk_size, is_worth_a_trial
from regularity.population._checkpoints import Checkpoint
from regularity.population._convolution import lower_convolutions
from regularity.population._draws import hasten_draws
from regularity.population._lanes import Chunk, Pool, Queued, RowLanes, StreamLanes, lanes
from regularity.population._program import Program
from regularity.population._tasks import Outcome, Plan, Task


class Population:
    """Members of one structure on the JAX backend; its functions compile once, however often it runs.

    Args:
        model: A regularized model with a strength at every site that any member sets.
        plan: What its members share.
        members: How many to expect in the largest run, for the size of chunks.
    """

    def __init__(self, model: Any, plan: Plan, members: int) -> None:
        streamed = not isinstance(plan.data, Data)
        example = next(iter(stream_batches(plan.data))) if streamed else plan.data
        self.plan = plan
        lower_convolutions(model)
        hasten_draws(model)
        self.program = Program(model, example, example.rows if streamed else min(plan.batch_size, example.rows))
        self.lanes = lanes()
        self._work = (StreamLanes if streamed else RowLanes)(self.program, plan, self.lanes)
        self._members, self._size = members, plan.chunk

    def run(self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda epochs: None) -> list[Outcome]:
        """Train every task and return what became of it, in the order of `tasks`.

        Args:
            tasks: The members.
            advance: Called with the number of member-epochs that are done.
        """
        chunks, filled = self._chunks(tasks)
        return _in_order(chunks, list(self._work.train(filled, advance)))

    def submit(self, tasks: Sequence[Task], pool: Pool, advance: Callable[[int], None]) -> Callable[[], list[Outcome]]:
        """Queue tasks for the lanes of a pool, and return what waits for their outcomes. Streams are not queued.

        Args:
            tasks: The members.
            pool: Lanes that populations share.
            advance: As in `run`.
        """
        assert isinstance(self._work, RowLanes)
        chunks, filled = self._chunks(tasks)
        futures = self._work.submit(filled, pool, advance)
        return lambda: _in_order(chunks, [future.result() for future in futures])

    def forget(self, tasks: Sequence[Task]) -> None:
        """Remove the checkpoints of tasks whose outcomes are kept elsewhere."""
        for queued in self._chunks(tasks)[1]:
            Checkpoint(self.plan.checkpoints, queued.tasks).remove()

    def chunk(self, tasks: Sequence[Task]) -> int:
        """How many members train together, in this run and all that follow: their programs are the same then."""
        if self._size is None:
            size = self._chunk_size(tasks)
            together = self.plan.together
            if size >= together or (
                size > 1 and 3 * size >= together
            ):  # a few more than fit cost less than a few at a time
                self._size = max(size // together, 1) * together
            else:
                self._size = _divisor(together, size)
        return self._size

    def together(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Which tasks train together, by their index."""
        return self._chunks(tasks)[0]

    def _chunks(self, tasks: Sequence[Task]) -> tuple[list[list[int]], list[Queued]]:
        """Which tasks train together, the longest first, by their index and themselves."""
        size = self.chunk(tasks)
        order = sorted(range(len(tasks)), key=lambda i: -tasks[i].epochs)
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        return chunks, [Queued([tasks[i] for i in c] + [tasks[c[-1]]] * (size - len(c)), len(c)) for c in chunks]

    def _chunk_size(self, tasks: Sequence[Task]) -> int:
        members, plan = max(self._members, len(tasks)), self.plan
        if not isinstance(plan.data, Data):
            return chunk_size(self.program, members, len(self.lanes))
        epochs = plan.epochs or max(task.epochs for task in tasks)
        steps = members * epochs * plan.data.rows // plan.batch_size
        if not is_worth_a_trial(self.program, plan.batch_size, steps):
            return chunk_size(self.program, members, len(self.lanes))

        # compiles as hard as for the run itself; without room for the longest epoch, which may have fewer steps than a trial
        work = RowLanes(self.program, replace(plan, calls=steps, longest=None), self.lanes)

        def trial(size: int, device: Any, steps: int) -> None:
            chunk = Chunk(self.program, plan, [tasks[0]] * size, device, steps)
            order = np.zeros((steps, size, min(plan.batch_size, plan.data.rows)), "int32")
            data, shared = work.place("data", plan.data.batch(), device), work.shared(device)
            jax.block_until_ready(work.call("advance", device, chunk.state, shared, data, *work.with_room(order)))

        return calibrated_chunk_size(self.program, members, self.lanes, trial, f"batch {plan.batch_size}")


def _in_order(chunks: Sequence[Sequence[int]], found: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """The outcomes of chunks in the order of their tasks; what only fills a chunk is left out."""
    by_task = {
        i: outcome
        for chunk, outcomes in zip(chunks, found, strict=True)
        for i, outcome in zip(chunk, outcomes, strict=False)
    }
    return [by_task[i] for i in range(len(by_task))]


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is no larger than `most`."""
    return max(d for d in range(1, most + 1) if number % d == 0)
