"""What a search found: the answer with its interval, every candidate, and the models."""

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import pandas as pd

from regularity import _keras
from regularity.data import class_weight_of
from regularity.population._train import Member, checked_count
from regularity.recipe import Recipe
from regularity.study._ablation import Ablation, ablate
from regularity.study._evidence import Evidence
from regularity.study._records import Found, Settled
from regularity.study._refit import refit
from regularity.study._rule import Estimate, estimate, helps
from regularity.study._scores import target_kind

_LEVEL = 0.95  # of intervals, and of the verdict

_NAMES = {"answer": "chosen", "as given": "as given", "plain": "plain", "single": "best single technique"}
_OF_ROLE = {"as given": "of the model as given", "answer": "of what was chosen"}


class Score(NamedTuple):
    """A score on rows that neither training nor choosing saw.

    Args:
        value: Mean over folds.
        error: Its standard error, corrected for folds that share training rows.
    """

    value: float
    error: float


@dataclass(frozen=True)
class Study:
    """All trials of one question and what they say; made by `rg.search`.

    Every score is a `Score`: its `value`, the mean over folds, and its standard `error`, in the unit of `score_name`. Printed
    it says the answer in words.

    Args:
        name: Of the study.
        score_name: How held-out rows were scored; higher is better.
        storage: Where it is kept.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(100, 4)); y = (x[:, 0] > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> study = rg.search(model, x, y, ["weight_decay"], trials=6, epochs=3, storage="sqlite://")
        >>> study.score_name, study.table.index.name, list(study.comparison.index)[:2]
        ('accuracy', 'trial', ['chosen', 'as given'])
        >>> study.recipe == (study.best if study.verdict == "helps" else rg.Recipe({"epochs": study.recipe.epochs}))
        True
        >>> study.model.count_params(), study.ensemble().output_shape, "model.fit" in study.code()
        (58, (None, 2), True)
        >>> study.ablation().index.tolist()
        ['all', 'none', 'as given']
        >>> figure = study.plot_comparison()

    Nadeau and Bengio, "Inference for the generalization error", 2003, for errors and intervals.
    """

    name: str
    score_name: str
    storage: Any = field(repr=False)  # a URL may have a password
    _found: Found = field(repr=False)
    _settled: Settled = field(repr=False)
    _model: Any = field(repr=False)
    _fit: Mapping[str, Any] = field(repr=False)
    _record: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what was asked, with which versions
    _ablations: dict[int, Ablation] = field(default_factory=dict, repr=False)

    # -- the answer ------------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> Literal["helps", "not separable"]:
        """Whether what the rule chooses is better than the model as given, on rows that the choice never saw.

        A paired one-sided test at 5 %, which the choice must pass besides being better than the model as given by more
        than a paired standard error among all candidates. Where networks of the model as given diverge more often than by
        chance (Fisher's exact test at 5 %) and none of the choice does, that helps.
        """
        if self._found.choice.answer == 0:
            return "not separable"
        real = helps(self._found.judged.differences("as given"), self._settled.design.share)
        return "helps" if self._only_given_diverges or (real and not self._found.choice.tied) else "not separable"

    @property
    def best(self) -> Recipe:
        """The recipe that the rule chooses, whether or not it is separable from the model as given."""
        return self._recipe(self._found.choice.answer)

    @property
    def recipe(self) -> Recipe:
        """The answer: the best recipe where it helps, else the model as given with the number of epochs that suits it."""
        return self.best if self.verdict == "helps" else self._recipe(0)

    @property
    def score(self) -> Score:
        """Score of the answer: of one refit by the procedure that chose it, on rows that it never saw."""
        return self._score("answer" if self.verdict == "helps" else "as given")

    @property
    def as_given(self) -> Score:
        """Score of the model as given, with the number of epochs chosen likewise."""
        return self._score("as given")

    @property
    def plain(self) -> Score:
        """Score of the model with every strength at 0, epochs chosen likewise."""
        return self._score("plain")

    @property
    def single(self) -> Score:
        """Score of the best single technique, chosen likewise."""
        return self._score("single")

    @property
    def gain_of_averaging(self) -> Score | None:
        """What the average of three networks of the best recipe scores more than one of them, on folds that none of them saw.

        They differ in their seeds alone, those of folds that `ensemble` averages in their rows too. None where the score is
        the loss, one of them diverged on every fold, or time was too short to train three. Without folds there are three in all,
        which don't tell the error.
        """
        gains, share = self._found.gains, self._settled.design.share
        if gains is None or np.isnan(gains).all():
            return None
        found = estimate(gains, share)
        return Score(found.mean, found.error if share else np.nan)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each finished trial, by its number.

        `name`; the strength of each technique, NaN where it is off; `score` over folds and its `difference` to the model as
        given with the `error` of that, NaN where that model diverges; `log_loss` beside a score of classes, in which all
        classes count alike if they do in the score; `expected`, by which is chosen; the `epochs` that are best for it; `members`, how many `diverged`, and whether it was `pruned`;
        `seconds` when it was finished.
        """
        rows, (difference, error) = [], self._difference_to_given
        for i, trial in enumerate(self._found.trials):
            row: dict[str, Any] = {"name": trial.name}
            row |= {
                dimension.key: trial.point.get(dimension.key, np.nan) for dimension in self._settled.space.dimensions
            }
            row |= {
                "score": self._found.at.score[i, 0],
                "difference": difference[i],
                "error": error[i],
            }
            if self._found.at.score.shape[1] > 1:
                row["log_loss"] = -self._found.at.score[i, 1]
            row |= {
                "expected": self._found.at.expected[i],
                "epochs": self._found.at.epochs[i],
                "members": len(trial.curves),
                "diverged": trial.diverged,
                "pruned": trial.pruned,
                "seconds": trial.seconds,
            }
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index([trial.number for trial in self._found.trials], name="trial"))

    @property
    def comparison(self) -> pd.DataFrame:
        """The answer beside the model as given, plain, and the best single technique, on the same folds and seeds.

        `score` and `error` of each, `difference` of what was chosen to it with its paired `difference_error` and the 95 %
        interval from `low` to `high`.
        """
        rows = {}
        for role, name in _NAMES.items():
            score, found = self._score(role), self._difference(role)
            low, high = found.interval(_LEVEL)
            rows[name] = {
                "score": score.value, "error": score.error, "difference": found.mean, "difference_error": found.error,
                "low": low, "high": high,
            }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index")

    def __str__(self) -> str:
        """The answer in words."""
        networks = self._found.judged.networks
        if not networks:
            return self._so_far()
        lost = {role: int(np.isnan(networks[role]).sum()) for role in ("as given", "answer")}
        if self._only_given_diverges:
            return (
                f"The model diverges as given, in {lost['as given']} of {networks['as given'].size} networks; with "
                f"{_listed(self.best)} it does not: {self.score_name} {_pm(self.score)}."
            )
        found = self._difference("as given")
        low, high = found.interval(_LEVEL)
        what = f"{self.score_name} {found.mean:+.3g} [{low:+.3g}, {high:+.3g}] against the model as given"
        unseen = f"on folds {self._settled.design.unseen}"
        if self.verdict == "helps":
            text = (
                f"{self._subject} helps: {what}, {unseen} (of one refit, 95 % interval). "
                f"{self.score_name} {_pm(self.score)} with {_listed(self.best)}, against {_pm(self.as_given)} as given."
            )
        else:
            best = (
                "" if self._found.choice.answer == 0 else f" The best guess is {_listed(self.best)}: {what}, {unseen}."
            )
            text = f"Not separable from the model as given, {self.score_name} {_pm(self.as_given)}.{best}"
        diverged = [f"{n} of {networks[role].size} {_OF_ROLE[role]}" for role, n in lost.items() if n]
        return text + (f" Networks that diverged are left out: {' and '.join(diverged)}." if diverged else "")

    def _repr_html_(self) -> str:
        """The answer in words, and the table that it is read off, as a notebook shows them."""
        return f"<p>{html.escape(str(self))}</p>{self.comparison.to_html(float_format='{:.4g}'.format, border=0)}"

    # -- models ----------------------------------------------------------------------------------------------------

    @cached_property
    def model(self) -> keras.Model:
        """The answer, trained on all rows, as plain Keras.

        Trained when this is first read, so read it before you change the model that the search was made of. A network that
        is worse on these rows than those of the folds on rows that they never saw has been ruined by its seed: another is
        drawn, up to two times, with a warning.
        """
        settled = self._settled
        unseen = self._found.judged.networks["answer" if self.verdict == "helps" else "as given"]
        rows = np.unique(np.concatenate(settled.design.folds))
        seed, score = settled.seed * 1_000_003 % 2**31, settled.plan.scores[0]
        return refit(self._model, settled.data, self.recipe, score, unseen, rows, seed, self._fit)

    def ensemble(self) -> keras.Model:
        """The fold models of the best recipe, their outputs averaged, as one plain Keras model.

        They were trained while judging, so this costs nothing; each has seen all rows but those of its fold, or, without
        folds, has a seed of its own. What averaging is worth says `gain_of_averaging`. One that diverged is left out.

        Raises:
            ValueError: If all of them did, or the model does not say what its inputs are.

        Hansen and Salamon, "Neural network ensembles", 1990.
        """
        models = self._fold_models()
        if not models:
            raise ValueError(
                "Expected a fold model of the best recipe whose weights are finite, to average. Every one diverged: lower the "
                "learning rate, or scale the inputs."
            )
        return _keras.average_of(models, self._model)

    def code(self) -> str:
        """The answer as Keras source, which builds the model and trains it: stock Keras where its recipe is stock.

        Its `x` and `y` are those of the search, and its `sample_weight` too, unless rows weigh what their class does.
        """
        from regularity.recipe._source import source

        data = self._settled.data
        classifies = target_kind(self._model, data) in ("classes", "binary")
        of_class = class_weight_of(data) if classifies else None
        return source(
            self._model, self.recipe, batch_size=self._settled.plan.batch_size, class_weight=of_class,
            weighted=data.sample_weight is not None and of_class is None, kept=self._fit["init"] == "keep",
        )  # fmt: skip

    def ablation(self, seeds: int = 2) -> pd.DataFrame:
        """What each technique of the best recipe is worth: the recipe without it, and it alone, all trained at once.

        Args:
            seeds: Members of each on every fold, from 1.

        Returns:
            A row for each variant: its `score` over folds, its `difference` to the whole recipe and the paired `error` of
            that; its `train_score` on the mean curve after `epochs`, and the `gap` between the two. How long a variant trains
            is read off its curves on the other folds. What `profile` has is trained with it.

        Raises:
            ValueError: If `seeds` is no whole number from 1.
        """
        return self._ablated(checked_count(seeds, "seeds")).table.copy()

    def profile(self) -> pd.DataFrame:
        """The best recipe over the whole range of each of its techniques, the others as they are: trained with the `ablation`.

        Returns:
            A row for each technique and strength, off first (NaN), then weak to strong: the `place` of the strength in its
            range; `score` over folds with its `error`, its `difference` to the best recipe with the paired
            `difference_error`; `train_score`, the `gap` between the two, `epochs`; the `norm` of all kernels, how many of
            their `weights` are not near zero (0.001); and whether it is what was `chosen`, the `best` mean of its technique, or,
            as `one_se`, what the rule of `rg.path` chooses: off, else the strongest, within one paired standard error of it.
        """
        return self._ablated().profile.copy()

    # -- to look at ------------------------------------------------------------------------------------------------

    def plot_comparison(self, ax: Any = None) -> Any:
        """Draw what was chosen minus each of the others, with 95 % intervals.

        Args:
            ax: Matplotlib axes, or None for a figure of its own, to save or to be shown by a notebook.

        Returns:
            The matplotlib figure.
        """
        return _figures().plot_comparison(self, ax)

    def plot_strengths(self, ax: Any = None) -> Any:
        """Draw trials over the strength of each technique, as the difference to the model as given.

        Args:
            ax: Matplotlib axes, one for each technique that was tried, or None, as in `plot_comparison`.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If `ax` are more or fewer, the model as given diverges, or no trial has a technique that was searched.
        """
        return _figures().plot_strengths(self, ax)

    def plot_profile(self, ax: Any = None) -> Any:
        """The best recipe over the range of each of its techniques; `ax` has axes for each; trains the `ablation` unless it has been.

        Raises:
            ValueError: If the best recipe has no technique that was searched.
        """
        return _figures().plot_profile(self, ax)

    def plot_curves(self, ax: Any = None) -> Any:
        """Draw held-out and training scores by epoch of the best recipe and its variants; trains the `ablation` unless it has been.

        Args:
            ax: As in `plot_comparison`.

        Returns:
            The matplotlib figure.
        """
        return _figures().plot_curves(self, ax)

    def plot_ablation(self, ax: Any = None) -> Any:
        """Draw what each variant of the best recipe loses or gains; trains the `ablation` unless it has been.

        Args:
            ax: As in `plot_comparison`.

        Returns:
            The matplotlib figure.
        """
        return _figures().plot_ablation(self, ax)

    def plot_trials(self, ax: Any = None) -> Any:
        """Draw all trials as lines across the techniques.

        Args:
            ax: As in `plot_comparison`.

        Returns:
            The matplotlib figure.

        Inselberg, "The plane with parallel coordinates", 1985.
        """
        return _figures().plot_trials(self, ax)

    def plot_calibration(self, ax: Any = None) -> Any:
        """Draw what was so over what the fold models said of held-out rows.

        Args:
            ax: As in `plot_comparison`.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If the model has several outputs, or outputs of another kind than classes or numbers.

        Guo et al., "On calibration of modern neural networks", 2017.
        """
        return _figures().plot_calibration(self, ax)

    def plot_weights(self, ax: Any = None) -> Any:
        """Draw histograms of the fold models' weights.

        Args:
            ax: Matplotlib axes, one for each kernel, or None, as in `plot_comparison`.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If `ax` are more or fewer.
        """
        return _figures().plot_weights(self, ax)

    def report(self, file: str | os.PathLike[str] = "report.html") -> Path:
        """Write all of it as one HTML page, which opens without a network and which a colleague can be sent.

        The answer and how sure it is; scores over strength; learning curves; what each technique is worth; every trial;
        the weights and the calibration of the fold models; recipe, source, and how it was measured. For the curves and
        the worth the `ablation` is trained, unless it has been; none of the rows stand in it.

        Args:
            file: Where to, ending in .html; what is there is overwritten.

        Returns:
            Where it is.

        Raises:
            ValueError: If the name does not end in .html, or its folder does not exist.
        """
        from regularity.report._page import write

        return write(self, file)

    # -- inside ----------------------------------------------------------------------------------------------------

    @cached_property
    def _evidence(self) -> Evidence:
        return Evidence(self)

    def _fold_models(self) -> list[keras.Model]:
        """The best recipe's model on each of the design's outer cells, as plain Keras."""
        weights = self._found.weights
        return [Member(self.best, 0, cell, {}, None, self._model, each).model for cell, each in weights]

    def _ablated(self, seeds: int = 2) -> Ablation:
        """The ablation with so many seeds, trained once."""
        if seeds not in self._ablations:
            epochs = self._found.trials[self._found.choice.answer].curves.shape[1]  # schedules go by how long that is
            self._ablations[seeds] = ablate(self._model, self._settled, self.best, epochs, seeds, self._fit["verbose"])
        return self._ablations[seeds]

    def _recipe(self, trial: int) -> Recipe:
        import json

        recipe = self._found.trials[trial].recipe
        return Recipe({**json.loads(recipe.to_json()), "epochs": int(self._found.at.epochs[trial])})

    def _so_far(self) -> str:
        """The best guess of a study that nothing has judged yet."""
        at, chosen = self._found.at, self._found.choice.answer
        if self._given_diverges:
            return (
                f"The model diverges as given. The best guess up to now is {_listed(self.best)}: {self.score_name} "
                f"{at.score[chosen, 0]:.4g}, on the folds that it was chosen on. What is chosen in the end is judged on others."
            )
        given = f"{self.score_name} {at.score[0, 0]:.4g}"
        if chosen == 0:
            return f"Up to now nothing is better than the model as given, {given}."
        return (
            f"The best guess up to now is {_listed(self.best)}: {self.score_name} {at.difference[chosen]:+.3g} ± {at.error[chosen]:.2g} "
            f"against the model as given, {given}, on the folds that it was chosen on. What is chosen in the end is judged on others."
        )

    def _score(self, role: str) -> Score:
        found = estimate(self._found.judged.networks[role], self._settled.design.share)
        return Score(found.mean, found.error)

    def _difference(self, role: str) -> Estimate:
        return estimate(self._found.judged.differences(role), self._settled.design.share)

    @property
    def _given_diverges(self) -> bool:
        """Whether the model as given has no score on the folds that candidates are compared on."""
        return not np.isfinite(self._found.at.score[0]).all()

    @property
    def _difference_to_given(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each trial, and its error; NaN where the model as given diverges, since the rule has another base then."""
        at = self._found.at
        if self._given_diverges:
            return np.full_like(at.difference, np.nan), np.full_like(at.error, np.nan)
        return at.difference, at.error

    @property
    def _subject(self) -> str:
        """What it is that helps."""
        strengths, rate = self.best.strengths, self.best.learning_rate is not None
        if not strengths:
            return "Another learning rate"
        what = "Regularization" if any(strengths.values()) else "Less regularization"  # of what the model brings
        return f"{what} with another learning rate" if rate else what

    @property
    def _only_given_diverges(self) -> bool:
        """Whether networks of the model as given diverge more often than by chance, and none of what was chosen."""
        from scipy.stats import fisher_exact

        networks = self._found.judged.networks
        lost = {role: int(np.isnan(networks[role]).sum()) for role in ("as given", "answer")}
        if self._found.choice.answer == 0 or not lost["as given"] or lost["answer"]:
            return False
        counts = [[lost["as given"], networks["as given"].size - lost["as given"]], [0, networks["answer"].size]]
        return bool(fisher_exact(counts, alternative="greater").pvalue < 1 - _LEVEL)


def _figures() -> Any:
    from regularity.report import figures

    return figures


def _pm(score: Score) -> str:
    return f"{score.value:.4g} ± {score.error:.2g}"


def _listed(recipe: Recipe) -> str:
    each = [f"{key} {strength:.3g}" if strength else f"no {key}" for key, strength in recipe.strengths.items()]
    text = ", ".join(each) or "nothing"
    rate = f", learning rate {recipe.learning_rate:.3g}" if recipe.learning_rate else ""
    return f"{text}{rate} ({recipe.epochs} epochs)"
