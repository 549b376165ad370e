"""How the package hangs together: folders that import downwards only."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import lightning_metakd

PACKAGE = Path(lightning_metakd.__file__).parent
MOST_FOLDERS, MOST_LAYERS, MOST_ARROWS = 18, 8, 75
LOOSE = {"__init__", "__main__", "types"}


def folder_of(module: str) -> str:
    """The folder, or the loose module, in which a dotted name lies: `losses`, `data.sources`, `types`."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    relative = (path if path.is_dir() else path.parent).relative_to(PACKAGE)
    return ".".join(relative.parts) or path.name


def imports() -> dict[str, set[str]]:
    """Which folders each folder imports; the face of the whole and the module that runs it import all."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.parent == PACKAGE and path.stem.startswith("__"):
            continue
        here = folder_of(
            ".".join(("lightning_metakd", *path.relative_to(PACKAGE).with_suffix("").parts))
        )
        named = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("lightning_metakd.")
        }
        graph.setdefault(here, set()).update({folder_of(module) for module in named} - {here})
    return graph


def test_imports_run_downwards_through_few_layers():
    graph = imports()
    layers: dict[str, int] = {}
    for folder in TopologicalSorter(graph).static_order():  # raises where there is a circle
        layers[folder] = 1 + max((layers[below] for below in graph[folder]), default=0)
    assert len(graph) <= MOST_FOLDERS
    assert max(layers.values()) <= MOST_LAYERS, layers
    assert sum(map(len, graph.values())) <= MOST_ARROWS


def test_few_modules_lie_loose():
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_tests_lie_where_the_package_does():
    tests = Path(__file__).parents[1]
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (tests / folder).is_dir()] == []
