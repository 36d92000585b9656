"""Progress of a population on the terminal."""

import threading
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """A line on standard error: members, member-epochs done, time left. Quiet unless it is a terminal, or `verbose` is 0.

    Args:
        members: How many train.
        epochs: How many member-epochs that is.
        verbose: 0 or False for none; `auto` and 1 show it on a terminal.
    """

    def __init__(self, members: int, epochs: int, verbose: Any = "auto") -> None:
        console = Console(stderr=True)
        self._lock = threading.Lock()
        self._bars = Bars(
            TextColumn(f"training {members} member{'s' * (members != 1)}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not verbose or not console.is_terminal,
        )
        self._bar = self._bars.add_task("", total=epochs)

    def advance(self, epochs: int) -> None:
        """Count member-epochs that are done; may be called from any lane."""
        with self._lock:
            self._bars.advance(self._bar, epochs)

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
