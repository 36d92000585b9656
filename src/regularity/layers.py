"""Layers whose strengths are weights, for any Keras model on any backend."""

from regularity.catalogue.activations import Dropout

__all__ = ["Dropout"]
