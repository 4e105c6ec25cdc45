"""The specification stays what it promises: NumPy and SciPy only, laid out alike, on one screen."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

from vgf import spec
from vgf.spec.registry import Declared, find, names


def methods():
    """The specification of every method of this package."""
    found = (find(Declared, name, "method") for name in names(Declared) if ":" not in name)
    return list(found)


FOLDER = Path(spec.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
ALLOWED = {"numpy", "scipy"} | set(sys.stdlib_module_names)
FUNCTIONS = {
    name: function
    for name, function in vars(spec).items()
    if inspect.isfunction(function) and not name.startswith("_")
}
# what a method does; the rest of it is declarations
METHODS = {
    f"{cls.__name__}.{name}": function
    for cls in (*map(type, methods()), spec.Specification)
    for name, function in vars(cls).items()
    if name in ("gradients", "propose", "move", "values")
}
SCREEN = 66  # lines, docstring and all
SECTIONS = ("Shapes:", "Equation:", "Source:")


def imported(source, depth=1):
    """The packages that a file imports, leaving out its neighbours in the specification.

    `depth` is how many folders up vgf itself is.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module.partition(".")[0]
            elif node.level > depth:
                yield f"vgf outside spec: {node.module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_imports_are_numpy_and_scipy(path):
    depth = len(path.relative_to(FOLDER).parts)
    assert set(imported(path.read_text(), depth)) <= ALLOWED


def test_the_import_check_notices_a_framework():
    assert set(imported("import torch.nn")) - ALLOWED == {"torch"}
    assert set(imported("from ..backends import x")) - ALLOWED
    assert set(imported("def f():\n    import jax")) - ALLOWED == {"jax"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS | METHODS))
def test_docstrings_are_laid_out_alike(name):
    function = (FUNCTIONS | METHODS)[name]
    doc = inspect.getdoc(function)
    assert doc, f"{name} has no docstring"
    places = [doc.find(f"\n{section}") for section in SECTIONS]
    assert all(place > 0 for place in places), f"{name} lacks one of {SECTIONS}"
    assert places == sorted(places)
    raises = "raise ValueError" in inspect.getsource(function)
    assert not raises or "\nRaises:" in doc


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_how_is_described_where_it_is_an_argument(name):
    function = FUNCTIONS[name]
    if "how" in inspect.signature(function).parameters:
        text = " ".join((inspect.getdoc(function) or "").split())
        assert re.search(r'how: "(mean|min)"', text), f"{name} does not say what `how` is"


@pytest.mark.parametrize("name", sorted(FUNCTIONS | METHODS))
def test_functions_fit_on_a_screen(name):
    assert len(inspect.getsource((FUNCTIONS | METHODS)[name]).splitlines()) <= SCREEN


def test_the_table_of_equations_names_every_function():
    table = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"`(\w+)`", table))
    assert set(FUNCTIONS) <= named, f"not in the table: {sorted(set(FUNCTIONS) - named)}"


def test_the_table_of_equations_links_to_the_lines_of_its_functions():
    table = (FOLDER / "README.md").read_text()
    links = re.findall(r"\[`(\w+)`\]\(([\w/]+\.py)\)", table)
    assert len(links) > 50
    for name, file in links:
        assert re.search(rf"^(def|class) {name}\(", (FOLDER / file).read_text(), re.M) or re.search(
            rf"^class {name}:", (FOLDER / file).read_text(), re.M
        ), f"{name} is not in {file}"
