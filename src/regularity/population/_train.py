"""`rg.train`: any number of recipes and seeds, trained at once."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity import data as _data
from regularity.catalogue import CATALOGUE
from regularity.population import _worker
from regularity.population._lanes import Pool
from regularity.population._population import Population
from regularity.population._progress import Progress
from regularity.population._tasks import Outcome, Plan, Task, epoch_order
from regularity.recipe import Recipe, sites_of
from regularity.recipe._recipe import schedules_of
from regularity.recipe._regularized import as_given, regularize
from regularity.recipe._sites import Site, resolve


@dataclass(frozen=True)
class Member:
    """One network that was trained: a recipe, a seed and, within a path or a search, a fold.

    Args:
        recipe: What it was trained with, on top of what the model brings.
        seed: Set its weights, masks and the order of its rows.
        fold: Which fold was held out, or None.
        history: Keras's dict of lists, one entry an epoch.
        diverged: The epoch, from 1, in which weights or loss ceased to be finite, or None; its weights are the last that
            were, or with `callbacks` what `fit` has made of them.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> (member,) = rg.train(model, x, x.sum(1), {"weight_decay": 0.1}, epochs=3)
        >>> member.recipe, member.seed, len(member.history["loss"]), member.model.count_params()
        (Recipe({'weight_decay': 0.1}), 0, 3, 5)
    """

    recipe: Recipe
    seed: int
    fold: int | None
    history: dict[str, list[Any]]
    diverged: int | None = None
    _given: Any = field(default=None, repr=False, compare=False)
    _weights: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def model(self) -> keras.Model:
        """The trained network as plain Keras, which loads without Regularity.

        Made from the model that was trained when this is first read, so read it before you change that model.
        """
        network = with_recipe(self._given, self.recipe)
        for variable, value in zip(as_given(network), self._weights, strict=True):
            variable.assign(value)
        return network.to_keras()


def train(
    model: Any,
    x: Any,
    y: Any = None,
    recipes: Any = None,
    *,
    seeds: int | Sequence[int] = 1,
    epochs: int = 1,
    batch_size: int = 32,
    validation_data: Any = None,
    shuffle: bool = True,
    init: Literal["fresh", "keep"] = "fresh",
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    callbacks: Sequence[Any] | None = None,
    verbose: bool | int | Literal["auto"] = "auto",
) -> list[Member]:
    """Train a model with any number of recipes and seeds at once; each member equals `recipe.apply(model).fit(...)` alone.

    Args:
        model: A compiled Keras model; it is not touched.
        x: Arrays, data frames or tensors of (rows, ...), a dict or list of them for several inputs, or a stream that
            gives batches (PyDataset, tf.data.Dataset, DataLoader), which is read once an epoch for all members; a
            generator is read to its end once, and kept.
        y: Targets likewise; None with a stream.
        recipes: A recipe or a list of them, each a `Recipe` or a mapping; None is the model as given.
        seeds: How many seeds for each recipe (0, 1, …), from 1, or which, whole numbers from 0.
        epochs: Passes through the data, from 1; a recipe's own `epochs` comes first.
        batch_size: Rows of a step, from 1.
        validation_data: `(x, y)` or `(x, y, sample_weight)`, or a stream; scored after each epoch as `fit` does.
        shuffle: Whether each member sees its rows in a new order each epoch.
        init: `fresh` draws weights by the model's own initializers, `keep` starts from those of the model.
        sample_weight: Weights of (rows,), by which the loss of each row is multiplied.
        class_weight: Mapping from class to weight, or `balanced`, by which all classes weigh the same; not together with `sample_weight`.
        callbacks: Keras callbacks. They see one model at a time, so members are then trained one after the other.
        verbose: 1 shows progress, 0 nothing; `auto` shows it on a terminal and in a notebook.

    Returns:
        The members, seeds within recipes, in the order given.

    Raises:
        TypeError: If `model` is none of Keras's, or `recipes` neither recipes nor mappings.
        ValueError: If model, data or recipes don't fit each other; nothing has been compiled then.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
        >>> members = rg.train(model, x, y, [{"l2": 0.0}, {"l2": 0.1}], seeds=2, epochs=3)
        >>> [(m.recipe["l2"], m.seed) for m in members]
        [(0.0, 0), (0.0, 1), (0.1, 0), (0.1, 1)]
    """
    sites = sites_of(model)
    chosen = as_recipes(recipes)
    numbers = checked_seeds(seeds)
    plan = Plan(
        data=checked_data(model, x, y, sample_weight, class_weight),
        batch_size=checked_count(batch_size, "batch_size"),
        shuffle=bool(shuffle),
        fresh=checked_init(init) == "fresh",
        validation=checked_validation(model, validation_data),
    )
    epochs = checked_count(epochs, "epochs")
    pairs = [(recipe, seed) for recipe in chosen for seed in numbers]
    values = strengths_for(model, sites, chosen)
    if any(recipe.learning_rate is not None for recipe in chosen):
        _keras.learning_rate_variable(model.optimizer)  # a schedule can't be set
    if callbacks:
        return [_fit_alone(model, recipe, seed, epochs, plan, callbacks, verbose) for recipe, seed in pairs]
    tasks = [
        Task(
            values[i // len(numbers)],
            seed,
            recipe.epochs or epochs,
            recipe.learning_rate,
            schedules=schedules_of(recipe, sites, model),
        )
        for i, (recipe, seed) in enumerate(pairs)
    ]
    outcomes = Trainer(model, plan, len(tasks)).train(tasks, verbose)
    return [
        Member(recipe, seed, None, outcome.history, outcome.diverged, model, outcome.weights)
        for (recipe, seed), outcome in zip(pairs, outcomes, strict=True)
    ]


class Trainer:
    """Trains tasks on every core or accelerator of this machine: here where Keras runs on JAX, else in a process that does.

    Args:
        model: The user's model.
        plan: What the members share.
        members: How many to expect in the largest run.
        sizes: Members of a chunk by structure, where that is settled; what comes to be settled is added. A structure has
            the places of its sites for a name: a model that is built again has other names of layers.
    """

    def __init__(self, model: Any, plan: Plan, members: int, sizes: dict[str, int] | None = None) -> None:
        self._model, self._plan, self._members = model, plan, members
        self._sizes = {} if sizes is None else sizes
        self._populations: dict[tuple[str, ...], Population] = {}

    @cached_property
    def _sites(self) -> list[Site]:
        return sites_of(self._model)

    def train(self, tasks: Sequence[Task], verbose: Any = 0) -> list[Outcome]:
        """Train tasks, all with strengths for the same sites, and return what became of them in their order."""
        with Progress(len(tasks), sum(task.epochs for task in tasks), verbose) as progress:
            if keras.backend.backend() != "jax":
                return _worker.train_elsewhere(self._model, tasks, self._plan, self._members, progress.advance)
            return self.train_here(tasks, progress.advance)

    def train_here(self, tasks: Sequence[Task], advance: Callable[[int], None]) -> list[Outcome]:
        """Train tasks on JAX in this process: those that have a technique which multiplies a step apart from the others."""
        groups = self._groups(tasks)
        return _merged([(members, population.run(there, advance)) for members, there, population in groups])

    def submit(self, tasks: Sequence[Task], pool: Pool, advance: Callable[[int], None]) -> Callable[[], list[Outcome]]:
        """Queue tasks for the lanes of a pool, and return what waits for their outcomes; on JAX in this process."""
        waiting = [(members, p.submit(there, pool, advance)) for members, there, p in self._groups(tasks)]
        return lambda: _merged([(members, wait()) for members, wait in waiting])

    def chunks(self, tasks: Sequence[Task]) -> list[tuple[list[int], list[Task]]]:
        """Which tasks train together, by their index and themselves."""
        return [
            ([members[i] for i in chosen], [tasks[members[i]] for i in chosen])
            for members, there, population in self._groups(tasks)
            for chosen in population.together(there)
        ]

    def forget(self, tasks: Sequence[Task]) -> None:
        """Remove what was written of tasks in training, once their outcomes are kept."""
        for _, there, population in self._groups(tasks):
            population.forget(there)

    def chunk(self, tasks: Sequence[Task]) -> int:
        """How many members such as these train together."""
        (_, there, population), *_ = self._groups(tasks)
        return population.chunk(there)

    def _groups(self, tasks: Sequence[Task]) -> list[tuple[list[int], list[Task], Population]]:
        """Tasks of one structure, by their index and as their population takes them, and that population."""
        scheduled = {key: name for task in tasks for key, name in task.schedules.items()}
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, task in enumerate(tasks):
            there = present(task.strengths, self._sites)
            absent = tuple(k for k in task.strengths if k not in there)
            groups.setdefault(absent, []).append(i)
        found = []
        for absent, members in groups.items():
            there = [
                replace(tasks[i], strengths={k: v for k, v in tasks[i].strengths.items() if k not in absent})
                for i in members
            ]
            schedules = {key: name for key, name in scheduled.items() if key in there[0].strengths}
            name = (*absent, "|", *schedules)
            if name not in self._populations:
                regularized = regularize(self._model, self._sites, there[0].strengths, schedules=schedules)
                places = {site.key: str(place) for place, site in enumerate(self._sites)}
                structure = " ".join(places.get(key, key) for key in name)
                plan = replace(self._plan, chunk=self._plan.chunk or self._sizes.get(structure))
                self._populations[name] = Population(regularized, plan, self._members)
                self._sizes[structure] = self._populations[name].chunk(there)
            found.append((members, there, self._populations[name]))
        return found


def _merged(found: Sequence[tuple[list[int], list[Outcome]]]) -> list[Outcome]:
    """The outcomes of groups in the order of their tasks."""
    by_task = {i: outcome for members, outcomes in found for i, outcome in zip(members, outcomes, strict=True)}
    return [by_task[i] for i in range(len(by_task))]


def present(strengths: Mapping[str, float], sites: Sequence[Site]) -> dict[str, float]:
    """Strengths without those of techniques that are off and that a model is made without then.

    What stands in the user's model is there in any case, and has to be told that it is off.
    """
    placed = {site.key for site in sites if site.kind == "layer"}
    return {k: v for k, v in strengths.items() if v or k in placed or not CATALOGUE[k.partition("@")[0]].apart}


def strengths_for(model: Any, sites: Sequence[Site], recipes: Sequence[Recipe]) -> list[dict[str, float]]:
    """Each recipe's strengths over the sites that any of them sets or the model brings; 0 where it sets none."""
    resolved = [resolve(recipe.strengths, sites, model) for recipe in recipes]
    keys = [site.key for site in sites if any(site.key in values for values in resolved)]
    return [{key: values.get(key, 0.0) for key in keys} for values in resolved]


def as_recipes(recipes: Any) -> list[Recipe]:
    """One or several recipes, as `Recipe` or mapping, as a list."""
    if recipes is None or isinstance(recipes, (Recipe, Mapping)):
        recipes = [recipes]
    if isinstance(recipes, str) or not isinstance(recipes, Sequence) or not recipes:
        raise TypeError(
            f"Expected a recipe, a mapping such as {{'l2': 0.001}}, or a list of them. Received: recipes={recipes!r}"
        )
    return [recipe if isinstance(recipe, Recipe) else Recipe(recipe) for recipe in recipes]


def checked_seeds(seeds: Any) -> list[int]:
    """The seeds themselves, from how many or which."""
    given: list[Any] = [seeds] if not isinstance(seeds, Iterable) or isinstance(seeds, (str, bytes)) else list(seeds)
    whole = given and all(hasattr(n, "__index__") and not isinstance(n, (bool, np.bool_)) for n in given)
    if whole:
        numbers = [operator.index(n) for n in given]
        numbers = list(range(numbers[0])) if not isinstance(seeds, Iterable) else numbers
        if numbers and all(0 <= n < 2**31 for n in numbers):
            return numbers
    raise ValueError(
        "Invalid value received for argument `seeds`. Expected how many (from 1), or a list of whole numbers from 0 to "
        f"{2**31 - 1}. Received: seeds={seeds!r:.200}"
    )


def checked_count(value: Any, name: str) -> int:
    """A whole number from 1."""
    try:
        count = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:  # such as an array of several
        count = 0
    if count < 1:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected a whole number from 1. Received: {name}={value!r}"
        )
    return count


def checked_init(init: Any) -> str:
    if init not in ("fresh", "keep"):
        raise ValueError(
            f"Invalid value received for argument `init`. Expected 'fresh' or 'keep'. Received: init={init!r}"
        )
    return init


def checked_data(model: Any, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Any:
    """Rows, checked; or a stream, as it is."""
    if not _data.is_stream(x):
        return _data.to_data(model, x, y, sample_weight, class_weight)
    extra = [
        name
        for name, value in (("y", y), ("sample_weight", sample_weight), ("class_weight", class_weight))
        if value is not None
    ]
    if extra:
        raise ValueError(
            f"Expected a stream to bring targets and weights itself, as `(x, y)` or `(x, y, sample_weight)`. Received: also {extra}."
        )
    if isinstance(x, Iterator):
        return _data.kept(x)
    _data.check_ends(x)
    return x


def checked_validation(model: Any, validation: Any) -> _data.Data | None:
    if validation is None:
        return None
    if _data.is_stream(validation):
        return _data.gather(validation)
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ValueError(
            f"Expected `validation_data` as (x, y), (x, y, sample_weight) or a stream. Received: {type(validation).__name__}"
        )
    return _data.to_data(model, *validation, name="validation_data")


def with_recipe(model: Any, recipe: Recipe, **how: Any) -> Any:
    """A model with a recipe, as a population has it: without the layers of techniques that are off and train apart."""
    sites = sites_of(model)
    applied = regularize(model, sites, present(resolve(recipe.strengths, sites, model), sites), **how)
    if recipe.learning_rate is not None:
        _keras.learning_rate_variable(applied.optimizer).assign(recipe.learning_rate)
    return applied


def _fit_alone(
    model: Any, recipe: Recipe, seed: int, epochs: int, plan: Plan, callbacks: Sequence[Any], verbose: Any
) -> Member:
    """Train one member with Keras's own `fit`, for callbacks to watch."""
    schedules = schedules_of(recipe, sites_of(model), model)
    applied = with_recipe(model, recipe, schedules=schedules, init="fresh" if plan.fresh else "keep", seed=seed)
    data = _InOrder(plan, seed) if isinstance(plan.data, _data.Data) else plan.data
    history = applied.fit(  # type: ignore[attr-defined]
        data,
        shuffle=False,  # the order is the member's own, or the stream's
        epochs=recipe.epochs or epochs,
        validation_data=None if plan.validation is None else plan.validation.batch(),
        callbacks=[*([data.at] if isinstance(data, _InOrder) else []), *callbacks],
        verbose=0 if verbose == "auto" else verbose,
    ).history
    finite = np.isfinite(history.get("loss", []))
    diverged = None if finite.all() else int(finite.argmin()) + 1
    return Member(recipe, seed, None, history, diverged, model, [np.asarray(w) for w in as_given(applied)])


class _InOrder(keras.utils.PyDataset):
    """The rows in the order in which a population's member with this seed sees them."""

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__()
        self._plan, self._seed = plan, seed
        self._begin(0)  # a batch is looked at before the first epoch
        # told by `fit`, since Keras ends an epoch of the data once more when it looks at the first batch
        self.at = keras.callbacks.LambdaCallback(on_epoch_begin=self._begin)

    def __len__(self) -> int:
        return -(-self._plan.data.rows // self._plan.batch_size)

    def __getitem__(self, index: int) -> Any:
        data, size = self._plan.data, self._plan.batch_size
        return data.take(self._order[index * size : (index + 1) * size]).batch()

    def _begin(self, epoch: int, logs: Any = None) -> None:
        rows = self._plan.data.rows
        self._order = epoch_order(self._seed, epoch, np.arange(rows), rows, self._plan.shuffle)
