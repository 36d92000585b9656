"""`rg.search`: which techniques and how strong, judged on rows that neither training nor choosing saw.

    how long  the model as given, for more and more epochs, until what is best for it is seen
    explore   candidates that a sampler asks for (`_asking`), each on one ring of cells, asked in the order of a logical clock
    race      the leaders, with the model as given and plain among them, on further rings
    judge     what the rule chooses without a fold (`_judging`), trained on all rows but that fold's and scored on it

Everything that finishes is kept at once; the same call again takes it from there instead of training it.
"""

import contextlib
import importlib.util
import math
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from regularity.population._lanes import Pool, lanes
from regularity.population._ray import Cluster
from regularity.population._tasks import Outcome, Plan, Task
from regularity.population._train import (
    Trainer,
    checked_count,
    checked_init,
)
from regularity.population._worker import call_elsewhere
from regularity.recipe import Recipe, sites_of
from regularity.study._asking import Asking
from regularity.study._cells import Cell, design_of
from regularity.study._folds import checked_seed, data_and_splits
from regularity.study._judging import Judging, seeds_to_judge
from regularity.study._members import Members
from regularity.study._question import about, name_of, scorer
from regularity.study._records import Found, Settled
from regularity.study._rule import (
    Standing,
    Trial,
    best_epoch,
    best_on_the_whole,
    choose,
    long_enough,
    reported,
    ruled_out,
    soonest,
    standing,
    value_of,
    weights_of,
)
from regularity.study._scores import check_on_folds, labels, proper, quiet_scorers, scoring
from regularity.study._space import brought, space_of
from regularity.study._store import Store, as_optunas, packed, unpacked
from regularity.study._study import Study
from regularity.study._unfinished import Unfinished
from regularity.study._watch import Ending, Listener, Pace, Watch

_LOOKED = (10, 20, 50)  # epochs in which the best of the model as given is looked for, until it is in the first half
_LONGER = 3  # times as long as is best for it candidates train at first: regularization learns more slowly
_FEWEST_EPOCHS, _MOST_EPOCHS = 10, 150
_DOZEN = 12  # candidates that a budget is to have time for, before they train for longer than the last of `_LOOKED`
_BUDGET = 300.0  # seconds, when neither trials nor a budget are given
_EXPECTED = 64  # candidates, about, where only a budget says how many
_LEADERS = 8
_RINGS = 4  # that a leader gets at most
_COMPILED_AGAIN = 0.2  # share of what compiled at first that judging compiles anew: it reads other rows
_RESERVE = 0.4  # share of a budget that is at most left for race and judging
_LOOKING = 0.1  # and for each look at how long to train
_OVERRUN, _MOMENT = 1.1, 1.0  # what share of its budget, and how many seconds more, a search may take without a word


def search(
    model: Any,
    x: Any,
    y: Any = None,
    techniques: Any = "auto",
    trials: int | None = None,
    budget: str | float | None = None,
    *,
    folds: Any = 5,
    epochs: int | None = None,
    seeds: int | None = None,
    score: Any = None,
    groups: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    init: Literal["fresh", "keep"] = "fresh",
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    callbacks: Sequence[Any] | None = None,
    sampler: Any = None,
    pruner: Any = None,
    trial_callbacks: Callable[[Any, Any], Any] | Sequence[Callable[[Any, Any], Any]] | None = None,
    storage: Any = None,
    name: str | None = None,
    seed: int = 0,
    engine: Literal["local", "ray"] | None = None,
    live: bool | int = False,
    verbose: bool | int | Literal["auto"] = "auto",
) -> Study:
    """Find which techniques a model needs and how strong, and whether that is real.

    Args:
        model: A compiled Keras model; it is not touched.
        x: Arrays, data frames or tensors of (rows, ...), or a dict or list of them; a stream is read into memory once.
        y: Targets likewise.
        techniques: `auto` takes what fits model and data; or a list of recipe keys; or a `Space`, or a mapping that is one.
        trials: How many candidates, from 2, the model as given among them.
        budget: Wall-clock time for all of it, such as `"90s"`, `"5min"`, `"1h"` or seconds. With neither, five minutes. One that
            is too short for a few candidates and the judging is overrun, with a warning.
        folds: How many, from 2, a splitter of scikit-learn, or a list of (training rows, held-out rows). From 4 folds that
            part the rows, candidates train with two of them left out, so that no choice is judged on rows it has seen.
        epochs: How long members train; how many epochs a candidate gets is then read off its mean curve. By default that is
            found: three times as long as is best for the model as given in 10, 20 or 50 epochs, and longer where the best
            candidates need it; at most 150, and where a budget is short 50.
        seeds: How many members of each candidate train on the same rows; by default one, and with `validation_data`, where it
            is from 2, three. If there is time leaders get more, and networks of three seeds, or five, judge what is chosen.
        score: A name or scorer of scikit-learn, or `loss`; by default as in `rg.path`.
        groups: Group of each row; no group is on both sides of a fold. Not beside `validation_data`.
        batch_size: Rows of a step, from 1.
        validation_data: Held-out rows in place of folds, `(x, y)` or a stream; at least two rows. `Study.model` trains on them too.
        init: `fresh` or `keep`, as in `rg.train`.
        sample_weight: Weights of (rows,) in training; scores count every row once.
        class_weight: Mapping from class to weight, or `balanced`, likewise; fits a `score` that counts classes alike.
        callbacks: Keras callbacks for the refit on all rows.
        sampler: A sampler of Optuna's; by default its TPE.
        pruner: A pruner of Optuna's, which stops candidates by their mean score over folds after each epoch; by default
            none does, since strong regularization learns slowly. With one, a search is not the same twice.
        trial_callbacks: Called with Optuna's study and trial when a candidate is finished, as those of `Study.optimize` are:
            `rg.loggers.TensorBoard("logs")`, `rg.loggers.MLflow()`, `rg.loggers.WandB()`, any of Optuna's or your own, one
            or a list. One that fails warns, and the search goes on. Where Keras runs on another backend they are called
            at the end.
        storage: A URL, a file, or an Optuna storage; by default a file in `./regularity/`. The same call on the same storage
            goes on where it stopped.
        name: Of the study; by default made of the model's name and what is asked.
        seed: Whole number from 0, which sets folds, weights, masks, orders and what the sampler draws.
        engine: `local`, or None, trains on this machine, `ray` on all of a Ray cluster: the one that `ray.init` finds.
        live: Whether to show the report in a browser while it is searched, at an address of this machine alone that is
            printed; or the port. A page that is open when the search is over becomes the whole report, for which the
            ablation is trained, beyond any budget.
        verbose: 1 shows progress, 0 nothing; `auto` shows it on a terminal and in a notebook.

    Returns:
        The study.

    Raises:
        TypeError: If `model` is none of Keras's, or `techniques`, `pruner` or `trial_callbacks` are of another form.
        ValueError: If model, data or techniques don't fit each other, every candidate diverges, or the storage holds a study
            of something else.
        ImportError: If `engine` is `ray` and Ray is not installed.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(120, 5)); y = (x[:, 0] + rng.normal(size=120) > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")])
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> study = rg.search(model, x, y, ["l2", "dropout"], trials=12, epochs=4, storage="sqlite://")
        >>> len(study.table), study.verdict in ("helps", "not separable")
        (12, True)

    Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, for TPE; Rasmussen and Williams, "Gaussian processes
    for machine learning", 2006, for what neighbours in strength share; Nadeau and Bengio, "Inference for the generalization
    error", 2003, for the verdict and its interval.
    """
    begun = time.monotonic()
    sites_of(model)  # says what the model lacks
    seed = checked_seed(seed)
    count, seconds = _limits(trials, budget)
    data, splits = data_and_splits(model, x, y, folds, groups, validation_data, sample_weight, class_weight, seed)
    judge = scoring(model, data, score)
    beside = proper(model, data, judge)
    seeds = None if seeds is None else checked_count(seeds, "seeds")
    design = design_of(splits, seed, labels(data.y) if judge.kind in ("classes", "binary") else None, seeds)
    check_on_folds(judge, design.folds, "fold" if validation_data is None else "part of `validation_data`")
    space = space_of(techniques, model, data)
    epochs = None if epochs is None else checked_count(epochs, "epochs")
    batch_size = checked_count(batch_size, "batch_size")
    where = _checked_engine(engine, _checked_optunas(pruner, "pruner"))
    sampler = _checked_optunas(sampler, "sampler")
    listeners = _checked_callbacks(trial_callbacks)
    plan = Plan(
        data=data,
        batch_size=batch_size,
        fresh=checked_init(init) == "fresh",
        scores=(judge.score,) if beside is None else (judge.score, beside.score),
        together=len(design.rings[0]),
        calls=(epochs or _LOOKED[-1]) * -(-(count or _EXPECTED) * len(design.rings[0]) // 16),
        epochs=epochs or _LOOKED[-1],
        full_steps=True,
        longest=max(len(cell.rows) for cells in (design.outer, *design.rings) for cell in cells),
    )
    question = {
        **about(model, data, [*design.folds, *(cell.rows for cell in design.outer)], init),
        "score": f"{scorer(score, judge.name)}{'' if beside is None else f' and {beside.name}'}",
        "techniques": repr(space),
        "epochs": "found" if epochs is None else str(epochs),
        "seeds": str(design.seeds),
        "batch_size": str(batch_size),
        "init": init,
        "seed": str(seed),
    }
    name = name or name_of(model, question)
    store = Store(storage, name)
    fit = {
        "batch_size": batch_size,
        "init": init,
        "sample_weight": data.sample_weight,
        "callbacks": callbacks,
        "verbose": verbose,
    }
    settled = Settled(data, design, space, plan, epochs, seed, sampler, count, seconds, begun, where, pruner)
    with store.held():
        store.check(question)  # at once, where the user is, whatever process does the work
        before_this = store.noted("seconds")
        store.note("score", judge.name)  # what Optuna's values are, for those who are told of trials
        with (
            Watch(judge.name, count, seconds, begun, verbose) as watch,
            _shown(live, store, lambda: Unfinished(model, settled, store, judge.name, fit), watch) as page,
        ):
            if keras.backend.backend() == "jax":
                found = _Search(model, settled, store, watch, listeners).run()
            else:
                before = store.trials()
                found = call_elsewhere(model, _search_here, (settled, storage, name), watch.take)
                store.reread()
                store.study.stop = Ending()  # it is over
                for trial in found.trials:
                    if trial.number not in before:
                        _tell_others(listeners, store, trial, len(design.rings[0]))
            study = Study(name, judge.name, store.where, found, settled, model, fit, store.record)
            if page is not None:
                page.finish(study)
        took = store.noted("seconds")
    if seconds is not None and took != before_this and took > _OVERRUN * seconds + _MOMENT:
        less = (
            [f"fewer `epochs` than {found.epochs}"] * (found.epochs > 1)
            + ["fewer `folds`"] * (len(design.outer) > 1)
            + ["fewer `seeds`"] * (design.seeds > 1)
        )
        warnings.warn(
            f"The search took {took:.3g} seconds instead of {seconds:.3g}: the candidates that were begun and the judging took "
            f"longer than was left. With {', '.join([*less, 'larger batches'])} or a longer `budget` there is time for more.",
            stacklevel=2,
        )
    return study


def _shown(live: bool | int, store: Store, unfinished: Callable[[], Unfinished], watch: Watch) -> Any:
    """What shows the report while a search runs, if that is asked for."""
    if live is False:
        return contextlib.nullcontext()
    if isinstance(live, bool) or hasattr(live, "__index__"):
        if store.in_memory and keras.backend.backend() != "jax":  # the process that trains has one of its own
            raise ValueError(
                "Expected a `storage` that can be read while a search writes to it, such as a file, where `live` shows it "
                f"and Keras runs on {keras.backend.backend()}. Received: {store.where!r}, which is in memory."
            )
        from regularity.report._live import Live

        return Live(unfinished(), lambda: watch.line, live)
    raise TypeError(
        f"Invalid value received for argument `live`. Expected True, False or a port. Received: live={live!r}"
    )


def _search_here(model: Any, settled: Settled, storage: Any, name: str, tell: Callable[[Any], None]) -> Found:
    """Search in this process, for one whose Keras runs on another backend."""
    watch = Watch("", settled.count, settled.seconds, settled.begun, 0, tell)
    return _Search(model, settled, Store(storage, name), watch).run()


class _Search:
    """A search under way."""

    def __init__(
        self,
        model: Any,
        settled: Settled,
        store: Store,
        watch: Watch,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.model, self.store, self.watch, self.listeners = model, store, watch, listeners
        self.settled, self.design = settled, settled.design
        self.fewest_seeds, self.most_seeds = seeds_to_judge(self.design)
        self.count, self.seconds = settled.count, settled.seconds
        self.weights = weights_of(len(settled.plan.scores))
        self.members_of = Members(model, settled)
        self.asking = Asking(settled, self.members_of, brought(model), store.trials())
        earlier = max((trial.seconds for trial in self.asking.kept.values()), default=0.0)
        self.begun = settled.begun - max(earlier, store.noted("seconds") or 0.0)
        ended = store.noted("ended")  # the budget with which an earlier run came to its end
        self.is_over = self.seconds is not None and ended is not None and self.seconds <= ended
        self.trials: list[Trial] = []
        self.waiting: deque[tuple[list[Trial], list[Task], Callable[[], list[Outcome]]]] = deque()
        self.pace = Pace()
        self.choosing = 0.0  # seconds to see once how all stand
        # of each candidate, by its first members: its score, and at which epoch it has that
        self.best_epochs: list[tuple[float, int]] = []
        self.told: list[tuple[float, int]] = []  # their scores, and how many epochs are as good as these
        # how long candidates train, at first and at most; 0 before it is known
        self.epochs = self.epochs_at_first = self.most_epochs = settled.epochs or 0
        self.size = self.lanes = 1  # members of a chunk, and how many chunks train side by side
        # members of a chunk by structure: those of the first run, whatever this machine would take, since sums of
        # batched products need not be the same to the bit
        self.sizes: dict[str, int] = dict(store.noted("chunks") or {})
        store.study.stop = self.ending = Ending()
        stopped = store.noted("stopped")  # by a callback, which is told of new trials alone
        if stopped is not None and stopped["asked"] == [self.count, self.seconds]:
            self.count = stopped["trials"]
        self.trainer: Any = None
        # who is to stop is not written with what is in training
        self.plan = replace(settled.plan, checkpoints=None if settled.pruner is not None else store.folder)
        self.on_ray = settled.engine == "ray"

    def run(self) -> Found:
        most = _EXPECTED * len(self.design.rings[0])
        trains = (self.model, self.plan, most, self.sizes)
        with quiet_scorers(), Cluster(*trains) if self.on_ray else Pool(lanes()) as pool:
            self.trainer = pool if isinstance(pool, Cluster) else Trainer(*trains)
            if not self.epochs:
                self._settle_epochs(pool)
            while True:
                self.explore(pool)
                self.race(pool)
                if not self._time_for_more:
                    break
            found = self.judge(pool)
        if not self.is_over:
            self.store.note("seconds", self.elapsed)
            if self.ending.asked:
                self.store.note("stopped", {"asked": [self.count, self.seconds], "trials": len(self.trials)})
            elif self.seconds is not None and len(self.trials) != self.count and not self.asking.exhausted:
                self.store.note("ended", self.seconds)
        self.store.clear()
        return found

    # -- how long --------------------------------------------------------------------------------------------------

    def _settle_epochs(self, pool: Pool | Cluster) -> None:
        """Find how long candidates train: a multiple of what is best for the model as given."""
        if self.store.noted("epochs") is None:
            self.store.note("epochs", self._best_of_given(pool))
        best, pace = self.store.noted("epochs")
        self.pace = Pace(self.pace.compiling, pace)
        self.most_epochs = _MOST_EPOCHS
        if self.seconds is not None:  # all of it, so that a longer one allows more
            a_dozen = _DOZEN * len(self.design.rings[0]) * (pace or math.inf)
            self.most_epochs = max(_LOOKED[-1], min(_MOST_EPOCHS, int((1 - _RESERVE) * self.seconds / a_dozen)))
        wanted = max(_FEWEST_EPOCHS, _LONGER * best) if best else _LOOKED[-1]
        self.epochs = self.epochs_at_first = min(wanted, self.most_epochs)

    def _best_of_given(self, pool: Pool | Cluster) -> tuple[int, float | None]:
        """How many epochs are best for the model as given, looked for in more and more, and seconds a member-epoch.

        0 epochs where it diverges.
        """
        best, pace, cells = 0, None, [(cell, c) for c, cell in enumerate(self.design.ring(0))]
        for epochs in _LOOKED:
            if pace is not None and self.seconds is not None and epochs * len(cells) * pace > _LOOKING * self.seconds:
                break
            begun = time.monotonic()
            tasks = self.members_of.tasks(Recipe({}), cells, epochs)
            outcomes = self._train(tasks, pool)()
            self.trainer.forget(tasks)
            # workers of a cluster tell of members only when they are done
            pace = (time.monotonic() - begun) / (epochs * len(cells)) if self.on_ray else self.pace.seconds
            best = best_on_the_whole(np.array([outcome.held_out for outcome in outcomes], "float64"))
            if 2 * best <= epochs:
                break
        return best, pace and pace * _share_of_work(len(cells), self.trainer.chunk(tasks), len(pool.lanes))

    # -- explore ---------------------------------------------------------------------------------------------------

    def explore(self, pool: Pool | Cluster) -> None:
        """Ask for candidates and train them, as many at once as keep every lane at work.

        A job's candidates are asked for when all jobs but the last few have been told of, in their order: what the
        sampler knew does not depend on which lane was faster.
        """
        ring = len(self.design.rings[0])
        size = self.trainer.chunk(self._tasks(Trial(0, "", self.members_of.all_on, {}), 0))
        self.size, self.lanes = size, len(pool.lanes)
        in_job = max(1, size // ring)
        ahead = max(2, -(-2 * len(pool.lanes) * size // (in_job * ring)))
        before = self.store.noted("in_job") or [in_job, ahead]
        if self.store.noted("in_job") is None:
            self.store.note("in_job", before)
        self.in_job, ahead = before
        self.asking.plan(self.in_job, ahead)
        asked = len(self.trials)
        while True:
            while len(self.waiting) < ahead and self._may_ask(asked, len(pool.lanes) * size):
                many = self.in_job if self.count is None else min(self.in_job, self.count - asked)
                if self._left <= 0 and asked < len(self.asking.kept):  # none but those that there are
                    many = min(many, len(self.asking.kept) - asked)
                job = self.asking.job(asked, many)
                asked += len(job)
                tasks = [task for trial in job if not trial.rings for task in self._first_tasks(trial)]
                self.waiting.append((job, tasks, self._train(tasks, pool)))
            if not self.waiting:
                return
            self._tell(*self.waiting.popleft())

    def _may_ask(self, asked: int, at_once: int) -> bool:
        """Whether there is need and time for a job more; `at_once` members train side by side."""
        if self.asking.exhausted or self.ending.asked or (self.count is not None and asked >= self.count):
            return False
        if self.seconds is None or asked < len(self.asking.kept):
            return True
        if self.is_over:
            return False
        ring = len(self.design.rings[0])
        waiting = sum(len(job) for job, *_ in self.waiting) * ring
        if asked < 2:
            return True
        if self.pace.seconds is None:  # as many as there is room for, until it shows how long they take
            return waiting < at_once and self._left > 0
        cost = (waiting + self.in_job * ring) * self._per_member
        return self.elapsed + cost + self._reserve < self.seconds

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    @property
    def _left(self) -> float:
        if self.seconds is None:
            return math.inf
        return 0.0 if self.is_over else self.seconds - self.elapsed

    @property
    def _time_for_more(self) -> bool:
        """Whether race and judging leave time for further candidates, which are raced again then."""
        over = self.is_over or self.asking.exhausted or self.ending.asked
        if self.seconds is None or over or len(self.trials) == self.count:
            return False
        return self._left > self._reserve + 2 * self.in_job * len(self.design.rings[0]) * self._per_member

    @property
    def _per_member(self) -> float:
        """Seconds that a member takes, all lanes at work; nothing before one has been trained."""
        return self.epochs * (self.pace.seconds or 0.0)

    @property
    def _reserve(self) -> float:
        """Seconds that are left for race and judging: for a ring and all seeds, where that is not too much of a budget."""
        assert self.seconds is not None
        racing = self._trained_in([self.epochs] * (_LEADERS * len(self.design.rings[0])))
        wanted = racing + self._seconds_of_judging(self.most_seeds)
        return max(self._seconds_of_judging(self.fewest_seeds), min(wanted, _RESERVE * self.seconds))

    def _seconds_of_judging(self, seeds: int) -> float:
        """Seconds that judging takes: as many members as there may be, and some of what compiled at first once more."""
        each = seeds * len(self.design.folds)
        # the model as given, and plain where that is another, train as long as is best for them, the choice and the best
        # single technique, which are one where nothing else has been tried, as long as for any leader at most
        under_way = [trial for job, *_ in self.waiting for trial in job]
        others = 1 + any(trial.techniques > 1 for trial in [*self.trials, *under_way])
        named = max(1, sum(bool(trial.name) for trial in self.trials))
        own = self.best_epochs[0][1] if self.best_epochs else self.epochs
        leaders = sorted((-score, best) for score, best in self.best_epochs if np.isfinite(score))[:_LEADERS]
        longest = max((best for _, best in leaders), default=self.epochs)
        choosing = (len(self.design.folds) + 1) * self.choosing
        epochs = [own] * (named * each) + [longest] * (others * each)
        return self._judged_in(epochs) + _COMPILED_AGAIN * self.pace.compiling + choosing

    def _judged_in(self, epochs: Sequence[int]) -> float:
        """Seconds in which members of so many epochs are trained for judging: on more rows, but read on fewer."""
        first, outer = self.design.rings[0][0], self.design.outer[0]
        return self._trained_in(epochs) * self._epoch_work(outer) / self._epoch_work(first)

    def _epoch_work(self, cell: Cell) -> int:
        """How long an epoch of a cell takes, in passes of a row: one that trains goes forth, back, and to the weights."""
        return 3 * self.members_of.epoch_rows(cell) + sum(len(self.design.folds[fold]) for fold in cell.held)

    def _trained_in(self, epochs: Sequence[int]) -> float:
        """Seconds in which members of so many epochs are trained, where they may not fill chunks or lanes."""
        return self.size * self.lanes * _rounds(epochs, self.size, self.lanes) * (self.pace.seconds or 0.0)

    # -- train -----------------------------------------------------------------------------------------------------

    def _train(self, tasks: Sequence[Task], pool: Pool | Cluster) -> Callable[[], list[Outcome]]:
        def advance(epochs: int) -> None:
            self.pace.advance(epochs)
            self.watch.advance(epochs)

        if not tasks:
            return list
        wait = self.trainer.submit(tasks, pool, advance)
        if self.sizes != self.store.noted("chunks"):
            self.store.note("chunks", dict(self.sizes))
        devices = self.store.noted("devices") or []
        if pool.devices not in devices:
            self.store.note("devices", [*devices, pool.devices])
        return wait

    def _tell(self, job: Sequence[Trial], tasks: Sequence[Task], wait: Callable[[], list[Outcome]]) -> None:
        """Note what became of a job's candidates, here and in the store, and tell the sampler."""
        outcomes = wait()
        ring = len(self.design.rings[0])
        new = [trial for trial in job if not trial.rings]
        for i, trial in enumerate(new):
            self._take(trial, outcomes[i * ring : (i + 1) * ring], tasks[i * ring].epochs)
            trial.seconds = self.elapsed
            self.store.add(trial, value_of(trial, ring), reported(trial, ring))
            _tell_others(self.listeners, self.store, trial, ring)
        self.trainer.forget(tasks)
        for trial in job:
            self.trials.append(trial)
            value, curves = value_of(trial, ring), trial.curves[:ring, ..., 0].mean(2)
            self.best_epochs.append((value, best_epoch(curves.mean(0), trial.of_length) + 1))
            if not trial.of_length:  # else it is best at the end whatever that is
                if len(self.design.outer) > 1:  # seeds on the same rows share how lucky these are
                    curves = curves.reshape(self.design.seeds, -1, curves.shape[1]).mean(0)
                self.told.append((value, soonest(curves)))
            self.asking.tell(trial, value)
        self.epochs = long_enough(self.told, self.epochs_at_first, self.most_epochs)
        pruned = sum(trial.pruned for trial in self.trials)
        self._show(
            f"{sum(len(job) for job, *_ in self.waiting)} in training" + (f", {pruned} pruned" if pruned else "")
        )

    def _show(self, doing: str) -> None:
        self.watch.told([value_of(trial, len(self.design.rings[0])) for trial in self.trials], doing)

    def _take(self, trial: Trial, outcomes: Sequence[Outcome], epochs: int) -> None:
        """Add a ring's scores to a candidate's, of members that were to train for so long."""
        known = [np.array(outcome.held_out, "float32") for outcome in outcomes]  # of (epochs, sets, scores)
        found = np.full((len(known), epochs, *known[0].shape[1:]), np.nan, "float32")
        for cell, scores in zip(found, known, strict=True):
            cell[: len(scores)] = scores
        found[~np.isfinite(found)] = np.nan
        trial.curves = np.concatenate([trial.curves, found]) if trial.rings else found
        trial.rings += 1
        trial.diverged += sum(outcome.diverged is not None for outcome in outcomes)
        trial.pruned |= not trial.diverged and any(len(scores) < epochs for scores in known)

    def _tasks(self, trial: Trial, ring: int) -> list[Task]:
        first = sum(len(self.design.ring(r)) for r in range(ring))
        epochs = trial.curves.shape[1] if trial.rings else self.epochs
        return self.members_of.tasks(
            trial.recipe, [(cell, first + c) for c, cell in enumerate(self.design.ring(ring))], epochs
        )

    def _first_tasks(self, trial: Trial) -> list[Task]:
        """The members that a candidate begins with, which a pruner may stop if it has no name."""
        tasks = self._tasks(trial, 0)
        stop = self.asking.stop_for(trial, len(tasks))
        return tasks if stop is None else [replace(task, stop=stop) for task in tasks]

    # -- race ------------------------------------------------------------------------------------------------------

    def race(self, pool: Pool | Cluster) -> None:
        """Train the leaders on further rings; who falls behind by more than chance loses the rest."""
        named = [i for i, trial in enumerate(self.trials) if trial.name]
        before = self.store.noted(f"race {len(self.trials)}")
        if before is None or self.is_over:
            if self.seconds is not None:  # time, not the order of things, has decided who was raced before
                for trial in self.trials:
                    while self._recall(trial, trial.rings):
                        pass
            if self.is_over:
                return
            many = min(_LEADERS, max(2, len(self.trials) // 4))
            expected = self._standing().expected
            order = [int(i) for i in np.argsort(-np.nan_to_num(expected, nan=-np.inf)) if np.isfinite(expected[i])]
            if not order:
                return  # `choose` says what is the matter
            leaders = list(dict.fromkeys([*named, *order[:many]]))  # the best first, after those with a name
            before = {"leaders": leaders, "rings": [trial.rings for trial in self.trials]}
            self.store.note(f"race {len(self.trials)}", before)
        leaders = before["leaders"]
        for trial, rings in zip(self.trials, before["rings"], strict=True):
            while trial.rings < rings and self._recall(trial, trial.rings):
                pass
        for ring in range(1, _RINGS):
            wanted = [self.trials[i] for i in leaders if self.trials[i].rings == ring]
            wanted = [trial for trial in wanted if not self._recall(trial, ring)]
            cells = len(self.design.ring(ring))
            # one ring more is worth more than further seeds in judging, further rings are not
            left = self._left - self._seconds_of_judging(self.fewest_seeds if ring == 1 else self.most_seeds)
            if wanted and left <= 0:
                return
            epochs = [trial.curves.shape[1] for trial in wanted]
            in_time = [n for n in range(1, len(wanted) + 1) if self._trained_in(epochs[:n] * cells) <= left]
            if len(in_time) < len(wanted):
                wanted = wanted[: len(in_time)]
                if all(trial.name for trial in wanted):
                    return
            if wanted:
                self._show(f"racing {len(wanted)}")
                tasks = [task for trial in wanted for task in self._tasks(trial, ring)]
                outcomes = self._train(tasks, pool)()
                for i, trial in enumerate(wanted):
                    mine = outcomes[i * cells : (i + 1) * cells]
                    self._take(trial, mine, trial.curves.shape[1])
                    found = packed(trial.curves[-cells:])
                    self.store.note(f"ring {trial.number} {ring}", {"curves": found, "diverged": trial.diverged})
                self.store.note("seconds", self.elapsed)
                self.trainer.forget(tasks)
            at = self._standing()
            if not np.isfinite(at.expected[leaders]).any():
                return
            gone = ruled_out(
                self.trials, at, [i for i in leaders if np.isfinite(at.expected[i])], self.design.candidates_share
            )
            leaders = [i for i in leaders if i in named or (i not in gone and np.isfinite(at.expected[i]))]

    def _recall(self, trial: Trial, ring: int) -> bool:
        """Take a ring's scores from the store, where an earlier run left them."""
        kept = self.store.noted(f"ring {trial.number} {ring}")
        if kept is None:
            return False
        trial.curves = np.concatenate([trial.curves, unpacked(kept["curves"])])
        trial.rings += 1
        trial.diverged = kept["diverged"]
        return True

    def _standing(self, without: int | None = None) -> Standing:
        begun = time.monotonic()
        encoded = np.array([self.settled.space.encoded(trial.point) for trial in self.trials])
        at = standing(self.trials, self.design, encoded, self.weights, without)
        self.choosing = time.monotonic() - begun
        return at

    # -- judge -----------------------------------------------------------------------------------------------------

    def judge(self, pool: Pool | Cluster) -> Found:
        """Score what is chosen without a fold on that fold, beside the model as given, plain and the best single technique."""
        final = self._standing()
        chosen = choose(self.trials, final, self.design.candidates_share)
        contestants: list[dict[str, tuple[int, int]]] = []
        for fold in range(len(self.design.folds)):
            at = self._standing(fold)
            one = choose(self.trials, at, self.design.candidates_share)
            picks = {"answer": one.answer, "as given": 0, "plain": one.plain, "single": one.single}
            contestants.append({role: (i, int(at.epochs[i])) for role, i in picks.items()})
        answer = (chosen.answer, int(final.epochs[chosen.answer]))
        judging = Judging(self.settled, self.store, self.members_of, self.trials, contestants, answer)
        judged_so = f"judging {len(self.trials)} {self.seconds}"
        ended = self.store.noted(judged_so)  # with how many seeds an earlier run came to its end
        seeds, trained, begun = ended or self._judged_seeds(judging), 0, time.monotonic()
        while True:
            missing = judging.missing(seeds)
            tasks = judging.tasks(missing)
            self._show("judging")
            judging.take(missing, self._train(tasks, pool)())
            self.trainer.forget(tasks)
            trained += len(missing)
            # by what these took there may be time for a seed more, though none was reckoned with
            each = (time.monotonic() - begun) / max(trained, 1) * len(judging.wanted)
            if not missing or ended is not None or seeds == self.most_seeds or each > self._left:
                break
            seeds += 1
        self.store.note(judged_so, seeds)
        gains = judging.gains(seeds)
        return Found(self.trials, final, chosen, judging.judged(seeds), gains, judging.weights)

    def _judged_seeds(self, judging: Judging) -> int:
        """How many seeds there is time for, and no fewer than an earlier run has judged."""
        left, epochs = self._left - _COMPILED_AGAIN * self.pace.compiling, [epochs for _, epochs, _ in judging.wanted]
        affordable = [seeds for seeds in range(1, self.most_seeds + 1) if self._judged_in(epochs * seeds) < left]
        return max(self.fewest_seeds, judging.seeds_kept(self.most_seeds), *affordable)


def _rounds(epochs: Sequence[int], chunk: int, lanes: int) -> int:
    """Epochs until members that train together, the longest first, are done, where the next goes to the lane that is free."""
    busy = [0] * lanes
    for longest in sorted(epochs, reverse=True)[::chunk]:
        busy[busy.index(min(busy))] += longest
    return max(busy)


def _share_of_work(members: int, chunk: int, lanes: int) -> float:
    """How much of what all lanes could do in that time is done where some members train alone: they fill neither chunks nor lanes."""
    return members / (_rounds([1] * members, chunk, lanes) * chunk * lanes)


def _tell_others(listeners: Sequence[Listener], store: Store, trial: Trial, ring: int) -> None:
    """Tell who wants to know that a candidate is finished."""
    if listeners:
        told = as_optunas(trial, value_of(trial, ring), reported(trial, ring))
        for listener in listeners:
            listener.told(store.study, told)


def _limits(trials: Any, budget: Any) -> tuple[int | None, float | None]:
    """How many candidates, and how many seconds."""
    count = None if trials is None else checked_count(trials, "trials")
    if count == 1:
        raise ValueError(
            "Invalid value received for argument `trials`. Expected at least 2: the model as given is one. Received: trials=1"
        )
    if budget is None:
        return count, _BUDGET if count is None else None
    return count, _seconds(budget)


def _checked_optunas(given: Any, what: Literal["pruner", "sampler"]) -> Any:
    """A pruner or sampler, if there is one."""
    import optuna

    kind, example = {
        "pruner": (optuna.pruners.BasePruner, "optuna.pruners.MedianPruner()"),
        "sampler": (optuna.samplers.BaseSampler, "optuna.samplers.RandomSampler(seed=0)"),
    }[what]
    if given is not None and not isinstance(given, kind):
        raise TypeError(f"Expected `{what}` to be one of Optuna's, such as {example}. Received: {given!r}")
    return given


def _checked_callbacks(callbacks: Any) -> list[Listener]:
    listeners = [] if callbacks is None else list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    wrong = [each for each in listeners if not callable(each)]
    if wrong:
        raise TypeError(
            "Expected `trial_callbacks` to be a list of callables of Optuna's study and trial, such as those of "
            f"optuna-integration. Received: {wrong[0]!r}"
        )
    return [Listener(each) for each in listeners]


def _checked_engine(engine: Any, pruner: Any) -> str:
    engine = "local" if engine is None else engine
    if engine not in ("local", "ray"):
        raise ValueError(
            f"Invalid value received for argument `engine`. Expected 'local' or 'ray'. Received: engine={engine!r}"
        )
    if engine == "ray" and pruner is not None:
        raise ValueError(
            "Invalid value received for argument `pruner`. Expected none where engine='ray', whose workers tell of members "
            f"only when they are done. Received: pruner={pruner!r}"
        )
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ImportError("`engine='ray'` needs Ray. Try: pip install 'regularity[ray]'")
    return engine


def _seconds(budget: Any) -> float:
    """Seconds, from a number, a text such as `5min` or `1h 30min`, or a time difference of Python, NumPy or pandas."""
    seconds = math.nan
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = float(budget) if not isinstance(budget, (bool, np.bool_, timedelta, np.timedelta64)) else math.nan
    if math.isnan(seconds) and isinstance(budget, (str, timedelta, np.timedelta64)):
        texts = [budget]
        if isinstance(
            budget, str
        ):  # pandas has days and weeks in capitals, and minutes, as ISO 8601 does not, in small letters
            texts = [re.sub(r"(?<=[\d ])[dw]\b", lambda unit: unit[0].upper(), budget.lower()), budget]
        for text in texts:
            with contextlib.suppress(ValueError):
                seconds = pd.Timedelta(text).total_seconds()
                break
    if not 0 < seconds < math.inf:
        raise ValueError(
            "Invalid value received for argument `budget`. Expected a time such as '90s', '5min', '1h 30min', or seconds above 0. "
            f"Received: budget={budget!r}"
        )
    return seconds
