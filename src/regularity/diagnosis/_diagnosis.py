"""The verdict: which of what was measured makes it, in words, and what to do next, in code. Nothing trains here."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from regularity.study._evidence import Calibration

Verdict = Literal["over", "under", "fine"]

_STILL = 0.05  # share of what was learnt since the first epoch that the last quarter must bring to count as learning
_ALONE = 0.1  # share of what is learnt that may hold for the training rows alone: every network that learns has a gap
_FEW = 10  # held-out rows of a fold below which nothing is sure
_GAIN = 0.01  # share of what was learnt that a training without regularization must add: it is never of no effect
_COST = 0.05  # share of what was learnt that a rise of the held-out loss must undo: with few errors any rise is sure

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
    "train_over_constant": "the same on the rows trained on",
    "train_loss_below_constant": "training loss of always saying the same minus the network's",
    "learnt": "held-out loss of always saying the same, or else after the first epoch, minus where it is lowest",
    "after_best": "held-out loss after all epochs minus where it is lowest",
    "rise_over_training": "how much more the held-out loss has risen since then than the training loss",
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
        ('over', 9, ['rise_over_training', 'last_quarter'])
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


def table_of(
    measured: Mapping[str, tuple[float, float, float]], meanings: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """What was measured, of value and both ends of its interval, in the order of `MEASURES`.

    Args:
        measured: By name.
        meanings: Where they are not those of `MEASURES`.
    """
    meanings = {**MEASURES, **(meanings or {})}
    rows = {name: (*measured[name], meaning) for name, meaning in meanings.items() if name in measured}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "meaning"])


def verdict_of(table: pd.DataFrame) -> Verdict:
    """What the intervals say; what is not in the table says nothing.

    First what a longer training, or less regularization, would bring, whether it learns anything at all, and whether
    another model predicts rows that it has not seen better than this one fits those that it has: until that is mended
    nothing else can be told. Then what is learnt of the training rows alone: it must be much, or cost something.
    """
    above = _above(table)
    if above["without_regularization"] or above["last_quarter"] or above["forest_over_training"]:
        return "under"
    if _learns_nothing(table):
        return "under"
    apart = above["loss_gap"] or above["rise_over_training"]
    if above["gap_share"] or (apart and (above["after_best"] or above["half_the_rows"])):
        return "over"
    return "fine"


def _above(table: pd.DataFrame) -> dict[str, bool]:
    """Which measures lie above 0, or above what counts, by more than their error; what was not measured does not."""

    def learnt(*names: str) -> float:
        """By the first of them that was measured; 0 where that is nothing."""
        return max(0.0, next((float(table["value"][name]) for name in names if name in table.index), 0.0))

    least = {
        "without_regularization": _GAIN * learnt("over_constant", "learnt"),
        "last_quarter": _STILL,
        "gap_share": _ALONE,
        "after_best": _COST * learnt("learnt"),
        "half_the_rows": _COST * learnt("learnt"),
    }
    return {name: name in table.index and bool(table["low"][name] > least.get(name, 0.0)) for name in MEASURES}


def _learns_nothing(table: pd.DataFrame) -> bool:
    """Whether neither score nor loss of the rows trained on is better than always saying the same, by more than chance."""
    names, above = ("train_over_constant", "train_loss_below_constant"), _above(table)
    return names[0] in table.index and not any(above[name] for name in names)


def reasons_of(table: pd.DataFrame, score: str, epochs: int, of: int) -> list[str]:
    """The measured in sentences: what holds for the verdict, and what a reader would ask next.

    Args:
        table: As in a diagnosis.
        score: Its name.
        epochs: After how many the held-out score is best.
        of: How many were trained.
    """
    scored = "held_out_score" in table.index
    what, held, trained = (score, *(("held_out_score", "train_score") if scored else ("held_out_loss", "train_loss")))
    first = (
        f"After {epochs} of {of} epochs, {what} {_said(table, held)} on held-out rows and {_said(table, trained)} on those "
        "trained on."
    )
    return [first, *_of_learning(table, score), *_of_overfitting(table), *_of_references(table, score)]


def _said(table: pd.DataFrame, name: str, form: str = "{:.3g}") -> str:
    """A value with its interval."""
    value, low, high = (form.format(table[column][name]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if table["low"][name] < table["high"][name] else value


def _of_learning(table: pd.DataFrame, score: str) -> list[str]:
    """What it does not learn."""
    above, found = _above(table), []
    if _learns_nothing(table):
        so_far = "So far it" if above["last_quarter"] else "It"
        found.append(
            f"{so_far} learns nothing: not even on the rows trained on is it shown to be better than always saying the same: "
            f"{score} {_said(table, 'train_over_constant', '{:+.3g}')}."
        )
    elif "over_constant" in table.index and not above["over_constant"]:
        found.append(
            "On held-out rows it is not shown to be better than always saying the same: "
            f"{score} {_said(table, 'over_constant', '{:+.3g}')}."
        )
    if above["without_regularization"]:
        found.append(f"Without its regularization {score} is better by {_said(table, 'without_regularization')}.")
    if above["last_quarter"]:
        brings = _said(table, "last_quarter", "{:.0%}")
        found.append(
            f"It still learns: the last quarter of the epochs brings {brings} of what it learnt since the first."
        )
    return found


def _of_overfitting(table: pd.DataFrame) -> list[str]:
    """What it learns of the training rows alone, and what that costs."""
    above, verdict, found = _above(table), verdict_of(table), []
    if verdict == "over" and "gap_share" in table.index:
        if table["value"]["gap_share"] >= 1:
            found.append("Nothing of what it learns of the rows trained on holds for others.")
        else:
            share = _said(table, "gap_share", "{:.0%}")
            found.append(f"{share} of what it learns of the rows trained on does not hold for others.")
    if verdict == "over" and above["after_best"]:
        found.append(f"It trains for too long: the held-out loss ends {_said(table, 'after_best')} above its lowest.")
    if verdict != "under" and "half_the_rows" in table.index:
        changes = f"With half of the rows the held-out loss changes by {_said(table, 'half_the_rows', '{:+.3g}')}"
        seen = (
            "more rows would help"
            if table["low"]["half_the_rows"] > 0
            else "whether more rows would help is not to be seen"
        )
        found.append(f"{changes}: {seen}.")
    return found


def _of_references(table: pd.DataFrame, score: str) -> list[str]:
    """How it stands beside a random forest, and what it learns by heart."""
    above, found = _above(table), []
    if above["forest_over_training"]:
        better = _said(table, "forest_over_training", "{:+.3g}")
        found.append(
            f"A random forest predicts rows that it has not seen better than the network those that it has: {score} {better}."
        )
    elif above["forest"]:
        found.append(f"A random forest is better on held-out rows: {score} {_said(table, 'forest', '{:+.3g}')}.")
    if "random_labels" in table.index:
        found.append(
            f"Labels dealt out at random it learns by heart to {score} {_said(table, 'random_labels')}, where always saying "
            f"the same has {_said(table, 'random_labels_by_chance')}."
        )
    return found


def few_rows(held_out: int) -> list[str]:
    """A sentence where so few rows are held out at a time that intervals are not to be relied on."""
    if held_out >= _FEW:
        return []
    rows = f"{held_out} row{'s are' if held_out > 1 else ' is'}"
    return [f"Only {rows} held out at a time: scores and intervals are rough. Take fewer folds, or more rows."]


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
    if verdict == "under" and _learns_nothing(table) and not above["last_quarter"]:
        return (
            'study = rg.search(model, x, y, {"learning_rate": (1e-5, 1e-1)}, budget="5min")  # is it another rate that it needs?\n'
            "# else inputs and targets of mean 0 and spread 1 (keras.layers.Normalization), or another initialization: units whose\n"
            "# outputs never change, such as dead ReLUs, learn nothing. If all of that is right, x may say nothing of y"
        )
    if verdict == "under" and (above["last_quarter"] or epochs == of):
        return f"rg.diagnose(model, x, y, epochs={2 * of})  # train for longer, then look again"
    if verdict == "under":
        return (
            'study = rg.search(model, x, y, {"learning_rate": (1e-4, 1e-1)}, budget="5min")  # does it learn too slowly?\n'
            "# else more units or layers: regularization helps no network that does not fit its training rows"
        )
    return f"model.fit(x, y, epochs={epochs})"
