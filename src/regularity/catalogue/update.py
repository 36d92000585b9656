"""Place 'update': what happens to the weights beside the optimizer's step."""

import math
from typing import Any

from regularity.catalogue._technique import Technique


def weight_decay(variable: Any, strength: Any, learning_rate: Any) -> Any:
    """`w - learning_rate * strength * w`, apart from the gradient, as Keras's optimizers do it."""
    return variable - variable * strength * learning_rate


TECHNIQUES = (
    Technique(
        name="weight_decay",
        place="update",
        summary="Shrinks weights by a share of themselves at each step, apart from the gradient.",
        unit="share of the weight per step, times the learning rate",
        limits=(0.0, math.inf),
        range=(1e-4, 1.0),
        scale="log",
        acts_on="kernels of trainable layers, and every variable that the optimizer decays already",
        at_inference="nothing",
        paper="Loshchilov and Hutter 2019, Decoupled weight decay regularization",
        function=weight_decay,
    ),
)
