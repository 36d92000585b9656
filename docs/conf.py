"""How the documentation is built: `make docs`."""

import os
from importlib.metadata import version as installed_version

os.environ.setdefault("KERAS_BACKEND", "jax")  # the examples run on JAX; Keras reads this when it is first imported

project = "Regularity"
author = "The Regularity developers"
copyright = author
version = release = installed_version("regularity")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # Keras writes its own in another style
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False

doctest_global_setup = """
import keras
import numpy as np

import regularity as rg

keras.utils.set_random_seed(0)
"""

html_theme = "furo"
html_title = "Regularity"
