"""Values are named by what they are, not by what somebody did with them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFUSED = {
    *("told", "asked", "said", "found", "seen", "given", "each", "some", "own"),
    *("taught", "judged", "heard", "known", "learned"),
}


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(name, line) of every variable, argument, attribute, function and class that the tree binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno


@pytest.mark.parametrize("folder", ["lightning_metakd", "tests", "benchmarks", "experiments"])
def test_no_value_is_named_by_a_participle(folder):
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in bound_names(ast.parse(path.read_text()))
        if name in REFUSED
    ]
    assert not faults, "name these values by what they are:\n" + "\n".join(faults)


def test_the_search_finds_every_kind_of_binding():
    source = (
        "def f(told, *seen):\n  said = 1\n  self.own = 2\n  for each in x: pass\n  lambda known: 1"
    )
    names = {name for name, _ in bound_names(ast.parse(source))}
    assert {"told", "seen", "said", "own", "each", "known"} <= names
