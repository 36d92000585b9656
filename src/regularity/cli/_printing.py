"""What the command line prints: in colour and folded on a terminal, plain where it goes to a file or a pipe."""

import io
import json
import math
import sys
from typing import Any, Literal

import typer

WIDEST = 400  # columns of a table that no terminal shows


def pm(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}"


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def records(table: Any, orient: Literal["records", "index"] = "records") -> Any:
    """The rows of a table for `print_json`, in full precision; what is no finite number is None.

    Args:
        table: A frame of pandas.
        orient: `records` for a list of rows, `index` for rows by their names.
    """

    def known(row: dict[Any, Any]) -> dict[str, Any]:
        return {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }

    found = table.to_dict(orient=orient)  # `to_json` of pandas rounds to ten decimals
    return {str(name): known(row) for name, row in found.items()} if orient == "index" else [known(r) for r in found]


def escape_what_pipes_lack() -> None:
    """Let a file or a pipe have an escape for a sign that its encoding lacks: an error would come after the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(errors="backslashreplace")


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False)  # names and patterns of the user's have brackets
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = WIDEST
    shown = str if console.is_terminal else as_ascii
    table = Table(title=shown(title), title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2)
    for name in header:
        table.add_column(shown(name), overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table)


def say(line: str) -> None:
    typer.echo(line if sys.stdout.isatty() else as_ascii(line))


def as_ascii(text: str) -> str:
    """What a file or a pipe gets, whatever its encoding: signs of ours in ASCII; names of the user's stay."""
    return text.translate({ord("±"): "+-", ord("²"): "2", ord("×"): "x"})


def mark(path: Any, row: Any) -> str:
    """Which of a path's choices a row of its table is."""
    marks = [
        word
        for word, point in (("best", path.best), ("answer", path.one_se))
        if row["name"] == point.name and (point.name or row["strength"] == point.strength)
    ]
    return ", ".join(marks)
