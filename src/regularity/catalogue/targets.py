"""Place 'targets': what the prediction is compared with."""

from typing import Any

from regularity import _keras
from regularity.catalogue._technique import Technique


def label_smoothing(targets: Any, strength: Any, classes: int) -> Any:
    """`(1 - strength) * targets + strength / classes`."""
    return targets * (1.0 - strength) + strength / classes


def _refuses(model: Any) -> str | None:
    return _keras.why_not_the_step(model) or _keras.why_no_soft_targets(model)


TECHNIQUES = (
    Technique(
        name="label_smoothing",
        place="targets",
        hook="targets",
        summary="Moves a share of each target's probability from its class to all classes evenly.",
        helps="Labels are noisy or the network is far too sure of itself.",
        hurts="Probabilities are to be used as such: it makes them less sure, rightly or not.",
        unit="share of the probability that is spread over all classes",
        limits=(0.0, 1.0),
        range=(0.0, 0.4),
        scale="linear",
        acts_on="every cross-entropy of the model, binary or categorical, with one-hot or whole-number labels",
        at_inference="nothing",
        paper="Szegedy et al. 2016, Rethinking the Inception architecture for computer vision",
        function=label_smoothing,
        refuses=_refuses,
    ),
)
