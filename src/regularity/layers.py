"""Layers whose strengths are weights, for any Keras model on any backend."""

from regularity.catalogue.activations import (
    AlphaDropout,
    BatchNormalization,
    ConcreteDropout,
    DropBlock2D,
    Dropout,
    DropPath,
    GaussianDropout,
    GaussianNoise,
    ShakeDrop,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
    TokenDropout,
)

__all__ = [
    "AlphaDropout",
    "BatchNormalization",
    "ConcreteDropout",
    "DropBlock2D",
    "DropPath",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "ShakeDrop",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "TokenDropout",
]
