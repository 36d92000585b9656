"""Layers whose strengths are weights, for any Keras model on any backend."""

from regularity.techniques.activations import Dropout

__all__ = ["Dropout"]
