"""The files around the package agree with one another."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def direct_requirements():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = {Requirement(text) for texts in lists for text in texts}
    return sorted((each for each in requirements if each.name != PROJECT["name"]), key=str)


def make_targets():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_constraints_are_exact_pins_that_name_no_host_or_path():
    pin = re.compile(r"[a-z0-9-]+==[0-9]+(\.[0-9a-z]+)*")
    assert [line for line in CONSTRAINTS if not pin.fullmatch(line)] == []


def test_constraints_are_sorted_and_pin_each_package_once():
    names = [line.partition("==")[0] for line in CONSTRAINTS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("requirement", direct_requirements(), ids=str)
def test_direct_dependency_is_pinned_within_its_range(requirement):
    pins = dict(line.split("==") for line in CONSTRAINTS)
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_make_commands_that_are_written_down_exist(page):
    path = ROOT / page
    written = re.findall(r"(?:^|`)\s*make ([a-z]+)", path.read_text() if path.exists() else "", re.MULTILINE)
    assert {"demo", "test", *written} <= make_targets()


# Data pass down this list; a module imports only what stands above it, or beside it in its own folder.
LAYERS = [
    "_keras",
    "loggers",
    "uncertainty",
    "catalogue",
    "data",
    "recipe",
    "compacting",
    "population",
    "report",
    "study",
    "diagnosis",
    "checks",
    "demo",
    "cli",
]


def test_imports_run_one_way():
    source = ROOT / "src" / "regularity"
    for number, layer in enumerate(LAYERS):
        files = [source / f"{layer}.py"] if (source / f"{layer}.py").exists() else (source / layer).rglob("*.py")
        for file in files:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regularity."):
                    imported = node.module.split(".")[1]
                elif isinstance(node, ast.ImportFrom) and node.module == "regularity":
                    imported = node.names[0].name
                else:
                    continue
                assert imported in LAYERS[: number + 1], f"{file.name} imports {imported}"
