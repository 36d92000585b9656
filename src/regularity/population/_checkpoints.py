"""Chunks in training, on disk: a process that is killed goes on with them from there, to the bit."""

import hashlib
import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import regularity
from regularity.population._tasks import Task

_FORMAT = 2  # of what is saved
_EVERY = 30.0  # seconds between two of a chunk: one that trains faster than this is never written


class Checkpoint:
    """Where one chunk's training stands on disk.

    Args:
        folder: Of a study, or None to write nothing.
        tasks: The members of the chunk, which name its file.
    """

    def __init__(self, folder: Path | None, tasks: Sequence[Task]) -> None:
        self._file = None if folder is None else folder / f"{_name(tasks)}.pickle"
        self._written = time.monotonic()

    def load(self) -> Any:
        """What was last saved, or None; what can't be read was not written to its end by this version, and is left."""
        if self._file is None or not self._file.exists():
            return None
        try:
            return pickle.loads(self._file.read_bytes())
        except Exception:  # pickle raises anything
            return None

    @property
    def is_due(self) -> bool:
        """Whether it is long enough ago that something was saved, or the chunk began."""
        return self._file is not None and time.monotonic() - self._written >= _EVERY

    def is_worth_it(self, begun: float) -> bool:
        """Whether to save what is done, as part of a job that began then: something is saved already, or it trains for long."""
        return self._file is not None and (self._file.exists() or time.monotonic() - begun >= _EVERY)

    def save(self, value: Any) -> None:
        """Put a value in the place of the last one, whole or not at all."""
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}")
        partial.write_bytes(pickle.dumps(value, protocol=5))
        partial.replace(self._file)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _name(tasks: Sequence[Task]) -> str:
    """A name for some members that others don't have."""
    found = hashlib.sha256(f"{regularity.__version__} {_FORMAT}".encode())
    for task in tasks:
        settings = (task.seed, task.epochs, task.learning_rate, task.keep_weights, task.keep_outputs)
        found.update(repr((settings, sorted(task.strengths.items()), sorted(task.schedules.items()))).encode())
        for rows in (task.rows, *task.held_out):
            found.update(b"|" if rows is None else np.ascontiguousarray(rows, "int64").tobytes() + b"|")
    return found.hexdigest()[:32]
