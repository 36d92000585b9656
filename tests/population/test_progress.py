"""The line that says how far something is: in a log, and below a notebook's cell."""

import importlib.util

import pytest

from regularity.population import _progress


def test_a_log_has_the_first_line_some_in_between_and_the_last(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with _progress.Line(verbose=1) as line:
        for seconds in range(0, 80, 8):
            now[0] = float(seconds)
            line.show(f"after {seconds}")
    assert capsys.readouterr().err.splitlines() == ["after 0", "after 32", "after 64", "after 72"]


@pytest.mark.parametrize("verbose", ["auto", 0, False])
def test_a_log_that_did_not_ask_for_it_has_none(verbose, capsys):
    with _progress.Progress(4, 40, verbose) as progress:
        progress.advance(40)
    assert capsys.readouterr() == ("", "")


def test_time_left_goes_by_what_came_after_compiling(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_progress, "_WRITTEN", 0.0)
    with _progress.Progress(1, 100, 1) as progress:
        for seconds, epochs in ((100, 20), (10, 20), (10, 20)):
            now[0] += seconds
            progress.advance(epochs)
    assert capsys.readouterr().err.splitlines() == [
        "0 of 100 epochs of 1 member",
        "20 of 100 epochs of 1 member",
        "40 of 100 epochs of 1 member, 0:30 left",
        "60 of 100 epochs of 1 member, 0:20 left",
    ]


CELL = """
from concurrent.futures import ThreadPoolExecutor
from regularity.population import _progress
_progress._DRAWN = 0.0
with _progress.Progress(4, 40) as progress, ThreadPoolExecutor(2) as lanes:
    list(lanes.map(progress.advance, [10] * 4))
print("over")
"""


def test_a_notebook_has_one_line_that_is_drawn_over():
    for package in ("nbclient", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; to run this: make test EXTRAS=dev,examples")
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    drawn, printed = notebook.cells[0].outputs
    assert drawn["output_type"] == "display_data"
    assert drawn["data"]["text/plain"].startswith("40 of 40 epochs of 4 members")
    assert printed["text"] == "over\n"
