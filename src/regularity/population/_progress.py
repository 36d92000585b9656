"""How far something is: a line on standard error."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

_WRITTEN = 30.0  # seconds between two lines in a log
_DRAWN = 0.5  # and between two drawings below a notebook's cell


class Line:
    """A line that is drawn over, on a terminal or below a notebook's cell; elsewhere a new one now and then.

    Args:
        verbose: 0 or False for none, `auto` for a terminal and a notebook alone, 1 for anywhere.
        total: Of what `show` is told is done, for a bar; None for a spinner.
    """

    def __init__(self, verbose: Any, total: int | None = None) -> None:
        console = Console(stderr=True)
        terminal = bool(verbose) and console.is_terminal
        self._write: Callable[[str], None] | None = None  # where nothing draws it by itself
        if verbose and console.is_jupyter:
            self._write, self._every = self._in_notebook, _DRAWN
        elif verbose and verbose != "auto" and not terminal:
            self._write, self._every = self._in_log, _WRITTEN
        self._text, self._due = "", 0.0
        self._handle: Any = None
        column = SpinnerColumn() if total is None else BarColumn()
        self._drawn = Bars(
            column, TextColumn("{task.description}"), console=console, transient=True, disable=not terminal
        )
        self._task = self._drawn.add_task("", total=total)

    def show(self, text: str, done: int = 0) -> None:
        """Say how far it is."""
        self._drawn.update(self._task, description=text, completed=done)
        self._text = text
        if self._write is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self._write(text)
            self._text = ""

    def _in_log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _in_notebook(self, text: str) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)

    def __enter__(self) -> "Line":
        self._drawn.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._drawn.stop()
        if self._write is not None and self._text:  # the last that was said
            self._write(self._text)


class Progress:
    """How far a population is: members, member-epochs done, time left.

    Args:
        members: How many train.
        epochs: How many member-epochs that is.
        verbose: As of a `Line`.
    """

    def __init__(self, members: int, epochs: int, verbose: Any = "auto") -> None:
        self._lock, self._line = threading.Lock(), Line(verbose, epochs)
        self._of = f"{epochs} epochs of {members} member{'s' * (members != 1)}"
        self._epochs, self._done, self._first = epochs, 0, (0, 0.0)
        self._line.show(f"0 of {self._of}")

    def advance(self, epochs: int) -> None:
        """Count member-epochs that are done; may be called from any lane."""
        with self._lock:
            self._done += epochs
            done, begun = self._first
            if not begun:  # what came before was compiled, too
                self._first = self._done, time.monotonic()
            more = self._done - done if begun else 0
            left = (self._epochs - self._done) * (time.monotonic() - begun) / more if more else None
            said = f"{self._done} of {self._of}" + (f", {clock(left)} left" if left is not None else "")
            self._line.show(said, self._done)

    def __enter__(self) -> "Progress":
        self._line.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._line.__exit__(*error)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    return f"{minutes}:{rest:02d}"
