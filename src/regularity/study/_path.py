"""`rg.path`: one technique over a whole range of strengths, judged on folds."""

import base64
import contextlib
import html
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import pandas as pd

from regularity.catalogue import CATALOGUE, Technique
from regularity.data import Data
from regularity.population._tasks import Outcome, Plan, Task
from regularity.population._train import (
    Trainer,
    checked_count,
    checked_init,
    checked_seeds,
    strengths_for,
)
from regularity.recipe import Recipe, sites_of
from regularity.recipe._sites import resolve
from regularity.study._choosing import Choice, choose, epochs_by_mean_curve, paired_error
from regularity.study._folds import checked_seed, data_and_splits
from regularity.study._question import about, name_of, scorer
from regularity.study._refit import refit
from regularity.study._rule import Trial
from regularity.study._scores import Scoring, check_on_folds, quiet_scorers, scoring
from regularity.study._store import Store

_DECADES = 4  # how far below its top a path goes
_PROBES = 16  # strengths of the short run that finds the top
_FLAT = 0.1  # share of a score's range within which a path counts as flat


class Point(NamedTuple):
    """One candidate of a path.

    Args:
        name: `off`, `as given`, or empty.
        strength: Of the technique; NaN where the model as given has several. Where it is a bound, infinity is 'off'.
        score: Mean held-out score over folds.
        error: Its standard error.
        epochs: How long to train.
        recipe: What to apply.
    """

    name: str
    strength: float
    score: float
    error: float
    epochs: int
    recipe: Recipe


@dataclass(frozen=True)
class Path:
    """What a range of strengths does to a model; made by `rg.path`.

    Args:
        technique: The key that was varied, such as `l2` or `dropout@dense*`.
        score_name: How held-out rows were scored; higher is better.
        table: A row for each candidate, by strength: `name`, `strength`, `score` and `error` (mean over folds and its
            standard error), `difference` to the best and its paired `difference_error`, `as_good`, `train_score`,
            `gap`, `norm` of all kernels, `zeros` (share of their entries below 0.001), `epochs`, `diverged` (members).
        off: The candidate without the technique.
        best: The candidate with the best mean score.
        one_se: The answer: whatever lies within one paired standard error of the best is as good, and then the model
            as given comes first, then 'off', then the strongest.

    `off`, `best` and `one_se` each have a `strength`, a `score` with its `error`, `epochs`, and a `recipe` to apply.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(60, 5)); y = x[:, 0] + rng.normal(size=60)
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> path = rg.path(model, x, y, strengths=[0.01, 0.1], folds=3, epochs=4)
        >>> path.score_name, path.off.strength, path.best.recipe.epochs <= 4
        ('r2', 0.0, True)
        >>> path.verdict in ("helps", "not separable"), path.model.count_params()
        (True, 6)

    Breiman, Friedman, Olshen and Stone, "Classification and regression trees", 1984, for the rule of one standard error.
    """

    technique: str
    score_name: str
    table: pd.DataFrame
    off: Point
    best: Point
    one_se: Point
    _unseen: np.ndarray = field(repr=False)  # of the answer's networks
    _rows: np.ndarray = field(repr=False)  # that some fold holds out
    _model: Any = field(repr=False)
    _data: Data = field(repr=False)
    _score: Any = field(repr=False)
    _seed: int = field(repr=False)
    _fit: Mapping[str, Any] = field(repr=False)

    @property
    def verdict(self) -> Literal["helps", "not separable"]:
        """Whether any strength, off included, is better than the model as given by more than the error."""
        return "not separable" if self.one_se.name == self._given["name"] else "helps"

    @property
    def _given(self) -> pd.Series:
        """The row of the model as given: its own, or 'off' where it brings nothing of the technique."""
        return self.table.iloc[0]

    @property
    def flat(self) -> bool:
        """Whether every strength lies within the error of the best: the technique makes no difference here."""
        return bool(self.table["as_good"].all())

    @cached_property
    def model(self) -> keras.Model:
        """The answer, trained on all rows, as plain Keras.

        Trained when this is first read, so read it before you change the model that the path was made of. Where a seed
        ruins the network, another is drawn, with a warning, as in `Study.model`.
        """
        return refit(
            self._model, self._data, self.one_se.recipe, self._score, self._unseen, self._rows, self._seed, self._fit
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw score and weight norm over strength, with both choices marked.

        Args:
            ax: Two matplotlib axes, for the scores and the norm, such as `plt.subplots(2)[1]` to see them in a window;
                None makes a figure to save, or to be shown by a notebook.

        Returns:
            The matplotlib figure.
        """
        from regularity.report.figures import plot_path

        return plot_path(self, ax)

    def __str__(self) -> str:
        """The answer in words."""
        best, answer, name, given = self.best, self.one_se, self.technique, self._given
        if self.flat:
            return f"{name} makes no difference here: every strength scores {self.score_name} {_pm(best.score, best.error)}, within the error of the best."
        if answer.name:
            against = (
                [f"{_pm(best.score, best.error)} at the best strength, {best.strength:.3g}"] if best != answer else []
            )
            against += [f"{_pm(given['score'], given['error'])} as given"] if given["name"] != answer.name else []
            return (
                f"No strength of {name} is better than the model {answer.name if answer.name == 'as given' else 'without it'} by more than the error: "
                f"{self.score_name} {_pm(answer.score, answer.error)}{' against ' if against else ''}{', and '.join(against)}."
            )
        return (
            f"{name} helps: {self.score_name} {_pm(answer.score, answer.error)} at strength {answer.strength:.3g} "
            f"({answer.epochs} epochs), against {_pm(given['score'], given['error'])} {given['name']}; "
            f"the best mean is {_pm(best.score, best.error)} at {best.strength:.3g}."
        )

    def _repr_html_(self) -> str:
        """The answer in words, and the picture, as a notebook shows them."""
        picture = base64.b64encode(self.plot()._repr_png_()).decode()
        words = html.escape(str(self))
        return f'<p>{words}</p><img src="data:image/png;base64,{picture}" alt="Score over the strength of {html.escape(self.technique)}">'


def _pm(score: float, error: float) -> str:
    return f"{score:.4g} ± {error:.2g}"


def path(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    technique: str = "l2",
    strengths: int | Sequence[float] = 50,
    folds: Any = 5,
    epochs: int | None = None,
    seeds: int | Sequence[int] = 1,
    score: Any = None,
    groups: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    init: Literal["fresh", "keep"] = "fresh",
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    callbacks: Sequence[Any] | None = None,
    storage: Any = None,
    name: str | None = None,
    seed: int = 0,
    verbose: bool | int | Literal["auto"] = "auto",
) -> Path:
    """Train a model over a whole range of strengths of one technique, on folds, all at once; and say which to take.

    Args:
        model: A compiled Keras model; it is not touched.
        x: Arrays, data frames or tensors of (rows, ...), or a dict or list of them; a stream is read into memory once.
        y: Targets likewise.
        technique: A recipe key: a technique, or `technique@pattern`.
        strengths: How many, from 2, or which, in the technique's unit; 'off' is always among them. By default spaced over
            the technique's range, for penalties on weights from the strength at which the path is flat, found by a short
            run, four decades down.
        folds: How many, from 2, a splitter of scikit-learn, or a list of (training rows, held-out rows). Stratified for
            classes; ignored with `validation_data`.
        epochs: How long members train, 50 by default. How many a candidate gets is then read off its mean curve.
        seeds: How many seeds a fold (averaged), or which; with `validation_data` from 2, five by default.
        score: A name or scorer of scikit-learn, or `loss`; by default accuracy for classes, R² for numbers, and the
            loss, without penalties, for all else.
        groups: Group of each row; no group is in two folds. Not beside `validation_data`.
        batch_size: Rows of a step.
        validation_data: Held-out rows in place of folds, `(x, y)` or a stream. Standard errors are then over seeds.
            The answer's `model` trains on these rows too: weighted by `class_weight`, or by a third element beside
            `sample_weight`, or, without one, by the mean of `sample_weight`.
        init: `fresh` or `keep`, as in `rg.train`.
        sample_weight: Weights of (rows,) in training; scores count every row once.
        class_weight: Mapping from class to weight, or `balanced`, likewise.
        callbacks: Keras callbacks for the refit on all rows.
        storage: A URL, a file, or an Optuna storage to keep the path in, for a database that Optuna's tools read. The same
            call on the same storage goes on where it stopped, and one that has come to its end gives the same path at
            once. With neither this nor a `name` nothing is kept.
        name: Of what is kept, in `./regularity/` where `storage` says nothing else; by default made of the model's name
            and what is asked.
        seed: Whole number from 0, which sets folds, weights, masks and orders; the same seed gives the same path.
        verbose: As in `rg.train`.

    Returns:
        The path.

    Raises:
        TypeError: If `model` is none of Keras's, or `technique` no text.
        ValueError: If model, data or technique don't fit each other, every candidate diverges, or the storage holds
            something else under that name.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(90, 5)); y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(2, "softmax")])
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> path = rg.path(model, x, y, technique="dropout", strengths=4, folds=3, epochs=5)
        >>> path.table["strength"].round(2).tolist()
        [0.0, 0.27, 0.53, 0.8]

    Friedman, Hastie and Tibshirani, "Regularization paths for generalized linear models via coordinate descent", 2010, for
    paths; Nadeau and Bengio, "Inference for the generalization error", 2003, for the error of paired differences.
    """
    sites_of(model)  # says what is wrong with it
    declared = _declared(technique)
    wanted = _checked_strengths(strengths, technique)
    seed = checked_seed(seed)
    data, splits = data_and_splits(model, x, y, folds, groups, validation_data, sample_weight, class_weight, seed)
    judge = scoring(model, data, score)
    check_on_folds(judge, [held for _, held in splits], "fold" if validation_data is None else "set")
    epochs = 50 if epochs is None else checked_count(epochs, "epochs")
    as_usual = isinstance(seeds, numbers.Integral) and seeds == 1
    own_seeds = checked_seeds(5 if validation_data is not None and as_usual else seeds)
    if validation_data is not None and len(own_seeds) < 2:
        raise ValueError(
            f"Invalid value received for argument `seeds`. Expected at least two with `validation_data`, to know the error of a score. Received: seeds={seeds}"
        )
    member_seeds = [(seed * 1_000_003 + n) % 2**31 for n in own_seeds]
    own = _own_strengths(model, technique)
    batch_size = checked_count(batch_size, "batch_size")
    count = wanted if isinstance(wanted, int) else len(wanted)
    members = (count + 1) * len(splits) * len(member_seeds)
    plan = Plan(
        data=data,
        batch_size=batch_size,
        fresh=checked_init(init) == "fresh",
        seen=True,
        scores=(judge.score,),
        calls=epochs * -(-members // 16),  # the first run may be small
        full_steps=True,
    )
    asked = storage is not None or name is not None
    question = {} if not asked else {
        **about(model, data, [rows for split in splits for rows in split], init),
        "score": scorer(score, judge.name),
        "technique": technique,
        "strengths": str(wanted),
        "epochs": str(epochs),
        "seeds": str(member_seeds),
        "batch_size": str(batch_size),
        "init": init,
    }  # fmt: skip
    store = Store(storage, name or name_of(model, question)) if asked else _Nowhere()
    with store.held():
        store.check(question)
        training = _Training(model, plan, members, epochs, store, verbose)

        def probe(tried: Sequence[float]) -> np.ndarray:
            held = training.train([_recipe(technique, s) for s in tried], splits[:1], member_seeds[:1]).held_out(1)
            return _at(held, epochs_by_mean_curve(held))

        grid = store.noted("grid") or _strengths(wanted, declared, probe)
        store.note("grid", grid)
        candidates = [_Candidate("" if n else "off", s, _recipe(technique, s)) for n, s in enumerate(grid)]
        if own:  # the model as given is a candidate of its own, and the first to win a tie
            candidates.insert(0, _Candidate("as given", own[0] if len(set(own)) == 1 else math.nan, Recipe({})))
        curves = _kept(store.trials(), len(candidates))
        if curves is None:
            curves = training.train([candidate.recipe for candidate in candidates], splits, member_seeds)
            if isinstance(store, Store):
                _keep(store, technique, candidates, curves)
                store.clear()
    fit = {
        "batch_size": plan.batch_size,
        "init": init,
        "sample_weight": data.sample_weight,
        "callbacks": callbacks,
        "verbose": verbose,
    }
    # without folds the seeds take their place
    each = len(member_seeds) if validation_data is None else 1
    share = float(np.mean([len(h) / len(r) for r, h in splits])) if validation_data is None else 0.0
    return _to_path(technique, judge, candidates, curves, each, splits, share, model, data, member_seeds[0], fit)


class _Candidate(NamedTuple):
    name: str
    strength: float
    recipe: Recipe


def _declared(technique: Any) -> Technique:
    if not isinstance(technique, str):
        raise TypeError(f"Expected `technique` to be a key such as 'l2' or 'dropout@dense*'. Received: {technique!r}")
    declared = CATALOGUE.get(technique.partition("@")[0])
    Recipe({technique: None if declared is not None and declared.inverted else 0.0})  # says what is wrong with the key
    return CATALOGUE[technique.partition("@")[0]]


def _recipe(technique: str, strength: float) -> Recipe:
    """The recipe with one strength of the path, a bound of infinity being none."""
    return Recipe({technique: None if math.isinf(strength) else strength})


def _own_strengths(model: Any, technique: str) -> list[float]:
    """The strengths that the model brings where the technique is to be varied."""
    sites, outside = sites_of(model), CATALOGUE[technique.partition("@")[0]].outside
    reached = {k for k, v in resolve({technique: -1.0}, sites, model).items() if v < 0}
    return [float(outside(site.given) or 0.0) for site in sites if site.key in reached and site.given]


def _checked_strengths(strengths: Any, technique: str) -> int | list[float]:
    """How many strengths, or which: from weak to strong, 'off' first."""
    declared = CATALOGUE[technique.partition("@")[0]]
    if isinstance(strengths, numbers.Integral) and not isinstance(strengths, bool):
        if int(strengths) >= 2:
            return int(strengths)
    elif isinstance(strengths, Iterable) and not isinstance(strengths, (str, bytes)):
        given = {declared.inside(Recipe({technique: strength})[technique]) for strength in strengths}
        if any(given):
            return [declared.off, *(float(declared.outside(s) or 0.0) for s in sorted(given) if s)]
    raise ValueError(
        "Invalid value received for argument `strengths`. Expected how many, from 2, or a list of which, at least one "
        f"above 0. Received: strengths={strengths!r}"
    )


def _strengths(strengths: int | list[float], technique: Technique, probe: Any) -> list[float]:
    """The strengths of a path, from weak to strong, 'off' first."""
    if not isinstance(strengths, int):
        return strengths
    low, high = technique.range
    if technique.scale == "linear":
        return np.linspace(0.0, high, strengths).tolist()
    if technique.place == "weights":
        grid = np.geomspace(high * 1e-6, high * 1e2, _PROBES)
        high = float(grid[flat_from(probe(list(grid))[:, 0])])
        low = high * 10**-_DECADES
    if technique.scale == "reverse_log":
        return [technique.off, *(1 - np.geomspace(1 - low, 1 - high, strengths - 1)).tolist()]
    first, last = (high, low) if technique.inverted else (low, high)
    return [technique.off, *np.geomspace(first, last, strengths - 1).tolist()]


def flat_from(scores: np.ndarray) -> int:
    """The first of ascending strengths from which on the score does not change: where the penalty has won.

    Args:
        scores: Of (strengths,); NaN where a member diverged.
    """
    known = np.isfinite(scores)
    finite = np.where(known, scores, scores[known].min() if known.any() else 0.0)
    span = float(np.ptp(finite))
    same = np.abs(finite - finite[-1]) <= _FLAT * span
    changes = np.flatnonzero(~same)
    return 0 if not len(changes) else min(int(changes[-1]) + 1, len(scores) - 1)


class _Curves(NamedTuple):
    """What candidates' members were like after each epoch, in single precision, as a store keeps it.

    Args:
        members: Held-out score, score on training rows, norm, and share of entries near zero, of (candidates, members,
            epochs, 4): for each fold as many members as there are seeds.
        diverged: How many members of each candidate did.
    """

    members: np.ndarray
    diverged: list[int]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], candidates: int) -> "_Curves":
        """What became of all members, candidate by candidate."""
        found = np.array(
            [np.column_stack([np.ravel(o.held_out), np.ravel(o.seen), o.norm, o.zeros]) for o in outcomes], "float32"
        )
        diverged = np.reshape([outcome.diverged is not None for outcome in outcomes], (candidates, -1)).sum(1)
        return cls(found.reshape(candidates, -1, *found.shape[1:]), diverged.tolist())

    def held_out(self, seeds: int) -> np.ndarray:
        """Of (candidates, folds, epochs), averaged over so many members of a fold."""
        return self._averaged(0, seeds)

    def others(self, seeds: int) -> dict[str, np.ndarray]:
        """What is told beside it, likewise, by its name."""
        return {name: self._averaged(n, seeds) for n, name in enumerate(("train_score", "norm", "zeros"), 1)}

    def _averaged(self, which: int, seeds: int) -> np.ndarray:
        curves = self.members[..., which].astype("float64")
        curves[~np.isfinite(curves)] = np.nan  # a score overflows before the weights do
        return curves.reshape(len(curves), -1, seeds, curves.shape[2]).mean(2)


class _Training:
    """What trains recipes on folds.

    With a store, on JAX, as many members train together as in the first run, so that what it left in training fits.
    """

    def __init__(
        self, model: Any, plan: Plan, members: int, epochs: int, store: "Store | _Nowhere", verbose: bool | int | str
    ) -> None:
        self._model, self._sites, self._epochs = model, sites_of(model), epochs
        self._store, self._verbose = store, verbose
        self._sizes: dict[str, int] = dict(store.noted("chunks") or {})  # members of a chunk, by structure
        self._trainer = Trainer(model, replace(plan, checkpoints=store.folder), members, self._sizes)

    def train(self, recipes: Sequence[Recipe], splits: Sequence[Any], seeds: Sequence[int]) -> _Curves:
        """What becomes of each recipe's members, one for each split and seed."""
        tasks = [
            Task(strengths, seed, self._epochs, rows=rows, held_out=(held,), keep_weights=False)
            for strengths in strengths_for(self._model, self._sites, recipes)
            for rows, held in splits
            for seed in seeds
        ]
        if isinstance(self._store, Store) and keras.backend.backend() == "jax":
            self._trainer.chunk(tasks)
            self._store.note("chunks", self._sizes)
        with quiet_scorers():
            return _Curves.of(self._trainer.train(tasks, self._verbose), len(recipes))


class _Nowhere:
    """What keeps nothing, in place of a store."""

    folder = None

    def held(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def check(self, question: Mapping[str, str]) -> None:
        pass

    def note(self, key: str, value: Any) -> None:
        pass

    def noted(self, key: str) -> None:
        return None

    def trials(self) -> dict[int, Trial]:
        return {}


def _keep(store: Store, technique: str, candidates: Sequence[_Candidate], curves: _Curves) -> None:
    """Keep a path, each candidate as a trial."""
    import optuna

    log = CATALOGUE[technique.partition("@")[0]].scale == "log"
    shown = [math.isfinite(c.strength) and (c.strength > 0 or not log) for c in candidates]  # no axis has the others
    strengths = [c.strength for c, on in zip(candidates, shown, strict=True) if on]
    range_ = optuna.distributions.FloatDistribution(min(strengths), max(strengths), log=log)
    before, held = store.trials(), curves.held_out(1)
    for number, (candidate, at) in enumerate(zip(candidates, _epochs(technique, candidates, held), strict=True)):
        if number in before:  # a kill came between two of them
            continue
        trial = Trial(
            number, candidate.name, candidate.recipe, {}, curves.members[number], 1,
            diverged=curves.diverged[number],
            parameters={technique: candidate.strength} if shown[number] else {},
            distributions={technique: range_} if shown[number] else {},
        )  # fmt: skip
        store.add(trial, float(held[number, :, at].mean()))


def _kept(trials: Mapping[int, Trial], candidates: int) -> _Curves | None:
    """A path that has been kept to its end, or None."""
    if len(trials) < candidates:
        return None
    return _Curves(
        np.array([trials[n].curves for n in range(candidates)]), [trials[n].diverged for n in range(candidates)]
    )


def _epochs(technique: str, candidates: Sequence[_Candidate], held: np.ndarray) -> np.ndarray:
    """How many epochs, from 0, each trains; where it is another thing with each length, all that there are."""
    epochs = epochs_by_mean_curve(held)
    if CATALOGUE[technique.partition("@")[0]].of_length:
        epochs[[not candidate.name for candidate in candidates]] = held.shape[2] - 1
    return epochs


def _at(curves: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """Curves at each candidate's own epoch, of (candidates, folds)."""
    return np.take_along_axis(curves, epochs[:, None, None], 2)[..., 0]


def _to_path(
    technique: str,
    judge: Scoring,
    candidates: Sequence[_Candidate],
    curves: _Curves,
    seeds: int,
    splits: Sequence[Any],
    share: float,
    model: Any,
    data: Data,
    seed: int,
    fit: Mapping[str, Any],
) -> Path:
    """Choose among candidates by their curves, of so many seeds a fold; `share` is held-out rows over training rows, 0 where all train on the same."""
    names = [candidate.name for candidate in candidates]
    found = curves.held_out(seeds)
    epochs = _epochs(technique, candidates, found)
    held = _at(found, epochs)
    if np.isnan(held).any(1).all() and not any(curves.diverged):
        raise ValueError(
            f"The score {judge.name} is not a number on the held-out rows of any candidate: it can't take what the model "
            "puts out. Take another with `score`."
        )
    first = [i for i, name in enumerate(names) if name]
    choice: Choice = choose(held, share, first, [i for i in range(len(names))[::-1] if i not in first])
    table = _table(candidates, curves, seeds, epochs, held, choice)
    points = [
        Point(name, strength, score, error, epoch, Recipe({**recipe.strengths, "epochs": epoch}))
        for (name, strength, recipe), score, error, epoch in zip(
            candidates, table["score"].tolist(), table["error"].tolist(), table["epochs"].tolist(), strict=True
        )
    ]
    return Path(
        technique,
        judge.name,
        table,
        points[names.index("off")],
        points[choice.best],
        points[choice.answer],
        curves.held_out(1)[choice.answer, :, epochs[choice.answer]],
        np.unique(np.concatenate([rows for _, rows in splits])),
        model,
        data,
        judge.score,
        seed,
        fit,
    )


def _table(
    candidates: Sequence[_Candidate], curves: _Curves, seeds: int, epochs: np.ndarray, held: np.ndarray, choice: Choice
) -> pd.DataFrame:
    """Each candidate at its own epoch: its held-out scores of (candidates, folds), and what else is known of its members."""
    score, others = held.mean(1), {name: _at(of, epochs).mean(1) for name, of in curves.others(seeds).items()}
    return pd.DataFrame(
        {
            "name": [candidate.name for candidate in candidates],
            "strength": [candidate.strength for candidate in candidates],
            "score": score,
            "error": paired_error(held, 0.0),
            "difference": score - score[choice.best],
            "difference_error": choice.error,
            "as_good": choice.as_good,
            "train_score": others["train_score"],
            "gap": others["train_score"] - score,
            "norm": others["norm"],
            "zeros": others["zeros"],
            "epochs": epochs + 1,
            "diverged": curves.diverged,
        }
    )
