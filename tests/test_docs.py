"""The docs have a place for everything, and can all be reached."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
SPHINX_OWN = {"genindex", "py-modindex", "search"}  # pages that Sphinx writes over ours without a word


def pages():
    return {page.stem for page in DOCS.glob("*.md")} - {"index"}


def test_no_page_has_a_name_that_sphinx_takes_for_itself():
    assert not pages() & SPHINX_OWN


def test_every_page_stands_in_the_index_with_what_it_is_about():
    index = (DOCS / "index.md").read_text()
    named = set(re.findall(r"\]\(([a-z-]+)\.md\)", index))
    listed = set(re.findall(r"^([a-z-]+)$", index, re.MULTILINE))
    assert named == listed == pages()
