"""Which candidates to train next: the first ones by a plan, the others as Optuna's sampler suggests them.

The sampler has a study of its own in memory, the mirror of the one that is kept: by a database it would take ten times as
long to suggest one. When a search goes on, its last candidates are suggested once more, by what was known when they first
were, so that it goes on as one that was never stopped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regularity.recipe import Recipe
from regularity.study._members import Members
from regularity.study._pruning import Stop
from regularity.study._records import Settled
from regularity.study._rule import Trial, reported
from regularity.study._space import Space
from regularity.study._store import quiet_optuna

Candidate = tuple[str, dict[str, Any]]  # name and point

_COMBINED = 8  # candidates of several techniques at random, at least, before the sampler learns from what it has seen
_LATER = 40  # the candidate from which on each technique is tried alone once more
_OTHER_PLACES = (0.25, 0.75)  # where in its range


class Asking:
    """A sampler, and a pruner if there is one, with the candidates that they have been told of; `plan` comes first.

    Args:
        settled: What the search goes by.
        members: What knows which candidates the space has.
        given: The strengths that the model brings.
        kept: Candidates of an earlier run, by number.
    """

    def __init__(self, settled: Settled, members: Members, given: Mapping[str, Any], kept: Mapping[int, Trial]) -> None:
        import optuna

        self.exhausted = False  # whether the sampler has no more
        self.kept = kept
        self._members, self._given = members, given
        self._space, self._seed, self._ring = settled.space, settled.seed, len(settled.design.rings[0])
        self._is_ours, self._prunes = settled.sampler is None, settled.pruner is not None
        self._planned: dict[int, Candidate] = {}
        self._in_sight = 0  # of the last candidates that are kept, how many a new one may have been asked for beside
        self._in_mirror: dict[int, int] = {}  # a candidate's number there, by ours
        self._asked: dict[int, Any] = {}  # Optuna's trials, where there is a pruner
        pruner = optuna.pruners.NopPruner() if settled.pruner is None else settled.pruner
        with quiet_optuna():
            self._mirror = optuna.create_study(direction="maximize", sampler=settled.sampler, pruner=pruner)
        # what a grid calls when it has no more; Optuna's own works in `optimize` only
        self._mirror.stop = self._stop_asking

    def plan(self, in_job: int, ahead: int) -> None:
        """Settle the first candidates: so many are asked for together, and so many jobs are in training."""
        named: list[Candidate] = [("as given", {})] + ([("plain", {})] if self._given else [])
        named += [("", {})] if self._space.fixed else []  # what stays, alone
        self._in_sight = in_job * (ahead + 1)
        self._planned = planned(self._space, named, in_job, in_job * ahead, self._seed, self._is_ours)

    def job(self, first: int, many: int) -> list[Trial]:
        """The next candidates, from a number on: new ones, and those of an earlier run."""
        found: list[Trial] = []
        for number in range(first, first + many):
            trial = self.kept.get(number)
            # TPE sees more of one that it asked for and that is under way than of one that is only noted: what may be
            # seen by a new candidate is asked for again, and comes out the same. Of another sampler nobody knows what it
            # keeps to itself, so it is asked for all.
            if trial is None or not self._is_ours or number >= len(self.kept) - self._in_sight:
                new = self._new(number, found)
                trial = trial or new
                if trial.parameters != new.parameters:  # a sampler without a seed
                    self._forget(number)
                    self._running(trial)
                elif trial is not new and number in self._asked:
                    for epoch, value in reported(trial, self._ring).items():
                        self._asked[number].report(value, epoch)
            else:
                self._running(trial)
            self._members.tell_kind(trial)
            found.append(trial)
        return found

    def tell(self, trial: Trial, value: float) -> None:
        """Tell the sampler how a candidate scores."""
        import optuna

        number = self._in_mirror[trial.number]
        with quiet_optuna():
            if np.isfinite(value) and not trial.pruned:
                self._mirror.tell(number, value)
            else:  # as worse than all that have ended well: of one that failed a sampler learns nothing
                self._mirror.tell(number, state=optuna.trial.TrialState.PRUNED)

    def stop_for(self, trial: Trial, members: int) -> Stop | None:
        """What may stop the members that a candidate begins with, once: the pruner, if there is one and it has no name."""
        asked = self._asked.pop(trial.number, None)
        return None if asked is None or trial.name else Stop(asked, members)

    def _new(self, number: int, job: Sequence[Trial]) -> Trial:
        """A candidate that is planned or that the sampler suggests; within a job these are of one structure."""
        import optuna

        named = ""
        if number in self._planned:
            named, point = self._planned[number]
            if named and not self._members.is_point(named):
                recipe = Recipe({}) if named == "as given" else Recipe(self._given)
                trial = Trial(number, named, recipe, {}, in_space=False)
                self._running(trial)
                return trial
            with quiet_optuna():
                self._mirror.enqueue_trial(self._space.enqueued(point))
        if self._is_ours:
            with quiet_optuna():
                sampler = optuna.samplers.TPESampler(
                    n_startup_trials=1, multivariate=True, group=True, constant_liar=True,
                    seed=(self._seed * 1_000_003 + number) % 2**32,
                )  # fmt: skip
                of_job = job[0].parameters if job else {}
                shared = {name: of_job[name] for key in self._space.apart() if (name := f"{key} on") in of_job}
                if shared and number not in self._planned:
                    sampler = optuna.samplers.PartialFixedSampler(shared, sampler)
                self._mirror.sampler = sampler
        with quiet_optuna():
            trial = self._mirror.ask()
            self._in_mirror[number] = trial.number
            if self._prunes:
                self._asked[number] = trial
            point = self._space.suggested(trial)
        recipe = self._space.recipe(point, self._members.off)
        return Trial(number, named, recipe, point, parameters=trial.params, distributions=trial.distributions)

    def _running(self, trial: Trial) -> None:
        """Note a candidate that the sampler has not just suggested as one that it has."""
        import optuna

        with quiet_optuna():
            self._in_mirror[trial.number] = len(self._mirror.get_trials(deepcopy=False))
            self._mirror.add_trial(
                optuna.create_trial(
                    state=optuna.trial.TrialState.RUNNING, params=trial.parameters, distributions=trial.distributions,
                    intermediate_values=reported(trial, self._ring) if self._prunes and trial.rings else {},
                )
            )  # fmt: skip

    def _forget(self, number: int) -> None:
        """Tell the sampler that nothing became of what it last suggested for a number."""
        import optuna

        with quiet_optuna():
            self._mirror.tell(self._in_mirror[number], state=optuna.trial.TrialState.FAIL)

    def _stop_asking(self) -> None:
        self.exhausted = True


def planned(
    space: Space, named: Sequence[Candidate], in_job: int, at_once: int, seed: int, combine: bool
) -> dict[int, Candidate]:
    """Names and points of the candidates that no sampler is asked for, by number.

    Those with a name, each technique alone, and combinations: when the sampler is first asked, with `at_once` in training,
    some of these have been told of, so that it has something to learn from. In a long search each technique alone at
    other strengths comes later: the best of these is what the answer is compared with.

    Args:
        space: What is searched.
        named: The candidates that come first.
        in_job: How many are asked for together; those of one program stand side by side in a job.
        at_once: How many are in training.
        seed: Sets the combinations.
        combine: Whether there are any.
    """
    first = [*named, *(("", point) for point in space.singles(0.5))]
    if combine:
        many = _COMBINED + max(0, at_once - len(first))
        first += [("", point) for point in space.combined(many, seed)]
    jobs = [first[i : i + in_job] for i in range(0, len(first), in_job)]
    first = [one for job in jobs for one in sorted(job, key=lambda one: [key in one[1] for key in space.apart()])]
    later = [("", point) for place in _OTHER_PLACES for point in space.singles(place)]
    return dict(enumerate(first)) | dict(enumerate(later, max(_LATER, len(first))))
