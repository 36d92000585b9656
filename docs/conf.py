"""How the documentation is built: `make docs`."""

import os
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

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


# -- a page for each technique, from its declaration -------------------------------------------------------------------

PAGES = Path(__file__).parent / "catalogue"
PLACES = {
    "batch": "the batch, before the model sees it",
    "activations": "the forward pass",
    "targets": "the targets, when the loss is computed",
    "weights": "a penalty on weights, added to the loss",
    "gradient": "the gradient",
    "update": "the weights, beside the optimizer's step",
}
SCALES = {"log": "logarithmically", "linear": "evenly", "reverse_log": "logarithmically in the distance to 1"}


def write_catalogue(app: Any = None) -> None:
    """Write the pages of the catalogue, those alone that changed, so that Sphinx reads no others again."""
    import regularity as rg

    del app
    techniques = list(rg.techniques().values())
    pages = {technique.name: page(technique) for technique in techniques} | {"index": overview(techniques)}
    PAGES.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = PAGES / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in PAGES.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


def overview(techniques: list[Any]) -> str:
    """All techniques in the order in which data pass through a training step."""
    lines = [
        "# The techniques",
        "",
        "In the order in which data pass through a training step. Each name is a key of a recipe, as in",
        "`rg.Recipe({'dropout': 0.3})`; a path finds its strength, as in `rg.path(model, x, y, technique='dropout')`.",
        "",
    ]
    for place, where in PLACES.items():
        lines += [
            f"## {place}: {where}",
            "",
            "| technique | what it does | range | paper |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| [{t.name}]({t.name}.md) | {t.summary} | {t.range[0]:g} to {t.range[1]:g} | {t.paper} |"
            for t in techniques
            if t.place == place
        ]
        lines.append("")
    names = "\n".join(t.name for t in techniques)
    return "\n".join([*lines, f"```{{toctree}}\n:hidden:\n\n{names}\n```", ""])


def page(technique: Any) -> str:
    """What there is to know about a technique."""
    low, high = technique.range
    off = "None is off" if technique.inverted else "0 is off"
    least, most = technique.limits
    limits = f"from {least:g}{f' to {most:g}' if most < float('inf') else ' up'}"
    limits = "above 0" if technique.inverted else limits
    middle = f"{(0.3 * high if technique.scale == 'linear' else high if technique.scale != 'log' else (low * high) ** 0.5):.1g}"
    if technique.scale == "reverse_log":
        middle = "0.99"
    cost = "about as much as without" if technique.cost < 1.05 else f"about {technique.cost:g} times one without"
    apart = (
        " Members that have it train apart from those that have not, so that these do not pay."
        if technique.apart
        else ""
    )
    rows = {
        "acts on": technique.acts_on,
        "strength": f"{technique.unit}; a number {limits}, {off}",
        "searched": f"from {low:g} to {high:g}, spaced {SCALES[technique.scale]}",
        "a step costs": f"{cost}.{apart}",
        "left at inference": technique.at_inference,
    }
    ours = [kind.__name__ for kind in technique.components]
    if ours:
        home = "regularizers" if technique.place == "weights" or technique.hook == "output" else "layers"
        rows["to place by hand"] = ", ".join(f"`rg.{home}.{name}`" for name in ours)
    stock = [kind.__name__ for kind in technique.stock if kind.__module__.startswith("keras")]
    if stock:
        rows["found in your model as"] = ", ".join(f"`{name}`" for name in stock)
    key = f'"{technique.name}"'
    formula = (technique.function.__doc__ or "").strip().splitlines()[0]
    lines = [
        f"# {technique.name}",
        "",
        technique.summary,
        "",
        f"It acts on {PLACES[technique.place]}: {formula}",
        "",
        f"**It helps where:** {technique.helps}",
        "",
        f"**It hurts where:** {technique.hurts}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {text} |" for name, text in rows.items()),
        "",
        "```{doctest}",
        f">>> recipe = rg.Recipe({{{key}: {middle}}})",
        f">>> recipe[{key}]",
        repr(float(middle)),
        "```",
        "",
        "```python",
        "recipe.apply(model).fit(x, y)                       # train with it",
        f"path = rg.path(model, x, y, technique={key})  # find its strength",
        "path.plot()",
        "```",
        "",
        f"{technique.paper}.",
        "",
    ]
    return "\n".join(lines)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_catalogue)
