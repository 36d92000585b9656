"""Who sees a search while it runs: the terminal, and those who are told of each trial."""

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from regularity.population._progress import Line, clock

_COMPILING = "compiling"
_FAILURES, _LOST = 2, 60.0  # in a row, and seconds, after which one who is told of trials is told no more


class Watch:
    """A line of how far a search is: best so far, trials done and under way, time left.

    Args:
        score: Name of the score.
        count: Trials to come in all, or None.
        seconds: Seconds to take, or None.
        begun: When the search began, by the monotonic clock.
        verbose: As of a `Line`.
        tell: Called besides with all that it is told, as JSON has it, for the watch of another process to `take`.
    """

    def __init__(
        self,
        score: str,
        count: int | None,
        seconds: float | None,
        begun: float,
        verbose: Any,
        tell: Callable[[Any], None] = lambda said: None,
    ) -> None:
        self._tell, self._line = tell, Line(verbose)
        self._score, self._count, self._seconds, self._begun = score, count, seconds, begun
        self._lock, self._epochs, self._text = threading.Lock(), 0, _COMPILING
        self._values: list[float] = []
        self._first: tuple[float, int] | None = None  # when it was told of trials that took no time, and of how many
        self._asks = False  # whether there are trials in training

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
            self._tell([[float(value) for value in values[len(self._values) :]], doing])  # what is new
            if self._first is None or not self._epochs:  # those that an earlier run has left take no time
                self._first = (time.monotonic(), len(values))
            self._values, self._asks = list(values), doing[:1] in "123456789"
            self._show()

    def take(self, said: Any) -> None:
        """Take what the watch of another process was told."""
        if isinstance(said, int):
            self.advance(said)
        else:
            new, doing = said
            self.told([*self._values, *new], doing)

    @property
    def line(self) -> str:
        """What it shows."""
        spent = time.monotonic() - self._begun
        left = f"{clock(self._seconds - spent)} left" if self._seconds else f"{clock(spent)} so far{self._ahead}"
        return f"{self._text} · {left} · {self._epochs} member-epochs"  # a narrow terminal cuts off what comes last

    @property
    def _ahead(self) -> str:
        """How long the trials to come take, as fast as those since the first were told of."""
        begun, first = self._first or (0.0, 0)
        done, count = len(self._values) - first, self._count or 0
        if done <= 0 or not self._asks or len(self._values) >= count:
            return ""
        seconds = (time.monotonic() - begun) / done * (count - len(self._values))
        return f", {clock(seconds)} to the last trial"

    def _show(self) -> None:
        self._line.show(self.line)

    def __enter__(self) -> "Watch":
        self._line.__enter__()
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self._line.__exit__(*error)


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


class Ending:
    """What a callback of Optuna's calls to end the search, in place of its study's own, which wants `optimize`; it can be pickled."""

    asked = False

    def __call__(self) -> None:
        self.asked = True


class Pace:
    """How fast a process trains, all its lanes at work, without what it compiles before it begins.

    Args:
        compiled: Seconds for which it has compiled before.
        seconds: A member-epoch, until there are some.
    """

    def __init__(self, compiled: float = 0.0, seconds: float | None = None) -> None:
        self._lock = threading.Lock()
        self._compiled, self._seconds, self._begun = compiled, seconds, time.monotonic()
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
        """Seconds a member-epoch, or None where nothing is known of it."""
        return (self._last - self._first) / self._epochs if self._epochs else self._seconds

    @property
    def compiling(self) -> float:
        """Seconds until the first epochs were done."""
        return self._compiled + (self._first - self._begun if self._first else 0.0)
