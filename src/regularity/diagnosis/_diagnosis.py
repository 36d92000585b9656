"""The verdict: which of what was measured makes it, in words, and what to do next, in code. Nothing trains here."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd

from regularity.study._evidence import Calibration

Verdict = Literal["over", "under", "fine"]

_STILL = 0.05  # share of what was learnt since the first epoch that the last quarter must bring to count as learning
_ALONE = 0.1  # share of what is learnt that may hold for the training rows alone: every network that learns has a gap
_FEWEST = 8  # epochs of a single run, to tell what its curves do from how they scatter

# What the table has, in this order. `low` and `high` are the ends of a 90 % interval: `low` above 0 is a one-sided test at 5 %.
MEASURES = {
    "held_out_score": "score on rows that were held out",
    "train_score": "score on the rows trained on",
    "gap": "training score minus held-out score",
    "held_out_loss": "loss on rows that were held out, without penalties",
    "train_loss": "loss on the rows trained on, without penalties",
    "loss_gap": "held-out loss minus training loss",
    "gap_share": "share of what it learns of the training rows that does not hold for others",
    "over_constant": "held-out score minus that of always saying the same",
    "after_best": "held-out loss after all epochs minus where it is lowest",
    "last_quarter": "share of what was learnt since the first epoch that the last quarter of the epochs brings",
    "half_the_rows": "held-out loss with half of the rows minus with all of them",
    "without_regularization": "held-out score with every strength at 0 minus as given",
    "forest": "held-out score of a random forest minus the network's",
    "forest_over_training": "held-out score of a random forest minus the network's on the rows trained on",
    "random_labels": "score on training rows whose labels were dealt out at random",
    "random_labels_by_chance": "the same of always saying the same",
    "effective_parameters": "numbers fitted, by what the gap says",
    "parameters": "numbers trained",
    "sharpness": "rise of the training loss when each kernel is moved by a random twentieth of its norm",
}


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Whether a network overfits, underfits, or neither; made by `rg.diagnose`.

    Args:
        verdict: `over`: it learns what holds for its training rows alone, and that costs. `under`: it could learn more of
            what holds for others too. `fine`: neither is to be seen with these rows.
        reasons: What the verdict rests on, a sentence each.
        next: What to do, as Python.
        score_name: How rows were scored; higher is better.
        epochs: After how many the held-out score is best on the mean curve.
        table: What was measured, a row each, as `value`, the ends `low` and `high` of its 90 % interval, and `meaning`.
        curves: Scores and losses after each epoch: `model`, `epoch`, `held_out`, `train`, `held_out_loss`, `train_loss`.
        shares: The same by share of the rows trained on: `share`, `rows`, `held_out`, `train`, `held_out_loss`,
            `train_loss`, each after the number of epochs that suits it, and `error` of the held-out score.
        calibration: How far what it predicts of held-out rows can be taken at its word; None where that has no meaning.
        weights: A row for each kernel, with `norm`, `spectral_norm` and share of `zeros`.

    Example:
        >>> import numpy as np, regularity as rg
        >>> epochs = np.arange(20)
        >>> diagnosis = rg.diagnose({"loss": 1 - epochs / 20, "val_loss": 1 + (epochs / 20 - 0.4) ** 2})
        >>> diagnosis.verdict, diagnosis.epochs, diagnosis.table.index.tolist()[-2:]
        ('over', 9, ['after_best', 'last_quarter'])
        >>> print(diagnosis.next.splitlines()[1])
        model.fit(x, y, epochs=9)  # where held-out rows are best, without any
    """

    verdict: Verdict
    reasons: Sequence[str]
    next: str
    score_name: str
    epochs: int
    table: pd.DataFrame
    curves: pd.DataFrame
    shares: pd.DataFrame
    calibration: Calibration | None
    weights: pd.DataFrame

    def __str__(self) -> str:
        """The verdict with what it rests on, and what to do next."""
        return "\n".join([self._answer, *(f"- {reason}" for reason in self.reasons), "", "Next:", self.next])

    def __repr__(self) -> str:
        return f"<Diagnosis: {self.verdict}>"

    @property
    def _answer(self) -> str:
        words = {
            "over": "It overfits.",
            "under": "It underfits.",
            "fine": "It fits as it should, as far as these rows can tell.",
        }
        return words[self.verdict]

    def _repr_html_(self) -> str:
        """The same with the picture, as a notebook shows it."""
        picture = base64.b64encode(self.plot()._repr_png_()).decode()
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        return (
            f"<p><b>{self._answer}</b></p><ul>{reasons}</ul><pre>{html.escape(self.next)}</pre>"
            f'<img src="data:image/png;base64,{picture}" alt="Learning curves by epoch and by share of the rows">'
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss by epoch, the score by share of the rows, and the calibration, where they are known.

        Args:
            ax: As many matplotlib axes as are known, or None for a new figure, to save or to be shown by a notebook.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If `ax` are more or fewer.
        """
        from regularity.report.figures import plot_diagnosis

        return plot_diagnosis(self, ax)


def table_of(measured: Mapping[str, tuple[float, float, float]]) -> pd.DataFrame:
    """What was measured, of value and both ends of its interval, in the order of `MEASURES`."""
    rows = {name: (*measured[name], meaning) for name, meaning in MEASURES.items() if name in measured}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "meaning"])


def verdict_of(table: pd.DataFrame) -> Verdict:
    """What the intervals say; what is not in the table says nothing.

    First what a longer training, or less regularization, would bring, and whether another model predicts rows that it has
    not seen better than this one fits those that it has: until that is mended nothing else can be told. Then what is learnt
    of the training rows alone: it must be much, or cost something.
    """
    above = _above(table)
    if above["without_regularization"] or above["last_quarter"] or above["forest_over_training"]:
        return "under"
    if above["gap_share"] or (above["loss_gap"] and (above["after_best"] or above["half_the_rows"])):
        return "over"
    return "fine"


def _above(table: pd.DataFrame) -> dict[str, bool]:
    """Which measures lie above 0, or above what counts, by more than their error; what was not measured does not."""
    least = {"last_quarter": _STILL, "gap_share": _ALONE}
    return {name: name in table.index and bool(table["low"][name] > least.get(name, 0.0)) for name in MEASURES}


def reasons_of(table: pd.DataFrame, score: str, epochs: int, of: int) -> list[str]:
    """The measured in sentences: what holds for the verdict, and what a reader would ask next.

    Args:
        table: As in a diagnosis.
        score: Its name.
        epochs: After how many the held-out score is best.
        of: How many were trained.
    """

    def said(name: str, form: str = "{:.3g}") -> str:
        value, low, high = (form.format(table[column][name]) for column in ("value", "low", "high"))
        return f"{value} [{low}, {high}]" if table["low"][name] < table["high"][name] else value

    above, verdict = _above(table), verdict_of(table)
    what, held, trained = (
        (score, "held_out_score", "train_score")
        if "held_out_score" in table.index
        else ("loss", "held_out_loss", "train_loss")
    )
    found = [
        f"After {epochs} of {of} epochs, {what} {said(held)} on held-out rows and {said(trained)} on those trained on."
    ]
    if "over_constant" in table.index and not above["over_constant"]:
        found.append(
            f"Always saying the same predicts held-out rows as well: {score} {said('over_constant', '{:+.3g}')}."
        )
    if above["without_regularization"]:
        found.append(f"Without its regularization {score} is better by {said('without_regularization')}.")
    if above["last_quarter"]:
        found.append(
            f"It still learns: the last quarter of the epochs brings {said('last_quarter', '{:.0%}')} of what it learnt since the first."
        )
    if verdict == "over" and "gap_share" in table.index:
        found.append(
            f"{said('gap_share', '{:.0%}')} of what it learns of the rows trained on does not hold for others."
        )
    if verdict == "over" and above["after_best"]:
        found.append(f"It trains for too long: the held-out loss ends {said('after_best')} above its lowest.")
    if verdict != "under" and "half_the_rows" in table.index:
        more = "more rows would help" if above["half_the_rows"] else "whether more rows would help is not to be seen"
        found.append(f"With half of the rows the held-out loss changes by {said('half_the_rows', '{:+.3g}')}: {more}.")
    if above["forest_over_training"]:
        better = said("forest_over_training", "{:+.3g}")
        found.append(
            f"A random forest predicts rows that it has not seen better than the network those that it has: {score} {better}."
        )
    elif above["forest"]:
        found.append(f"A random forest is better on held-out rows: {score} {said('forest', '{:+.3g}')}.")
    if "random_labels" in table.index:
        found.append(
            f"Labels dealt out at random it learns by heart to {score} {said('random_labels')}, where always saying the same has "
            f"{said('random_labels_by_chance')}."
        )
    return found


def next_of(verdict: Verdict, table: pd.DataFrame, epochs: int, of: int, brought: Sequence[str]) -> str:
    """What to do, as code."""
    above = _above(table)
    if verdict == "over":
        lines = [
            'study = rg.search(model, x, y, budget="5min")  # which regularization, how strong, and whether it is real'
        ]
        if epochs < of:
            lines.append(f"model.fit(x, y, epochs={epochs})  # where held-out rows are best, without any")
        return "\n".join(lines)
    if verdict == "under" and above["without_regularization"]:
        if len(brought) == 1:
            return f'rg.path(model, x, y, technique="{brought[0]}").plot()  # how much of it is right'
        return f'study = rg.search(model, x, y, {list(brought)}, budget="5min")  # how much of each is right'
    if verdict == "under" and (above["last_quarter"] or epochs == of):
        return f"rg.diagnose(model, x, y, epochs={2 * of})  # train for longer, then look again"
    if verdict == "under":
        return (
            'study = rg.search(model, x, y, {"learning_rate": (1e-4, 1e-1)}, budget="5min")  # does it learn too slowly?\n'
            "# else more units or layers: regularization helps no network that does not fit its training rows"
        )
    return f"model.fit(x, y, epochs={epochs})"


def of_history(history: Any) -> Diagnosis:
    """The verdict that the curves of one run allow; errors are those of its own scatter, and say nothing of other rows.

    Args:
        history: What `fit` returned, or its dict.

    Raises:
        ValueError: If it has no losses of training and validation, or less than eight epochs of them.
    """
    logs = dict(getattr(history, "history", history))
    if not {"loss", "val_loss"} <= set(logs):
        raise ValueError(
            "Expected a history with `loss` and `val_loss`: fit with `validation_data` or `validation_split`. "
            f"Received: {sorted(map(str, logs))}"
        )
    train, held = (np.asarray(logs[name], "float64") for name in ("loss", "val_loss"))
    known = np.isfinite(train) & np.isfinite(held)
    count = len(known) if known.all() else int(known.argmin())
    if count < _FEWEST:
        raise ValueError(
            f"Expected at least {_FEWEST} epochs with finite losses, to tell a trend from scatter. Received: {count}"
        )
    train, held = train[:count], held[:count]
    width = max(3, count // 8)  # epochs over which curves are averaged

    def scatter(curve: np.ndarray) -> float:
        """Standard error of such an average, by how its last half jumps from epoch to epoch."""
        return float(np.std(np.diff(curve[-max(_FEWEST, count // 2) :]), ddof=1)) / np.sqrt(2 * width)

    def measured(value: float, error: float, among: float = 1.0) -> tuple[float, float, float]:
        """The value with its interval, so wide that it holds for the most extreme of as many."""
        reach = NormalDist().inv_cdf(1 - 0.05 / among) * error
        return value, value - reach, value + reach

    smooth, fitted = (np.convolve(curve, np.ones(width) / width, "valid") for curve in (held, train))
    at, end, error = int(smooth.argmin()), len(smooth) - 1, scatter(held)
    learnt = abs(float(held[0] - smooth[at])) or 1.0
    quarter = float(smooth[max(0, end - count // 4)] - smooth[end]) / learnt
    apart = np.sqrt(2) * error if at + width <= end else np.inf  # averages over the same epochs tell no rise
    table = table_of(
        {
            "held_out_loss": measured(float(smooth[end]), error),
            "train_loss": measured(float(fitted[end]), scatter(train)),
            "loss_gap": measured(float(smooth[end] - fitted[end]), float(np.hypot(error, scatter(train)))),
            "after_best": measured(float(smooth[end] - smooth[at]), apart, count / width),
            "last_quarter": measured(quarter, np.sqrt(2) * error / learnt),
        }
    )
    epochs = min(count, at + width // 2 + 1)
    curves = pd.DataFrame(
        {"model": "as given", "epoch": np.arange(1, count + 1), "held_out_loss": held, "train_loss": train}
    )
    verdict = verdict_of(table)
    reasons = [
        *reasons_of(table, "loss", epochs, count),
        "One run: with model and rows `rg.diagnose(model, x, y)` says more, and how sure it is.",
    ]
    nothing = pd.DataFrame()
    return Diagnosis(
        verdict,
        reasons,
        next_of(verdict, table, epochs, count, []),
        "loss",
        epochs,
        table,
        curves,
        nothing,
        None,
        nothing,
    )
