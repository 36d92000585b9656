"""Warnings that are expected and say nothing to a user."""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Together:
    """A context of the whole process, which threads share: the first to enter sets it up, the last to leave takes it down.

    Each on its own would undo it under the others: a search, and the report that is drawn beside it.

    Args:
        make: Makes the context.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0
        self._context: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


_FILTERS = Together(warnings.catch_warnings)


@contextlib.contextmanager
def ignoring(*filters: Mapping[str, Any]) -> Iterator[None]:
    """Ignore some warnings, each as `warnings.filterwarnings` takes it; of threads that do, until the last is done."""
    with _FILTERS:
        for each in filters:
            warnings.filterwarnings("ignore", **each)
        yield
