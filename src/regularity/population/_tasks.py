"""What to train and what became of it: the records that go to a population and come back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from regularity.data import Data


@dataclass(frozen=True)
class Task:
    """One member to train.

    Args:
        strengths: Strength by key of the site, for every site of the population's model.
        seed: Sets fresh weights, masks and the order of rows.
        epochs: How long to train.
        learning_rate: In place of the optimizer's, or None.
        rows: Rows to train on, or None for all.
        held_out: Sets of rows to score on after each epoch, each set on its own.
        schedules: Name of the schedule by key of each site whose strength changes while training.
        keep_weights: Whether its outcome carries them.
        keep_outputs: Whether its outcome carries what it puts out for its held-out rows at the end, one set after the other.
        stop: Told of its held-out scores after each epoch, and says when it is to stop before all of them; or None.
        epoch_rows: Rows of an epoch, some of them twice, where that is more than there are; else what trains beside it
            decides how long its epochs are.
    """

    strengths: dict[str, float]
    seed: int
    epochs: int
    learning_rate: float | None = None
    rows: np.ndarray | None = None
    held_out: tuple[np.ndarray, ...] = ()
    schedules: Mapping[str, str] = field(default_factory=dict)
    keep_weights: bool = True
    keep_outputs: bool = False
    epoch_rows: int | None = None
    stop: "Stop | None" = None


class Stop(Protocol):
    """What stops a member early."""

    stopped: bool

    def told(self, epoch: int, scores: np.ndarray, diverged: bool) -> None:
        """Take the scores after an epoch, from 1, of (sets, scores)."""


@dataclass
class Outcome:
    """What became of a member; lists and arrays have one entry an epoch.

    Args:
        history: What Keras's `fit` reports.
        norm: Euclidean norm of all kernels.
        zeros: Share of the kernels' entries that are near zero.
        held_out: Scores on the held-out rows, of (sets, scores).
        seen: Scores on as many of the training rows, of (scores,), where the plan asks for them.
        diverged: The epoch, from 1, in which weights or loss ceased to be finite; the weights are the last that were.
        weights: In the order in which the user's model has them, if they were asked for.
        outputs: Arrays of (held-out rows, ...), if they were asked for.
    """

    history: dict[str, list[Any]] = field(default_factory=dict)
    norm: list[float] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)
    held_out: list[np.ndarray] = field(default_factory=list)
    seen: list[np.ndarray] = field(default_factory=list)
    diverged: int | None = None
    weights: list[np.ndarray] | None = None
    outputs: Any = None


# A score of outputs of (members, rows, ...), the rows' numbers and which are not padding, both of (members, rows).
Score = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How a population trains: what all its members share.

    Args:
        data: The rows, or a stream of batches.
        batch_size: Rows of a step.
        shuffle: Whether each member sees its rows in a new order each epoch.
        fresh: Whether weights are drawn anew, or those of the model carried over.
        validation: Rows that `fit` would validate on, or None.
        scores: What to score held-out rows by, each the compiled loss without penalties or a function of the outputs.
        seen: Whether to score training rows besides.
        chunk: Members trained together in one program; None chooses by the size of their state.
        together: Members that come and go together: a chunk is a multiple of that many, or divides it.
        epochs: About how long members train, by which it is decided whether to try sizes of chunks: the same in all runs that
            are to be equal to the bit; None takes a run's own.
        calls: About how often a program is called, by which XLA is told how hard to try: the same in all runs that are to be
            equal to the bit; None counts a run's own.
        full_steps: Whether an epoch ends with a full step, some rows coming twice: half as much to compile.
        longest: Rows of the longest epoch there will be, so that shorter ones are trained by the same program; None compiles
            one for each length.
        checkpoints: A folder for what is in training, or None to lose it when the process is killed.
    """

    data: Any
    batch_size: int = 32
    shuffle: bool = True
    fresh: bool = True
    validation: Data | None = None
    scores: tuple[Score | Literal["loss"], ...] = ()
    seen: bool = False
    chunk: int | None = None
    together: int = 1
    epochs: int | None = None
    calls: int | None = None
    full_steps: bool = False
    longest: int | None = None
    checkpoints: Path | None = None


def epoch_order(seed: int, epoch: int, rows: np.ndarray, longest: int, shuffle: bool) -> np.ndarray:
    """The order in which a member sees its rows in an epoch, of (longest,): some come twice where it has fewer."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(rows) if shuffle else rows
    while len(order) < longest:
        order = np.concatenate([order, random.permutation(rows)[: longest - len(order)]])
    return order
