"""Warnings that are expected and say nothing to a user: ignored by one thread at a time."""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

# Filters are the whole process's: of two threads that set them, as a search and the report that is drawn beside it do,
# the first to be done would bring back those of before under the other.
_CHANGING = threading.RLock()


@contextlib.contextmanager
def ignoring(*filters: Mapping[str, Any], long: bool = False) -> Iterator[None]:
    """Ignore some warnings.

    Args:
        *filters: What `warnings.filterwarnings` takes.
        long: Whether other threads may ignore theirs meanwhile, and be done before: for all of a search, not for a call.
    """
    before = warnings.catch_warnings()
    with contextlib.ExitStack() as changing:
        changing.enter_context(_CHANGING)
        before.__enter__()
        for each in filters:
            warnings.filterwarnings("ignore", **each)
        if long:
            changing.close()
        try:
            yield
        finally:
            with _CHANGING:
                before.__exit__(None, None, None)
