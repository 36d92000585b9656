"""Predictions with their spread: many passes through a network whose noise is left on."""

from typing import Any

import keras
import numpy as np

from regularity import _keras


def mc_predict(model: Any, x: Any, samples: int = 50, batch_size: int = 32, seed: int = 0) -> tuple[Any, Any]:
    """Predict by many passes with dropout and other noise on, and return the mean of the outputs and their spread.

    Batch normalization stays as it is at inference, so that its statistics neither move nor depend on the batch, and nothing
    about the model changes.

    Args:
        model: Any built Keras model with layers that draw at random in training, such as dropout.
        x: Inputs as `predict` takes them: arrays of (rows, ...), one or a structure of them, or a stream.
        samples: Passes for each row, a whole number from 2.
        batch_size: Rows a pass, from 1.
        seed: Whole number from 0, of the draws; the same seed gives the same predictions.

    Returns:
        Mean and standard deviation over the passes, each as `predict` would put it out.

    Raises:
        ValueError: If `samples` or `batch_size` is no such number, or nothing in the model draws.
        TypeError: If `model` is none of Keras.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layers = [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1, kernel_initializer="ones")]
        >>> mean, spread = rg.mc_predict(keras.Sequential(layers), np.ones((4, 3), "float32"), samples=400)
        >>> mean.shape, bool(abs(mean - 3).max() < 0.4), bool(abs(spread - 3**0.5).max() < 0.3)
        ((4, 1), True, True)

    Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep learning", 2016.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a Keras model. Received: model={model!r} (of type {type(model).__name__})")
    for name, value, least in (("samples", samples, 2), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected a whole number from {least}. Received: {name}={value!r}"
            )
    generators = [generator for _, generator in _keras.seed_generators(model)]
    if not generators:
        raise ValueError(
            f"Model {model.name!r} has no layer that draws at random in training, so that all passes would be the same. "
            "Expected one with dropout or other noise."
        )
    before = [np.array(generator.state) for generator in generators]
    means, spreads = [], []
    with _keras.fixed_statistics(model):
        passes = _keras.noisy_passes(model, samples)
        try:
            for number, batch in enumerate(_keras.batches(x, batch_size)):
                for place, generator in enumerate(generators):
                    generator.state.assign(np.random.SeedSequence([seed, number, place]).generate_state(2, "uint32"))
                outputs = passes(batch)
                means.append(keras.tree.map_structure(lambda a: a.mean(0), outputs))
                spreads.append(keras.tree.map_structure(lambda a: a.std(0), outputs))
        finally:
            for generator, state in zip(generators, before, strict=True):
                generator.state.assign(state)
    together = [keras.tree.map_structure(lambda *parts: np.concatenate(parts), *of_all) for of_all in (means, spreads)]
    return together[0], together[1]
