"""Place 'batch': rows change before the model sees them, and targets and weights along with them.

Rows have their channels last here; the training step turns those of a model that takes them first.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from regularity import _keras
from regularity.catalogue._draws import normal, uniform
from regularity.catalogue._technique import Technique

# Below this Beta(a, a) is drawn at it, where nearly all draws are 0 or 1: at 0 itself it is not a number.
_SMALLEST_ALPHA = 1e-3


class Pairs(NamedTuple):
    """With what each row is mixed: `share` of it is its own, the rest is that of the row `other`.

    Args:
        other: Numbers of rows, of (rows,).
        share: A number from 0 to 1.
    """

    other: Any
    share: Any

    def mix(self, x: Any) -> Any:
        """`share` of each row and the rest of its partner; to the bit what they are where nothing is mixed."""

        def of_one(a: Any) -> Any:
            share = ops.cast(self.share, a.dtype)
            return ops.where(self.share < 1, share * a + (1 - share) * ops.take(a, self.other, axis=0), a)

        return tree.map_structure(of_one, as_floats(x))

    def mixed(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """`share` of the loss for a row's own target and weight, and the rest of that for its partner's.

        For a cross-entropy that is the loss of the mixture of targets; it is right for any loss, and labels stay what they are.
        """
        # where nothing is mixed a row is its own partner, since 0 times what a loss makes of a missing target is not 0
        other = ops.where(self.share < 1, self.other, ops.arange(ops.shape(self.other)[0]))

        def of_both(y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            theirs = [
                None if a is None else ops.take(ops.convert_to_tensor(a), other, axis=0) for a in (y, sample_weight)
            ]
            own = loss(y, y_pred, sample_weight)
            share = ops.cast(self.share, own.dtype)
            return share * own + (1 - share) * loss(theirs[0], y_pred, theirs[1])

        return of_both

    def twice(self) -> "Pairs":
        """The same pairs where all rows come twice."""
        return Pairs(ops.concatenate([self.other, self.other + ops.shape(self.other)[0]]), self.share)


# Inputs of (rows, ...), one or a structure of them; and what becomes of the targets.
Changed = tuple[Any, Pairs | None]


def mixup(x: Any, alpha: Any, seed: Any) -> Changed:
    """`share * a + (1 - share) * b` of each row `a` with another row `b`, `share ~ Beta(alpha, alpha)`; 0 is the identity."""
    pairs = mixup_pairs(x, alpha, seed)
    return pairs.mix(x), pairs


def mixup_pairs(x: Any, alpha: Any, seed: Any) -> Pairs:
    """What mixup draws for the rows of `x`."""
    share = keras.random.beta((), *[ops.maximum(alpha, _SMALLEST_ALPHA)] * 2, dtype="float32", seed=seed)
    return Pairs(_others(x, seed), ops.where(ops.convert_to_tensor(alpha) > 0, share, 1.0))


def cutmix(x: Any, probability: Any, seed: Any) -> Changed:
    """With some probability, a part of each row comes from another row, and as much of its target.

    The part is a random box of images (rows, height, width, channels), a stretch of sequences (rows, steps, features) or
    a random set of features of (rows, features); its share of the row is uniform from 0 to 1.
    """
    draws = keras.random.uniform((2,), dtype="float32", seed=seed)
    share = ops.where(draws[0] < probability, draws[1], 0.0)
    other = _others(x, seed)
    leaves, kept = [], []
    for a in tree.flatten(x):
        cut = _part(a, share, 1, seed)
        leaves.append(ops.where(cut, ops.take(a, other, axis=0), a))
        kept.append(1.0 - ops.mean(ops.cast(cut, "float32")))
    return tree.pack_sequence_as(x, leaves), Pairs(other, sum(kept) / len(kept))


def cutout(x: Any, share: Any, seed: Any) -> Changed:
    """A part of each row, another for each, becomes 0: a box of images, a stretch of sequences, a random set of features.

    A box or stretch may reach over the border, as in the paper, and then less of the row is cut.
    """
    rows = ops.shape(tree.flatten(x)[0])[0]
    return tree.map_structure(lambda a: ops.where(_part(a, share, rows, seed), ops.zeros_like(a), a), x), None


def input_noise(x: Any, stddev: Any, seed: Any) -> Changed:
    """`x + stddev * noise`, `noise` standard normal."""

    def noisy(a: Any) -> Any:
        return a + ops.cast(stddev * normal(ops.shape(a), seed), a.dtype)

    return tree.map_structure(noisy, as_floats(x)), None


def as_floats(x: Any) -> Any:
    """Rows that may take any value: whole numbers, as of images, become floating-point ones."""

    def of_one(a: Any) -> Any:
        a = ops.convert_to_tensor(a)
        return a if keras.backend.is_float_dtype(a.dtype) else ops.cast(a, keras.config.floatx())

    return tree.map_structure(of_one, x)


def swap_noise(x: Any, probability: Any, seed: Any) -> Changed:
    """Each entry of a row gives way, with some probability, to the one in its place in another row, drawn for itself."""

    def swapped(a: Any) -> Any:
        rows = ops.shape(a)[0]
        other = ops.cast(uniform(ops.shape(a), seed) * rows, "int32")
        swap = uniform(ops.shape(a), seed) < probability

        def of_some(part: Any) -> Any:
            own, other, swap = part
            return ops.where(swap, ops.take_along_axis(a, other, axis=0), own)

        return _by_halves(of_some, (a, other, swap))

    return tree.map_structure(swapped, x), None


def time_mask(x: Any, share: Any, seed: Any) -> Changed:
    """A stretch of steps of each row becomes 0, its length uniform from 0 to `share` of all steps."""
    return tree.map_structure(lambda a: _without_a_stretch(a, 0, share, seed), x), None


def frequency_mask(x: Any, share: Any, seed: Any) -> Changed:
    """A stretch of neighbouring features of each row becomes 0, its length uniform from 0 to `share` of all features."""
    return tree.map_structure(lambda a: _without_a_stretch(a, 1, share, seed), x), None


def _without_a_stretch(a: Any, side: int, share: Any, seed: Any) -> Any:
    """One input with a stretch of each row set to 0 along its first or second side; tables have no sides."""
    if len(a.shape) < 3:
        return a
    axis = side + 1
    rows, size = ops.shape(a)[0], a.shape[axis]
    length, start = ops.unstack(keras.random.uniform((2, rows), dtype="float32", seed=seed))
    # as whole numbers from 0 to the longest, and from 0 to where the stretch still ends inside the row
    length = ops.minimum(ops.floor(length * (ops.floor(share * size) + 1)), ops.floor(share * size))
    start = ops.minimum(ops.floor(start * (size - length + 1)), size - length)
    at = ops.arange(size, dtype="float32")[None]
    inside = (at >= start[:, None]) & (at < (start + length)[:, None])
    inside = ops.reshape(inside, (rows, *(size if i == axis else 1 for i in range(1, len(a.shape)))))
    return ops.where(inside, ops.zeros_like(a), a)


def augment(x: Any, magnitude: Any, seed: Any) -> Changed:
    """Each image turned, shifted and zoomed by Keras's own layers, each by an amount that is uniform up to `magnitude`.

    In shares of a quarter turn, of the sides, and of the size; what comes into the image is its mirror, as Keras has it.
    """
    turn, shift, zoom = (
        keras.layers.RandomRotation(0.25, data_format="channels_last", seed=0),
        keras.layers.RandomTranslation(1.0, 1.0, data_format="channels_last", seed=0),
        keras.layers.RandomZoom(1.0, data_format="channels_last", seed=0),
    )
    # Keras's layers take numbers; inside a compiled step what they keep of them may be a weight as well
    turn.factor = (-0.25 * magnitude, 0.25 * magnitude)
    shift.height_lower = shift.width_lower = zoom.height_lower = -magnitude
    shift.height_upper = shift.width_upper = zoom.height_upper = magnitude

    def augmented(a: Any) -> Any:
        if len(a.shape) != 4:
            return a
        changed = a
        for layer in (turn, shift, zoom):
            changed = layer.transform_images(changed, layer.get_random_transformation(changed, seed=seed))
        return ops.where(magnitude > 0, ops.cast(changed, a.dtype), a)

    return tree.map_structure(augmented, as_floats(x)), None


def _others(x: Any, seed: Any) -> Any:
    """A partner for each row, of (rows,)."""
    return keras.random.shuffle(ops.arange(ops.shape(tree.flatten(x)[0])[0]), seed=seed)


def _by_halves(function: Callable[[Any], Any], arrays: Sequence[Any]) -> Any:
    """What `function` makes of arrays of (rows, ...), half of the rows at a time.

    In a loop what it reads and what it makes are written to memory. Else XLA on CPU computes whatever an entry comes from
    where it is gathered, for one entry after the other: a step with mixup, noise and swaps took five times as long.
    """
    rows = ops.shape(arrays[0])[0]
    if rows % 2:
        arrays = [ops.concatenate([a, a[:1]]) for a in arrays]
    halves = [ops.reshape(a, (2, -1, *a.shape[1:])) for a in arrays]
    return ops.reshape(ops.map(function, halves), (-1, *arrays[0].shape[1:]))[:rows]


def _part(a: Any, share: Any, draws: int, seed: Any) -> Any:
    """Which entries of each row are in a random part of about `share` of it: true or false, of (draws, ...)."""
    if len(a.shape) <= 2:
        return keras.random.uniform((draws, *a.shape[1:]), dtype="float32", seed=seed) < share
    sides = range(1, len(a.shape) - 1)
    inside = ops.ones((draws, *(1 for _ in a.shape[1:])), "bool")
    for axis in sides:
        size = a.shape[axis]
        half = ops.floor(size * ops.power(ops.convert_to_tensor(share, "float32"), 1 / len(sides))) / 2
        centre = ops.floor(size * keras.random.uniform((draws,), dtype="float32", seed=seed))
        at = ops.arange(size, dtype="float32")[None]
        within = (at >= ops.ceil(centre[:, None] - half)) & (at < ops.ceil(centre[:, None] + half))
        inside = inside & ops.reshape(within, (draws, *(size if i == axis else 1 for i in range(1, len(a.shape)))))
    return inside


def _refuses_without(axes: int, what: str) -> Callable[[Any], str | None]:
    """Why a model takes no rows of so many axes or more that can be changed, or None."""

    def refuses(model: Any) -> str | None:
        ranks = [len(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
        if ranks and max(ranks) < axes:
            return f"it has no input with {what}."
        return _keras.why_no_changed_rows(model)

    return refuses


TECHNIQUES = (
    Technique(
        name="mixup",
        place="batch",
        hook="batch",
        summary="Trains on mixtures of pairs of rows and of their targets.",
        helps="Classes overlap or labels are noisy; probabilities become better calibrated.",
        hurts="Rows between two rows mean nothing, as with categories coded as numbers.",
        unit="alpha of the Beta(alpha, alpha) that a row's share in the mixture is drawn from, one draw a batch",
        limits=(0.0, math.inf),
        range=(0.05, 32.0),
        scale="log",
        acts_on="all inputs, which must be numbers, and all targets",
        at_inference="nothing",
        paper="Zhang et al. 2018, mixup: beyond empirical risk minimization",
        function=mixup,
        refuses=_keras.why_no_mixed_rows,
    ),
    Technique(
        name="cutmix",
        place="batch",
        hook="batch",
        summary="Replaces a part of each row by that of another row, and as much of its target.",
        helps="Images, or tables with many columns: each part of the input has to carry the answer.",
        hurts="The answer stands in a small part of the input.",
        unit="probability that a batch is cut and mixed",
        limits=(0.0, 1.0),
        range=(0.0, 1.0),
        scale="linear",
        acts_on="all inputs, which must be numbers, and all targets",
        at_inference="nothing",
        paper="Yun et al. 2019, CutMix: regularization strategy to train strong classifiers; for tables Kadra et al. 2021",
        function=cutmix,
        refuses=_keras.why_no_mixed_rows,
    ),
    Technique(
        name="cutout",
        place="batch",
        hook="batch",
        summary="Sets a random part of each row to 0.",
        helps="Images, or tables with many columns: the network must not lean on one part.",
        hurts="0 means something else than nothing: standardize inputs first.",
        unit="share of a row that is cut out",
        limits=(0.0, 1.0),
        range=(0.0, 0.6),
        scale="linear",
        acts_on="all inputs, which must be numbers",
        at_inference="nothing",
        paper="DeVries and Taylor 2017, Improved regularization of convolutional neural networks with Cutout; for tables Kadra et al. 2021",
        function=cutout,
        refuses=_keras.why_no_changed_rows,
    ),
    Technique(
        name="input_noise",
        place="batch",
        hook="batch",
        summary="Adds Gaussian noise to the inputs at each training step.",
        helps="Inputs are measured and standardized: what differs by less than the noise is the same.",
        hurts="Small differences of inputs matter, or inputs are categories.",
        unit="standard deviation of the noise, in units of the inputs",
        limits=(0.0, math.inf),
        range=(0.01, 1.0),
        scale="log",
        acts_on="all inputs, which must be numbers",
        at_inference="nothing",
        paper="Bishop 1995, Training with noise is equivalent to Tikhonov regularization",
        function=input_noise,
        refuses=_keras.why_no_changed_rows,
    ),
    Technique(
        name="swap_noise",
        place="batch",
        hook="batch",
        summary="Replaces a random share of each row's entries by those of other rows in the same column.",
        helps="Tables whose columns say much about one another: every value stays one that the column has.",
        hurts="One column alone carries the answer.",
        unit="probability that an entry is replaced",
        limits=(0.0, 1.0),
        range=(0.0, 0.4),
        scale="linear",
        acts_on="all inputs, which must be numbers",
        at_inference="nothing",
        paper="Jahrer 2017, Porto Seguro's safe driver prediction, first place; Vincent et al. 2010, Stacked denoising autoencoders",
        function=swap_noise,
        refuses=_keras.why_no_changed_rows,
    ),
    Technique(
        name="time_mask",
        place="batch",
        hook="batch",
        summary="Sets a stretch of steps of each row to 0.",
        helps="Sequences and spectrograms: the answer must not hang on one moment.",
        hurts="0 means something else than nothing, or what matters is short.",
        unit="longest stretch, as a share of all steps",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="all inputs of (rows, steps, ...), which must be numbers",
        at_inference="nothing",
        paper="Park et al. 2019, SpecAugment: a simple data augmentation method for automatic speech recognition",
        function=time_mask,
        refuses=_refuses_without(3, "steps or space"),
    ),
    Technique(
        name="frequency_mask",
        place="batch",
        hook="batch",
        summary="Sets a stretch of neighbouring features of each row to 0, at all its steps.",
        helps="Spectrograms, or sequences of many features whose order means something.",
        hurts="0 means something else than nothing, or single features carry the answer.",
        unit="longest stretch, as a share of all features",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="all inputs of (rows, steps, features, ...), which must be numbers",
        at_inference="nothing",
        paper="Park et al. 2019, SpecAugment: a simple data augmentation method for automatic speech recognition",
        function=frequency_mask,
        refuses=_refuses_without(3, "steps or space"),
    ),
    Technique(
        name="augment",
        place="batch",
        hook="batch",
        summary="Turns, shifts and zooms each image a little, by Keras's RandomRotation, RandomTranslation and RandomZoom.",
        helps="Images of things that stay what they are when they move.",
        hurts="Where things stand is the answer, or images come upright and centred.",
        unit="largest change, as a share of a quarter turn, of the sides and of the size",
        limits=(0.0, 1.0),
        range=(0.0, 0.4),
        scale="linear",
        acts_on="all inputs that are images, which must be numbers",
        at_inference="nothing",
        paper="Simard et al. 2003, Best practices for convolutional neural networks applied to visual document analysis",
        function=augment,
        cost=6.0,
        refuses=_refuses_without(4, "images"),
    ),
)
