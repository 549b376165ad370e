"""How the package hangs together: folders that import downwards only."""

import ast
import io
import keyword
import re
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import lightning_metakd

PACKAGE = Path(lightning_metakd.__file__).parent
MOST_FOLDERS, MOST_LAYERS, MOST_ARROWS = 20, 8, 87
MOST_LINES = 300
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


def test_no_file_is_long():
    lines = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_few_modules_lie_loose():
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_tests_lie_where_the_package_does():
    tests = Path(__file__).parents[1]
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (tests / folder).is_dir()] == []


LINES = 10
"""So many lines in a row that two places share are one idea written twice."""


def statements(path: Path) -> list[tuple[int, str]]:
    """(number, shape) of each line of a function's body: names and constants stand for one another."""
    source = path.read_text(encoding="utf-8")
    inside = {
        line
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for part in function.body
        if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
    }
    shapes: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.start[0] in inside and token.string.strip() and token.type != tokenize.COMMENT:
            name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
            value = token.type in (tokenize.NUMBER, tokenize.STRING)
            shape = "name" if name else "value" if value else token.string
            shapes.setdefault(token.start[0], []).append(shape)
    return [(line, " ".join(shape)) for line, shape in sorted(shapes.items())]


def test_no_two_places_share_ten_lines():
    places: dict[tuple[str, ...], list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        lines = statements(path)
        for i in range(len(lines) - LINES + 1):
            window = tuple(shape for _, shape in lines[i : i + LINES])
            places.setdefault(window, []).append(f"{path.relative_to(PACKAGE)}:{lines[i][0]}")
    assert [shared for shared in places.values() if len(shared) > 1] == []


def documented(node: ast.FunctionDef | ast.ClassDef, section: str) -> set[str]:
    """The names that a section of a docstring describes."""
    described = re.search(
        rf"^{section}:\n((?: {{4}}.*\n|\n)*)", f"{ast.get_docstring(node) or ''}\n", re.M
    )
    return set(re.findall(r"^ {4}(\w+):", described.group(1), re.M)) if described else set()


def parameters(function: ast.FunctionDef) -> set[str]:
    """The names of a function's arguments."""
    arguments = function.args
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs, *extra)}


def is_record(node: ast.ClassDef) -> bool:
    """Whether a class is a named tuple or a dataclass, whose fields stand in its body."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return "NamedTuple" in bases or any(d.startswith("dataclass") for d in decorators)


def test_docstrings_describe_arguments_that_exist():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                wrong += [
                    (path.name, node.name, n) for n in documented(node, "Args") - parameters(node)
                ]
            elif isinstance(node, ast.ClassDef) and is_record(node):
                names = {f.target.id for f in node.body if isinstance(f, ast.AnnAssign)}
                sections = documented(node, "Attributes") | documented(node, "Args")
                wrong += [(path.name, node.name, n) for n in sections - names]
            elif isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        names = documented(node, "Args") - parameters(method)
                        wrong += [(path.name, node.name, n) for n in names]
    assert wrong == []
