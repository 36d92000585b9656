"""The checks, each declared once: the docs, the command line and the tests come from here.

Codes: 1.. it does nothing, 2.. two things fight, 3.. what is watched or kept, 4.. how strong.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from regularity import _keras
from regularity.checks._check import Check, Found
from regularity.checks._seen import ACTIVATIONS, DROPOUTS, NORMALIZATIONS, Penalty, Seen
from regularity.recipe._regularized import Regularized

CHECKS: list[Check] = []

_ADAPTIVE = tuple(
    getattr(keras.optimizers, name)
    for name in ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lamb", "Adafactor", "Lion")
)
_MOST, _LEAST = 0.9, 0.001  # a rate of dropout beyond which hardly anything, or nothing, is left
_SHIFTS = 0.1  # a rate of dropout from which on it shifts the statistics of a normalization
_NOTHING = 0.1  # nats, of all rows together
_FAR = 30.0  # times a prior may be narrower than the weights are


def _check(code: str, name: str, level: Any, **texts: str) -> Callable[[Any], Any]:
    """Declare a check by what finds it; its docstring is the summary."""

    def declared(find: Any) -> Any:
        CHECKS.append(Check(code, name, level, summary=find.__doc__, find=find, **texts))
        return find

    return declared


# -- 1: it does nothing ------------------------------------------------------------------------------------------------


@_check(
    "RG101", "regularizer-after-build", "wrong",
    why="Keras reads `kernel_regularizer` and its like once, when the layer makes its weights. Set later, exchanged or taken "
    "away, it stands so in `get_config` and looks right, but the loss has what was there before; only a copy, or the model "
    "saved and loaded, follows it.",
    fine="Never: what it says and what it does differ.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
model.layers[0].kernel_regularizer = keras.regularizers.L2(0.01)""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model = rg.Recipe({"l2": 0.01}).apply(model)""",
)  # fmt: skip
def _after_build(seen: Seen) -> Iterator[Found]:
    """A regularizer that was set, exchanged or taken away after the layer made its weights, which has no effect."""
    for path, layer, slot, variable in _slots(seen):
        says, does = getattr(layer, slot), variable.regularizer
        if _is_depthwise(layer, slot) or _is_same(says, does):
            continue
        if does is None:
            why = f"`{slot}` was set after the layer was built, so the loss does not have it."
            yield Found(path, why, _anew(variable, slot))
        elif _keras.is_of_keras(layer) and not isinstance(seen.trained, Regularized):  # these put in what they like
            why = f"`{slot}` is {_in_words(says)}, the loss has {_in_words(does)}: one was changed after the layer was built."
            yield Found(path, why, _anew(variable, slot))


@_check(
    "RG102", "depthwise-kernel-regularizer", "wrong",
    why="A depthwise convolution has `depthwise_regularizer`, a separable one `pointwise_regularizer` besides. Neither has "
    "`kernel_regularizer`: as an argument Keras refuses it, set as an attribute it is silently ignored.",
    fine="Never: it does nothing.",
    bad="""layer = keras.layers.DepthwiseConv2D(3)
layer.kernel_regularizer = keras.regularizers.L2(0.01)
model = keras.Sequential([keras.Input((8, 8, 3)), layer])""",
    good="""layer = keras.layers.DepthwiseConv2D(3, depthwise_regularizer=keras.regularizers.L2(0.01))
model = keras.Sequential([keras.Input((8, 8, 3)), layer])""",
)  # fmt: skip
def _depthwise(seen: Seen) -> Iterator[Found]:
    """A `kernel_regularizer` on a depthwise or separable convolution, which has no such slot."""
    for path, layer in _keras.walk(seen.trained):
        if _is_depthwise(layer, "kernel_regularizer") and vars(layer).get("kernel_regularizer") is not None:
            yield Found(
                path, f"{type(layer).__name__} has no `kernel_regularizer`, so the loss does not have it.",
                f"keras.layers.{type(layer).__name__}(..., depthwise_regularizer=...)",
            )  # fmt: skip


@_check(
    "RG103", "penalty-on-frozen-weights", "doubtful",
    why="Keras adds up penalties over trainable weights alone. A frozen layer keeps its regularizer, and adds nothing; only its "
    "`activity_regularizer` still counts.",
    fine="While the layer is frozen on purpose and thawed later: then the penalty comes with it.",
    bad="""layer = keras.layers.Dense(8, kernel_regularizer="l2", trainable=False)
model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])""",
    good="""layer = keras.layers.Dense(8, trainable=False)
model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])""",
)  # fmt: skip
def _frozen(seen: Seen) -> Iterator[Found]:
    """A regularizer on weights that are frozen, which adds nothing to the loss."""
    trained = {id(variable) for variable in seen.model.trainable_variables}
    frozen = [
        path
        for path, layer in seen.layers
        if not getattr(layer, "lora_enabled", False)  # which freezes the kernel, and penalizes what it adds to it
        and any(id(v) in seen.penalized and id(v) not in trained for v in _keras.own_variables(layer))
    ]
    if frozen:
        yield Found(
            _some(frozen), "What is frozen is not penalized: the loss does not have these regularizers.",
            "layer.trainable = True  # then compile again; or make it without the regularizer",
        )  # fmt: skip


@_check(
    "RG104", "mixed-images-in-the-model", "wrong",
    why="`MixUp` and `CutMix` mix two images and their labels, which they take as a dict with one-hot labels. In a model "
    "they see the images alone: these are mixed, and each keeps the label of its first half. Labels of one whole number a row "
    "come back as a matrix of nonsense.",
    fine="In a graph that takes images and one-hot labels and puts out both; that is not reported.",
    bad="""model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.MixUp(), keras.layers.Flatten(), keras.layers.Dense(2)])""",
    good="""model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
model = rg.Recipe({"mixup": 0.2}).apply(model)""",
)  # fmt: skip
def _mixed(seen: Seen) -> Iterator[Found]:
    """`MixUp` or `CutMix` inside a model, where it mixes images and leaves their labels."""
    for path, layer in seen.layers:
        if isinstance(layer, (keras.layers.MixUp, keras.layers.CutMix)):
            name = type(layer).__name__.lower()
            ranks = {rank for shapes in _keras.taken_shapes(layer) for rank in map(len, shapes)}
            if len(ranks) > 1 and 1 not in ranks:  # of images, and of labels that are one-hot
                continue
            alone = "It mixes the images of a batch and leaves their labels as they are."
            yield Found(
                path, "It takes labels of one number a row, of which it makes nonsense." if 1 in ranks else alone,
                f'model = rg.Recipe({{"{name}": 0.2}}).apply(model)  # with {path!r} left out',
            )  # fmt: skip


# -- 2: two things fight -----------------------------------------------------------------------------------------------


@_check(
    "RG201", "l2-with-an-adaptive-optimizer", "doubtful",
    why="An adaptive optimizer divides the gradient of the penalty by the size of past gradients, like all gradients (Lion takes "
    "the sign of their sum): weights with large gradients are decayed less than those with small ones, which is not what L2 "
    'means under SGD (Loshchilov and Hutter 2019, "Decoupled weight decay regularization").',
    fine="Where the strength was tuned with this very optimizer, as a path or a search does.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_regularizer="l2"), keras.layers.Dense(1)])
model.compile("adam", "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
model.compile("adam", "mse")
model = rg.Recipe({"weight_decay": 0.01}).apply(model)""",
)  # fmt: skip
def _adaptive(seen: Seen) -> Iterator[Found]:
    """An L2 penalty together with an adaptive optimizer, which weakens it where gradients are large."""
    penalized = [p for p in seen.penalties if p.l2 > 0 and not _decayed(seen, p.variable)]
    if penalized and isinstance(seen.optimizer, _ADAPTIVE):
        yield Found(
            _named(penalized),
            f"{type(seen.optimizer).__name__} weakens an L2 penalty where gradients are large; decoupled decay it does not.",
            'model = rg.Recipe({"l2": 0.0, "weight_decay": 0.01}).apply(model)',
        )


@_check(
    "RG202", "l2-with-weight-decay", "doubtful",
    why="Both pull the same weights to zero, each with a strength of its own and, under an adaptive optimizer, at rates of "
    "their own: neither number says how strong the pull is.",
    fine="Where both were tuned together.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", use_bias=False, kernel_regularizer="l2"), keras.layers.Dense(1, use_bias=False)])
model.compile(keras.optimizers.SGD(weight_decay=0.01), "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", use_bias=False, kernel_regularizer="l2"), keras.layers.Dense(1, use_bias=False)])
model.compile(keras.optimizers.SGD(), "mse")""",
)  # fmt: skip
def _both(seen: Seen) -> Iterator[Found]:
    """An L2 penalty on weights that the optimizer decays besides."""
    penalized = [p for p in seen.penalties if p.l2 > 0 and _decayed(seen, p.variable)]
    if penalized:
        yield Found(
            _named(penalized),
            f"The optimizer decays them by {float(seen.optimizer.weight_decay):g} besides.",
            'model = rg.Recipe({"l2": 0.0}).apply(model)  # decays, and does not penalize',
        )


@_check(
    "RG203", "decay-of-biases-and-normalization", "doubtful",
    why="Keras's optimizers decay every trainable weight unless told otherwise: biases too, and the scales and offsets of "
    "normalization. Those are few, do not overfit, and are meant to be free; most training recipes leave them out.",
    fine="It seldom does harm where the decay is weak.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(weight_decay=0.01), "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
optimizer = keras.optimizers.AdamW(weight_decay=0.01)
optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
model.compile(optimizer, "mse")""",
)  # fmt: skip
def _decay_of_all(seen: Seen) -> Iterator[Found]:
    """Weight decay that reaches biases and normalization."""
    names = [
        variable.name
        for path, layer in seen.layers
        for variable in _keras.own_variables(layer)
        if variable.trainable and (len(variable.shape) == 1 or variable.name == "bias") and _decayed(seen, variable)
    ]
    if names:
        which = sorted(set(names))
        yield Found(
            "optimizer", f"It decays {len(names)} variables named {', '.join(which)}.",
            f"optimizer.exclude_from_weight_decay(var_names={which})  # before compile",
        )  # fmt: skip


@_check(
    "RG204", "penalty-before-normalization", "doubtful",
    why="What a normalization takes in may be scaled by anything: it divides by it again. A penalty on the kernel before it "
    "makes the kernel small and changes no prediction; what it does change is the effective learning rate (van Laarhoven "
    '2017, "L2 regularization versus batch and weight normalization").',
    fine="As a way to keep the effective learning rate up, as the recipes of residual networks on ImageNet do.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, kernel_regularizer="l2"), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
model.compile("sgd", "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(1, kernel_regularizer="l2")])
model.compile("sgd", "mse")""",
)  # fmt: skip
def _normalized(seen: Seen) -> Iterator[Found]:
    """An L2 penalty on a kernel whose output is normalized right after, where it changes no prediction."""
    penalized = [penalty for penalty in seen.penalties if penalty.l2 > 0 and _is_normalized(seen, penalty)]
    if penalized:
        yield Found(
            _named(penalized),
            "A normalization divides by the scale of the output again, so the penalty changes no prediction.",
            _made(penalized[0].layer, "without the regularizer"),
        )


@_check(
    "RG205", "dropout-before-batch-normalization", "doubtful",
    why="Dropout changes the variance of what it hands on while training, not at inference; the batch normalization after it "
    'has learnt the variance of training, and shifts every prediction (Li et al. 2019, "Understanding the disharmony between '
    'dropout and batch normalization by variance shift").',
    fine="At rates below 0.1 the shift is small; that is not reported.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.BatchNormalization(), keras.layers.Dense(1)])""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(1)])""",
)  # fmt: skip
def _variance_shift(seen: Seen) -> Iterator[Found]:
    """Dropout right before a batch normalization, whose statistics then differ between training and inference."""
    for path, layer, rate in _dropouts(seen):
        if isinstance(layer, keras.layers.AlphaDropout):  # which keeps mean and variance
            continue
        for after in seen.following(layer, ACTIVATIONS):
            if isinstance(after, keras.layers.BatchNormalization) and not _is_fixed(after) and rate >= _SHIFTS:
                yield Found(
                    path,
                    f"{after.name} learns a variance that there is in training alone.",
                    f"# put {layer.name} after {after.name}",
                )


@_check(
    "RG206", "dropout-after-the-output", "wrong",
    why="Nothing comes after it that could make up for what it leaves out: in training a share of the predictions is zero and "
    "the others are scaled up, whatever the targets are.",
    fine="Where the model puts out features for another; uncompiled, it is not reported.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
model.compile("sgd", "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
model.compile("sgd", "mse")""",
)  # fmt: skip
def _after_output(seen: Seen) -> Iterator[Found]:
    """Dropout of the predictions themselves."""
    for path, layer, _ in _dropouts(seen):
        after = [a for a in seen.following(layer) if isinstance(a, ACTIVATIONS)]
        if seen.optimizer is not None and seen.outputs & {id(each) for each in (layer, *after)}:
            yield Found(path, "It leaves out predictions.", f"# put {layer.name} before the layer that predicts")


@_check(
    "RG207", "constraint-and-penalty", "doubtful",
    why="A unit norm is put back after every step, so that an L2 penalty does nothing; a maximum norm and an L2 penalty both "
    "bound the same norm: where one is tight, the other hardly counts.",
    fine="Non-negative weights may be penalized as others are, and an L1 penalty makes weights sparse within any norm; neither "
    "is reported.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_regularizer="l2", kernel_constraint="unit_norm"), keras.layers.Dense(1)])""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_constraint="unit_norm"), keras.layers.Dense(1)])""",
)  # fmt: skip
def _constrained(seen: Seen) -> Iterator[Found]:
    """A constraint on the norm of weights that have an L2 penalty besides."""
    kinds = (keras.constraints.UnitNorm, keras.constraints.MaxNorm, keras.constraints.MinMaxNorm)
    for penalty in seen.penalties:
        constraint = getattr(penalty.variable, "constraint", None)
        if isinstance(constraint, kinds) and penalty.l2 > 0:
            yield Found(
                penalty.path, f"{type(constraint).__name__} sets the norm that the penalty is to make small.",
                _made(penalty.layer, "with the constraint or the penalty"),
            )  # fmt: skip


@_check(
    "RG208", "recurrent-dropout-is-slow", "doubtful",
    why="The fused kernels of LSTM and GRU on a GPU have no dropout inside the recurrence: with `recurrent_dropout` above 0 "
    "Keras takes its own loop, and says nothing.",
    fine="On a CPU, which has no such kernel, and where it helps enough to be waited for. Layers that have no such kernel anyway, "
    "as with another activation or without bias, are not reported.",
    bad="""model = keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(8, recurrent_dropout=0.2), keras.layers.Dense(1)])""",
    good="""model = keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(8, dropout=0.2), keras.layers.Dense(1)])""",
)  # fmt: skip
def _slow(seen: Seen) -> Iterator[Found]:
    """Dropout inside a recurrence, for which Keras leaves the fast kernel of a GPU."""
    for path, layer in seen.layers:
        if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU)) and _keras.loses_fused_kernel(layer):
            yield Found(
                path, f"recurrent_dropout={float(layer.recurrent_dropout):g} keeps it from the fused kernel of a GPU.",
                _made(layer, "with recurrent_dropout=0.0; dropout, of what it takes, leaves the kernel"),
            )  # fmt: skip


# -- 3: what is watched, and what is kept ------------------------------------------------------------------------------


@_check(
    "RG301", "watches-the-penalty", "doubtful",
    why="Keras's `loss` and `val_loss` both hold the penalties. These go on changing when the predictions do not: a callback "
    "that watches them stops, saves or slows down by the size of the weights, and a tuner that compares strengths by them "
    "compares strengths, not models.",
    fine="Hardly: any metric says what is meant.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_regularizer="l2"), keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mse"])
callbacks = [keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)]""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_regularizer="l2"), keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mse"])
callbacks = [keras.callbacks.EarlyStopping("val_mse", mode="min", restore_best_weights=True)]""",
)  # fmt: skip
def _watched(seen: Seen) -> Iterator[Found]:
    """A callback that watches a loss with penalties in it."""
    for callback in seen.callbacks:
        watches = getattr(callback, "save_best_only", True)  # else a checkpoint has a monitor and never looks
        if watches and seen.penalizes and getattr(callback, "monitor", None) in ("loss", "val_loss"):
            yield Found(
                type(callback).__name__, f"It watches `{callback.monitor}`, which holds the penalty.",
                f'keras.callbacks.{type(callback).__name__}(..., monitor="val_accuracy", mode="max")  # or another metric',
            )  # fmt: skip


@_check(
    "RG302", "early-stopping-keeps-the-last-weights", "wrong",
    why="`EarlyStopping` waits for `patience` epochs without gain, and by default leaves the model as it is after those: with "
    "weights that it has just found to be worse.",
    fine="Where a `ModelCheckpoint` with `save_best_only` keeps the best ones; then it is not reported.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
callbacks = [keras.callbacks.EarlyStopping(patience=5)]""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
callbacks = [keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)]""",
)  # fmt: skip
def _last_weights(seen: Seen) -> Iterator[Found]:
    """`EarlyStopping` that does not restore the best weights."""
    kept = any(isinstance(c, keras.callbacks.ModelCheckpoint) and c.save_best_only for c in seen.callbacks)
    for callback in seen.callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping) and not callback.restore_best_weights and not kept:
            yield Found(
                "EarlyStopping", f"It leaves weights from epochs after the best: {max(1, callback.patience)} of them.",
                "keras.callbacks.EarlyStopping(..., restore_best_weights=True)",
            )  # fmt: skip


@_check(
    "RG303", "averaged-weights-with-statistics-of-others", "doubtful",
    why="An average of weights is put in, but the moving means and variances of batch normalization stay those of the weights "
    'that were averaged over: the two never met (Izmailov et al. 2018, "Averaging weights leads to wider optima", '
    "section 3.2, computes them anew).",
    fine="Where statistics hardly move any more, as late in a long training with a small learning rate.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(use_ema=True), "mse")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(), "mse")
model = rg.Recipe({"ema": 0.99}).apply(model)""",
)  # fmt: skip
def _stale(seen: Seen) -> Iterator[Found]:
    """Averaged weights beside statistics of batch normalization that were not computed for them."""
    swaps = any(isinstance(callback, keras.callbacks.SwapEMAWeights) for callback in seen.callbacks)
    averages = bool(getattr(seen.optimizer, "use_ema", False))
    momentum = getattr(seen.optimizer, "ema_momentum", None) or 0.99
    if isinstance(seen.trained, Regularized):  # computes them anew
        return
    for path, layer in seen.layers:
        if (averages or swaps) and isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            yield Found(
                path, "Its statistics stay those of weights that are not in the model any more.",
                f'model = rg.Recipe({{"ema": {momentum:g}}}).apply(model)  # in place of use_ema',
            )  # fmt: skip
            return


# -- 4: how strong -----------------------------------------------------------------------------------------------------


@_check(
    "RG401", "extreme-dropout", "doubtful",
    why="At a rate of 0.9 nine units in ten are left out at every step, and what is left carries ten times its weight: a layer "
    "needs to be very wide for that. A rate below 0.001 does nothing that can be seen. Often a rate of what to keep was meant.",
    fine="On very wide inputs, such as bags of words.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.95), keras.layers.Dense(1)])""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)])""",
)  # fmt: skip
def _extreme(seen: Seen) -> Iterator[Found]:
    """Dropout at a rate at which hardly anything, or nothing, is left out."""
    cells = [
        (path, float(getattr(layer, name)))
        for path, layer in seen.layers
        for name in ("dropout", "recurrent_dropout")
        if hasattr(layer, "recurrent_dropout") and not isinstance(layer, keras.layers.RNN)  # which has its cell's
    ]
    for path, rate in [(path, rate) for path, _, rate in _dropouts(seen)] + [each for each in cells if each[1] > 0]:
        if rate > _MOST or rate < _LEAST:
            why = "hardly anything is left" if rate > _MOST else "hardly anything is left out"
            yield Found(path, f"At a rate of {rate:g} {why}.", 'path = rg.path(model, x, y, technique="dropout")')


@_check(
    "RG402", "penalty-above-the-data", "doubtful",
    why="With the weights as they are the penalties are more of the loss than the data: the first thing that training will do "
    "is to make weights small, whatever the rows say.",
    fine="Where the data's loss is near zero since the model has been trained; that is not reported, where its optimizer tells.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(1.0)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((20, 4), "float32"), np.ones(20, "float32")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(0.001)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((20, 4), "float32"), np.ones(20, "float32")""",
)  # fmt: skip
def _outweighs(seen: Seen) -> Iterator[Found]:
    """Penalties that are more of the loss than the data."""
    if seen.is_new and seen.penalizes and seen.losses is not None and seen.losses[1] > abs(seen.losses[0]):
        data, penalty = seen.losses
        yield Found(
            "loss",
            f"Penalties are {penalty:.3g} of it, the data {data:.3g}.",
            'path = rg.path(model, x, y, technique="l2")',
        )


@_check(
    "RG403", "l2-far-from-the-data-size", "doubtful",
    why="A penalty of λ times the sum of squares beside the mean loss of n rows says that weights are expected to spread as a "
    "normal distribution with variance 1 / (2 λ n), if the loss is a negative log-likelihood (Bishop 2006, section 3.3). It "
    "is reported where that is 30 times narrower than the weights of a layer are, and where all weights together are worth "
    "less than 0.1 nats over all rows: a model with weights of zero would hardly be more likely before the first row is seen.",
    fine="Where the loss is no log-likelihood, such as a squared error in units of its own.",
    bad="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(1e-7)), keras.layers.Dense(2, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
x = np.ones((200, 4), "float32")""",
    good="""model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(1e-2)), keras.layers.Dense(2, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
x = np.ones((200, 4), "float32")""",
)  # fmt: skip
def _data_size(seen: Seen) -> Iterator[Found]:
    """An L2 penalty many times too weak or too strong for the number of rows."""
    if (
        seen.rows is None
        or seen.optimizer is None
        or "crossentropy" not in _keras.loss_name(_keras.compiled_loss(seen.trained))
    ):
        return
    kernels = [p for p in seen.penalties if p.l2 > 0 and p.l1 == 0 and len(p.variable.shape) > 1]
    squares = [float(np.sum(np.square(keras.ops.convert_to_numpy(p.variable)))) for p in kernels]
    nats = seen.rows * sum(p.l2 * square for p, square in zip(kernels, squares, strict=True))
    mend = 'path = rg.path(model, x, y, technique="l2")'
    if 0 < nats < _NOTHING:
        yield Found(
            _named(kernels), f"Over all {seen.rows} rows it comes to {nats:.2g} nats: too weak to matter.", mend
        )
    for penalty, square in zip(kernels, squares, strict=True):
        size, expected = (square / np.prod(penalty.variable.shape)) ** 0.5, (2 * penalty.l2 * seen.rows) ** -0.5
        if size > _FAR * expected:
            why = (
                f"L2({penalty.l2:g}) and {seen.rows} rows expect weights of about {expected:.2g}; they are {size:.2g}."
            )
            yield Found(penalty.path, why, mend)


# -- what they share ---------------------------------------------------------------------------------------------------


def _slots(seen: Seen) -> Iterator[tuple[str, Any, str, Any]]:
    """Each slot of a layer for a regularizer, with the variable that it is for; quantized layers don't train."""
    for path, layer in _keras.walk(seen.trained):
        for slot in () if getattr(layer, "quantization_mode", None) else vars(layer):
            name = slot.removesuffix("_regularizer")
            if slot == name or slot.startswith("_") or slot == "activity_regularizer":
                continue
            names = (name, f"{name}_kernel", *(["kernel"] if name == "depthwise" else []))
            variables = (getattr(layer, each, None) for each in names)
            variable = next((each for each in variables if isinstance(each, keras.Variable)), None)
            if variable is not None:
                yield path, layer, slot, variable


def _is_same(says: Any, does: Any) -> bool:
    """Whether two regularizers penalize alike; Keras takes their names too."""
    if says is None or does is None:
        return says is does
    says = keras.regularizers.get(says)
    if says is does or type(says) is not type(does):
        return says is does
    try:
        return says.get_config() == does.get_config()
    except (AttributeError, NotImplementedError):  # a class of the user's without one
        return False


def _in_words(regularizer: Any) -> str:
    """A regularizer with its strengths, where these are known."""
    if regularizer is None:
        return "None"
    regularizer = keras.regularizers.get(regularizer)
    known = [f"{getattr(regularizer, name):g}" for name in ("l1", "l2") if hasattr(regularizer, name)]
    return f"{type(regularizer).__name__}({', '.join(known)})"


def _is_depthwise(layer: Any, slot: str) -> bool:
    return slot == "kernel_regularizer" and hasattr(layer, "depthwise_regularizer")


def _anew(variable: Any, slot: str) -> str:
    return f"layer.{variable.name}.regularizer = layer.{slot}  # then compile again"


def _made(layer: Any, how: str) -> str:
    home = "keras.layers." if _keras.is_of_keras(layer) else ""
    return f"{home}{type(layer).__name__}(...)  # {how}"


def _dropouts(seen: Seen) -> Iterator[tuple[str, Any, float]]:
    """Each dropout that is on, with its rate."""
    for path, layer in seen.layers:
        if isinstance(layer, DROPOUTS) and float(layer.rate) > 0:
            yield path, layer, float(layer.rate)


def _is_normalized(seen: Seen, penalty: Penalty) -> bool:
    """Whether it is of a kernel that scales its layer's output, and that is normalized wherever it goes."""
    layer, after = penalty.layer, list(seen.following(penalty.layer))
    linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
    scales = linear and len(penalty.variable.shape) > 1 and not isinstance(layer, keras.layers.PReLU)
    # each feature by its own scale, or all by one, which a bias is not scaled with
    kinds = NORMALIZATIONS if not getattr(layer, "use_bias", False) else (keras.layers.BatchNormalization,)
    undone = bool(after) and all(isinstance(a, kinds) and not _is_fixed(a) for a in after)
    return scales and undone and id(layer) not in seen.outputs


def _is_fixed(normalization: Any) -> bool:
    """Whether it is a frozen batch normalization, which computes with the statistics that it has."""
    return isinstance(normalization, keras.layers.BatchNormalization) and not normalization.trainable


def _decayed(seen: Seen, variable: Any) -> bool:
    optimizer = seen.optimizer
    return bool(getattr(optimizer, "weight_decay", None)) and _keras.decays(optimizer, variable)


def _named(penalties: list[Penalty]) -> str:
    """Their layers in words, not all of many."""
    return _some(list(dict.fromkeys(penalty.path for penalty in penalties)))


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
