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
CHECK_PAGES = Path(__file__).parent / "checks"
PLACES = {
    "batch": "the rows, before the model sees them",
    "activations": "the forward pass",
    "targets": "what the prediction is compared with",
    "weights": "penalties on weights, added to the loss",
    "gradient": "where the gradient is taken, and what becomes of it",
    "update": "the weights, beside the optimizer's step",
}
SCALES = {"log": "logarithmically", "linear": "evenly", "reverse_log": "logarithmically in the distance to 1"}


def write_catalogue(app: Any = None) -> None:
    """Write the pages of the catalogue, those alone that changed, so that Sphinx reads no others again."""
    import regularity as rg

    del app
    techniques = list(rg.techniques().values())
    write(PAGES, {technique.name: page(technique) for technique in techniques} | {"index": overview(techniques)})


def write(folder: Path, pages: dict[str, str]) -> None:
    """Write pages by name into a folder of their own, those alone that changed."""
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.md"):
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
            row(f"[{t.name}]({t.name}.md)", t.summary, f"{t.range[0]:g} to {t.range[1]:g}{off(t)}", t.paper)
            for t in techniques
            if t.place == place
        ]
        lines.append("")
    names = "\n".join(t.name for t in techniques)
    return "\n".join([*lines, f"```{{toctree}}\n:hidden:\n\n{names}\n```", ""])


def row(*cells: str) -> str:
    """A row of a table; a bar inside a cell would end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def off(technique: Any) -> str:
    """What a reader of a range has to know where 0 is not 'off'."""
    return "; None is off" if technique.inverted else ""


def page(technique: Any) -> str:
    """What there is to know about a technique."""
    low, high = technique.range
    least, most = technique.limits
    limits = f"a number from {least:g}{f' to {most:g}' if most < float('inf') else ' up'}; 0 is off"
    if technique.inverted:
        limits = "a number above 0, the smaller the stronger; None is off"
    middle = f"{(0.3 * high if technique.scale == 'linear' else high if technique.scale != 'log' else (low * high) ** 0.5):.1g}"
    if technique.scale == "reverse_log":
        middle = "0.99"
    cost = "at least as much as one without"
    if technique.cost > 1:
        cost = f"about {technique.cost:g} times one without, less where the gradient is a small part of it"
    if technique.apart:
        cost += "; members that have it train apart from those that have not, so that these do not pay"
    whole = "; a key takes no pattern" if technique.reach == "model" else ""
    rows = {
        "acts on": technique.acts_on + whole,
        "strength": technique.unit.removesuffix("; None for no bound"),
        "allowed": limits,
        "searched": f"from {low:g} to {high:g}, spaced {SCALES[technique.scale]}",
        "a step costs": cost,
        "left at inference": technique.at_inference,
    }
    if technique.components:
        home = "regularizers" if technique.place == "weights" or technique.hook == "output" else "layers"
        rows["to place by hand"] = ", ".join(
            f"{{class}}`rg.{home}.{kind.__name__} <regularity.{home}.{kind.__name__}>`" for kind in technique.components
        )
    stock = [kind.__name__ for kind in technique.stock if kind.__module__.startswith("keras")]
    if stock:
        rows["found in your model as"] = ", ".join(f"`{name}`" for name in stock)
    key = f'"{technique.name}"'
    formula = (technique.function.__doc__ or "").strip().splitlines()[0]
    if technique.hook == "output":
        formula = formula.rstrip(".") + "; here `w` are the outputs, and the sum is averaged over the batch."
    lines = [
        f"# {technique.name}",
        "",
        technique.summary,
        "",
        f"**Place in a step:** `{technique.place}` ({PLACES[technique.place]}).",
        "",
        f"**What is computed:** {formula}",
        "",
        f"**It helps where:** {technique.helps}",
        "",
        f"**It hurts where:** {technique.hurts}",
        "",
        "| | |",
        "| --- | --- |",
        *(row(name, text) for name, text in rows.items()),
        "",
        "```{doctest}",
        f">>> recipe = rg.Recipe({{{key}: {middle}}})",
        f">>> recipe[{key}]",
        repr(float(middle)),
        "```",
        "",
        "```python",
        "recipe.apply(model).fit(x, y)  # trains with it",
        f"rg.path(model, x, y, technique={key}).plot()  # finds its strength",
        "```",
        "",
        f"{technique.paper}.",
        "",
    ]
    return "\n".join(lines)


# -- a page for each check, likewise -----------------------------------------------------------------------------------


def write_checks(app: Any = None) -> None:
    """Write the pages of the checks."""
    from regularity.checks import CHECKS

    del app
    lines = ["# The checks", "", "| code | name | | what it finds |", "| --- | --- | --- | --- |"]
    lines += [row(c.code, f"[{c.name}]({c.name}.md)", c.level, c.summary) for c in CHECKS]
    names = "\n".join(c.name for c in CHECKS)
    index = "\n".join([*lines, "", f"```{{toctree}}\n:hidden:\n\n{names}\n```", ""])
    write(CHECK_PAGES, {check.name: check_page(check) for check in CHECKS} | {"index": index})


def check_page(check: Any) -> str:
    """What there is to know about a check; its examples run."""
    lines = [
        f"# {check.code} {check.name}",
        "",
        check.summary,
        "",
        f"**Why:** {check.why}",
        "",
        f"**It may stay where:** {check.fine}",
        "",
    ]
    for title, code, found in (("It is found in", check.bad, [check.name]), ("and not in", check.good, [])):
        given = "".join(
            f", {name}" for name in ("x", "y") if f"{name}, y =" in code or f"{name} =" in code or f", {name} =" in code
        )
        given += ", callbacks=callbacks" if "callbacks =" in code else ""
        prompts = [f">>> {line}" for line in code.splitlines()]
        lines += [
            title,
            "",
            "```{doctest}",
            *prompts,
            f">>> [finding.name for finding in rg.check(model{given})]",
            repr(found),
            "```",
            "",
        ]
    return "\n".join(lines)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_catalogue)
    app.connect("builder-inited", write_checks)
