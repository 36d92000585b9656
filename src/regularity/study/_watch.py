"""Who sees a search while it runs: the terminal, and those who are told of each trial."""

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

_COMPILING = "compiling"
_FAILURES, _LOST = 2, 60.0  # in a row, and seconds, after which one who is told of trials is told no more


class Watch:
    """A line on standard error: best so far, trials done and under way, time left. Quiet unless it is a terminal, or `verbose` is 0.

    Args:
        score: Name of the score.
        count: Trials to come in all, or None.
        seconds: Seconds to take, or None.
        begun: When the search began, by the monotonic clock.
        verbose: 0 or False for none; `auto` and 1 show it on a terminal.
        tell: Called besides with the number of member-epochs that are done.
    """

    def __init__(
        self,
        score: str,
        count: int | None,
        seconds: float | None,
        begun: float,
        verbose: Any,
        tell: Callable[[int], None] = lambda epochs: None,
    ) -> None:
        console = Console(stderr=True)
        self._tell = tell
        self._score, self._count, self._seconds, self._begun = score, count, seconds, begun
        self._lock, self._epochs, self._text = threading.Lock(), 0, _COMPILING
        disable = not verbose or not console.is_terminal
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True, disable=disable
        )
        self._task = self._progress.add_task("search")

    def advance(self, epochs: int) -> None:
        """Count member-epochs that are done; may be called from any lane."""
        with self._lock:
            self._text = "the first candidates" if self._text == _COMPILING else self._text
            self._epochs += epochs
            self._tell(epochs)
            self._show()

    def told(self, values: Sequence[float], doing: str) -> None:
        """Note the candidates that are finished, by their scores, the first the model as given, and what is being done."""
        known = [value for value in values if np.isfinite(value)]
        failed = len(values) - len(known)
        with self._lock:
            done = f"{len(values)} of {self._count} trials" if self._count else f"{len(values)} trials"
            best = f"best {self._score} {max(known):.4g}" if known else "none finite"
            self._text = f"{best}, as given {values[0]:.4g} · {done}{f', {failed} diverged' if failed else ''}, {doing}"
            self._show()

    @property
    def line(self) -> str:
        """What it shows."""
        spent = time.monotonic() - self._begun
        left = f"{_clock(self._seconds - spent)} left" if self._seconds else f"{_clock(spent)} so far"
        return f"{self._text} · {self._epochs} member-epochs · {left}"

    def _show(self) -> None:
        self._progress.update(self._task, description=self.line)

    def __enter__(self) -> "Watch":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


class Listener:
    """One who is told of trials. A server that is gone must not stop the search: whoever fails twice in a row, or for a minute, is left out.

    Args:
        call: Called with Optuna's study and trial.
    """

    def __init__(self, call: Callable[[Any, Any], Any]) -> None:
        self._call, self._failures = call, 0

    def told(self, study: Any, trial: Any) -> None:
        """Tell of a finished trial, in the words of Optuna's callbacks."""
        if self._failures >= _FAILURES:
            return
        begun = time.monotonic()
        try:
            self._call(study, trial)
            self._failures = 0
        except Exception as error:  # what others look at a search by must not end it
            self._failures = _FAILURES if time.monotonic() - begun > _LOST else self._failures + 1
            left_out = " It is told of no more trials." if self._failures >= _FAILURES else ""
            warnings.warn(
                f"{self._call!r} failed at trial {trial.number}: {type(error).__name__}: {error}. The search goes on.{left_out}",
                stacklevel=2,
            )


class Pace:
    """How fast a process trains, all its lanes at work, without what it compiles before it begins.

    Args:
        compiled: Seconds for which it has compiled before.
    """

    def __init__(self, compiled: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._compiled, self._begun = compiled, time.monotonic()
        self._first = self._last = 0.0
        self._epochs = 0

    def advance(self, epochs: int) -> None:
        """Count member-epochs that are done; may be called from any lane."""
        with self._lock:
            self._last = time.monotonic()
            if self._first:
                self._epochs += epochs
            else:  # how long these took is not known apart from compiling
                self._first = self._last

    @property
    def seconds(self) -> float | None:
        """Seconds a member-epoch, or None before there are some."""
        return (self._last - self._first) / self._epochs if self._epochs else None

    @property
    def compiling(self) -> float:
        """Seconds until the first epochs were done."""
        return self._compiled + (self._first - self._begun if self._first else 0.0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(int(seconds), 0), 60)
    return f"{minutes}:{rest:02d}"
