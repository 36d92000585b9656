"""The docs have a place for everything, and can all be reached; every public name says what it takes, with an example that runs."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import regularity as rg

DOCS = Path(__file__).parents[1] / "docs"
SPHINX_OWN = {"genindex", "py-modindex", "search"}  # pages that Sphinx writes over ours without a word
COMPONENTS = {
    f"{home.__name__}.{name}": getattr(home, name) for home in (rg.layers, rg.regularizers) for name in home.__all__
}
PUBLIC = {
    **{f"regularity.{name}": getattr(rg, name) for name in rg.__all__ if not inspect.ismodule(getattr(rg, name))},
    **{f"{home.__name__}.{name}": getattr(home, name) for home in (rg.loggers, rg.sklearn) for name in home.__all__},
    **COMPONENTS,
}


def pages():
    return {page.stem for page in DOCS.glob("*.md")} - {"index"}


def test_no_page_has_a_name_that_sphinx_takes_for_itself():
    assert not pages() & SPHINX_OWN


def test_every_page_stands_in_the_index_with_what_it_is_about():
    index = (DOCS / "index.md").read_text()
    named = set(re.findall(r"\]\(([a-z-]+)\.md\)", index))
    listed = set(re.findall(r"^([a-z-]+)$", index, re.MULTILINE))
    assert named == listed == pages()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_takes_and_shows_it(name):
    said = inspect.getdoc(PUBLIC[name]) or ""
    arguments = re.search(r"^Args:\n((?:    .*\n|\n)*)", said + "\n", re.MULTILINE)
    described = set(re.findall(r"^    \*{0,2}(\w+): .", arguments[1] if arguments else "", re.MULTILINE))
    described |= {"name", "dtype", "kwargs"} if name in COMPONENTS else set()  # what every layer of Keras takes
    # of a layer's own making: some Pythons have `Layer.__new__` in its place
    made_by = PUBLIC[name].__init__ if name in COMPONENTS else PUBLIC[name]
    takes = inspect.signature(made_by).parameters if PUBLIC[name] is not rg.Findings else ()  # nobody makes one
    assert {argument for argument in takes if argument[0] != "_"} - {"self"} - described == set()
    assert ">>> " in said


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_says_where_it_comes_from_and_what_it_refuses(name):
    assert re.search(r", (19|20)\d\d", COMPONENTS[name].__doc__)
    assert "Raises:" in COMPONENTS[name].__doc__


def test_every_public_name_stands_on_the_api_page():
    page = (DOCS / "api.md").read_text()
    of_modules = {name for name in PUBLIC if f"automodule:: {name.rpartition('.')[0]}" in page}
    names = re.findall(r"auto(?:class|function):: ([\w.]+)", page)
    assert of_modules | {f"regularity.{name.removeprefix('regularity.')}" for name in names} == set(PUBLIC)


def test_every_example_in_a_docstring_is_one_of_a_public_name_and_so_runs_with_that_page():
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(rg.__path__, "regularity.")]
    found = [test.name for module in modules for test in doctest.DocTestFinder().find(module) if test.examples]
    homes = {f"{value.__module__}.{value.__qualname__}" for value in PUBLIC.values()}
    assert found
    assert [name for name in found if not {name, name.rpartition(".")[0]} & homes] == []
