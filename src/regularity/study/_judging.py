"""The networks that say what a choice is worth: what is chosen without a fold, trained without it and scored on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from regularity.population._tasks import Outcome, Task
from regularity.study._cells import Design
from regularity.study._members import Members
from regularity.study._records import Judged, Settled
from regularity.study._rule import Trial
from regularity.study._store import Store

_SEEDS = 3
_SEEDS_OF_ONE = 5  # where there is one training set, whose seeds are all that tells how lucky they are,
_AVERAGED = 3  # and so many at least: as many as are averaged


class Network(NamedTuple):
    """One network that is judged.

    Args:
        trial: The index of its candidate.
        epochs: How long it trains.
        cell: The number of its training set.
        seed: Which of those that are like it but for the seed, from 0.
    """

    trial: int
    epochs: int
    cell: int
    seed: int


def seeds_to_judge(design: Design) -> tuple[int, int]:
    """How many networks of each contestant are judged on a training set: at least, and if there is time."""
    return (1, _SEEDS) if len(design.outer) > 1 else (_AVERAGED, _SEEDS_OF_ONE)


class Judging:
    """All networks that are to be judged: those that are kept, and those that are to be trained.

    Args:
        settled: What the search goes by.
        store: Where their scores are kept.
        members: What makes tasks of them.
        trials: All candidates.
        contestants: For each fold, by role, the trial's index and its epochs.
        answer: What is chosen by all folds, likewise, whose networks' weights are kept.
    """

    def __init__(
        self,
        settled: Settled,
        store: Store,
        members: Members,
        trials: Sequence[Trial],
        contestants: Sequence[Mapping[str, tuple[int, int]]],
        answer: tuple[int, int],
    ) -> None:
        self._store, self._members, self._trials = store, members, trials
        self._contestants, self._answer, self._design = contestants, answer, settled.design
        outer = self._design.outer
        wanted: dict[tuple[int, int, int], None] = {}
        for c, cell in enumerate(outer):
            for fold in cell.held:
                wanted.update(dict.fromkeys((*contestant, c) for contestant in contestants[fold].values()))
            wanted[(*answer, c)] = None
        self.wanted = list(wanted)  # trials, epochs and cells, each with as many seeds as there is time for
        # for the average: a network of each training set, or some of the only one
        i, e = answer
        self._names = {
            (c, s): f"{trials[i].number}-{e}-{c}{f'-{s}' if s else ''}"
            for c in range(len(outer))
            for s in range(1 if len(outer) > 1 else _AVERAGED)
        }
        self._weights = {at: store.weights(name) for at, name in self._names.items()}
        self._score = settled.plan.scores[0]
        self._averaged = f"averaged {trials[i].number} {e}"
        self._gains_unknown = self._score != "loss" and store.noted(self._averaged) is None
        self._outcomes: dict[tuple[int, int], Outcome] = {}  # the answer's, with what they put out, by cell and seed

    def missing(self, seeds: int) -> list[Network]:
        """Which networks are to be trained, for so many seeds."""
        return [
            network
            for wanted in self.wanted
            for s in range(seeds)
            if self._kept(network := Network(*wanted, s)) is None
            or self._lost(network)
            or (self._wants_outputs(network) and seeds >= _AVERAGED and (network.cell, s) not in self._outcomes)
        ]

    def tasks(self, networks: Sequence[Network]) -> list[Task]:
        """What trains them."""
        found = []
        for network in networks:
            i, e, c, s = network
            keep, number = self._is_answer(network) and (c, s) in self._names, 500_000 + c * 1000 + s
            cells = [(self._design.outer[c], number)]
            found += self._members.tasks(self._trials[i].recipe, cells, e, keep, self._wants_outputs(network))
        return found

    def take(self, networks: Sequence[Network], outcomes: Sequence[Outcome]) -> None:
        """Keep what became of them."""
        for network, outcome in zip(networks, outcomes, strict=True):
            at = network.cell, network.seed
            if outcome.outputs is not None:
                self._outcomes[at] = outcome
            if outcome.weights is not None and outcome.diverged is None:  # else they are of no use
                self._weights[at] = outcome.weights
                self._store.keep_weights(self._names[at], outcome.weights)
            if outcome.diverged is not None:
                self._store.note(f"diverged {self._key(network)}", outcome.diverged)
            scores = outcome.held_out[-1][:, 0]  # one may overflow before the network diverges
            self._store.note(f"judged {self._key(network)}", np.where(np.isfinite(scores), scores, np.nan).tolist())

    def seeds_kept(self, most: int) -> int:
        """How many seeds of all that are wanted an earlier run has judged."""
        return min(sum(self._kept(Network(*each, s)) is not None for s in range(most)) for each in self.wanted)

    def judged(self, seeds: int) -> Judged:
        """The contestants with the scores of their networks on each fold."""
        found = {role: np.full((len(self._contestants), seeds), np.nan) for role in self._contestants[0]}
        for c, cell in enumerate(self._design.outer):
            for place, fold in enumerate(cell.held):
                for role, (i, e) in self._contestants[fold].items():
                    kept = [self._kept(Network(i, e, c, s)) for s in range(seeds)]
                    found[role][fold] = [np.nan if scores is None else scores[place] for scores in kept]
        return Judged(self._contestants, found)

    def gains(self, seeds: int) -> np.ndarray | None:
        """What averaging networks of one training set gains over one of them, on each fold: NaN where one diverged.

        Known once all is taken, and kept then; None of a loss, and where there are fewer seeds than are averaged.
        """
        if self._score == "loss" or seeds < _AVERAGED:
            return None
        if self._gains_unknown:
            self._store.note(self._averaged, self._gains_by_fold())
        return np.array(self._store.noted(self._averaged), "float64")

    @property
    def weights(self) -> list[tuple[int, list[np.ndarray]]]:
        """Those of the answer's networks, beside the number of the cell; what diverged is left out."""
        return [(c, weights) for (c, _), weights in self._weights.items() if weights is not None]

    def _gains_by_fold(self) -> list[float | None]:
        score: Any = self._score
        found: list[float | None] = [None] * len(self._design.folds)
        for c, cell in enumerate(self._design.outer):
            finite = [o for (of, _), o in sorted(self._outcomes.items()) if of == c and o.diverged is None]
            if len(finite) < _AVERAGED:
                continue
            mean, begin = np.mean([outcome.outputs for outcome in finite], 0), 0
            for place, fold in enumerate(cell.held):
                rows = self._design.folds[fold]
                of_fold = mean[None, begin : begin + len(rows)]
                begin += len(rows)
                together = float(score(of_fold, rows[None], np.ones((1, len(rows)), bool))[0])
                gain = together - float(np.mean([outcome.held_out[-1][place, 0] for outcome in finite]))
                found[fold] = gain if math.isfinite(gain) else None
        return found

    def _is_answer(self, network: Network) -> bool:
        return (network.trial, network.epochs) == self._answer

    def _wants_outputs(self, network: Network) -> bool:
        """Whether what a network puts out is wanted, to be averaged."""
        return self._is_answer(network) and self._gains_unknown and network.seed < _AVERAGED

    def _lost(self, network: Network) -> bool:
        """Whether a network that is to be averaged has been judged, but its weights are gone; one that diverged has none."""
        at = network.cell, network.seed
        wanted = self._is_answer(network) and at in self._names and self._weights[at] is None
        return wanted and self._store.noted(f"diverged {self._key(network)}") is None

    def _kept(self, network: Network) -> list[float] | None:
        """A network's score on each fold of its cell, if it is known."""
        return self._store.noted(f"judged {self._key(network)}")

    def _key(self, network: Network) -> str:
        i, e, c, s = network
        return f"{self._trials[i].number} {e} {c} {s}"
