"""A study under way, as far as it goes: from what is kept of it, whatever process trains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from regularity.study._members import Members
from regularity.study._records import Found, Judged, Settled
from regularity.study._rule import choose, standing, weights_of
from regularity.study._store import Store
from regularity.study._study import Study


class Unfinished:
    """What a search has found up to now.

    Args:
        model: The user's.
        settled: What the search goes by.
        store: Where it keeps its trials.
        score: Name of the score.
        fit: How the answer is to be trained.
    """

    def __init__(self, model: Any, settled: Settled, store: Store, score: str, fit: Mapping[str, Any]) -> None:
        self.name = store.name
        self._model, self._settled, self._store, self._score, self._fit = model, settled, store, score, fit
        self._members = Members(model, settled)

    @property
    def finished(self) -> int:
        """How many trials are."""
        return len(self._store.trials())

    def study(self) -> Study | None:
        """The study with the trials that are finished, which nothing has judged; None before there is something to say."""
        kept, settled = self._store.trials(), self._settled
        trials = [kept[number] for number in sorted(kept)]
        if not trials or trials[0].number != 0:  # the model as given is what all are measured against
            return None
        for trial in trials:
            self._members.tell_kind(trial)
        encoded = np.array([settled.space.encoded(trial.point) for trial in trials])
        at = standing(trials, settled.design, encoded, weights_of(len(settled.plan.scores)))
        try:
            choice = choose(trials, at, settled.design.candidates_share)
        except ValueError:  # all have diverged up to now
            return None
        found = Found(trials, at, choice, Judged([], {}), None, [])
        return Study(
            self.name, self._score, self._store.where, found, settled, self._model, self._fit, self._store.record
        )
