"""What there is to choose from, read from the files themselves: nothing is imported for it."""

import ast
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_metakd.storage import zoo
from lightning_metakd.storage.shipped import PACKAGE, shipped

BASES = {
    "recipes": "Recipe",
    "data": "SourceData",
    "sources": "Source",
    "models": "Model",
    "learners": "Learner",
    "losses": "Loss",
    "coefficients": "Coefficient",
    "heads": "Head",
}
"""What the classes of a kind derive from."""

Kind = Literal[
    "recipes",
    "data",
    "sources",
    "models",
    "learners",
    "losses",
    "coefficients",
    "heads",
    "experiments",
    "zoo",
]
WIDTH = 100


class ClassEntry(NamedTuple):
    """A class of the package as its file has it.

    Args:
        bases: the names of what it derives from, without those of other libraries.
        summary: the first line of its docstring.
        methods: those of its body, and of them the abstract ones.
    """

    name: str
    bases: tuple[str, ...]
    summary: str
    methods: frozenset[str]
    abstract: frozenset[str]


@cache
def class_entries() -> dict[str, ClassEntry]:
    """All classes of the package by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    nodes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: class_entry(node) for node in nodes}


def class_entry(node: ast.ClassDef) -> ClassEntry:
    """What is listed of a class."""
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    values: list[ast.expr] = [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
    values += [
        target for part in node.body if isinstance(part, ast.Assign) for target in part.targets
    ]
    abstract = {
        f.name for f in functions if any("abstractmethod" in ast.dump(d) for d in f.decorator_list)
    }
    names = {f.name for f in functions} | {v.id for v in values if isinstance(v, ast.Name)}
    return ClassEntry(
        name=node.name,
        bases=tuple(base.id for base in node.bases if isinstance(base, ast.Name)),
        summary=(ast.get_docstring(node) or "").partition("\n")[0],
        methods=frozenset(names),
        abstract=frozenset(abstract),
    )


def lineage(name: str, entries: dict[str, ClassEntry]) -> Iterator[ClassEntry]:
    """A class and those of the package that it derives from, itself first."""
    if name in entries:
        yield entries[name]
        for base in entries[name].bases:
            yield from lineage(base, entries)


def is_abstract(name: str, entries: dict[str, ClassEntry]) -> bool:
    """Whether a method of a class is still to be written."""
    defined: set[str] = set()
    for entry in lineage(name, entries):
        if entry.abstract - defined:
            return True
        defined |= entry.methods
    return False


def classes_of(kind: str) -> dict[str, str]:
    """The classes of a kind that a configuration can name, with what each is."""
    entries = class_entries()
    return {
        name: entries[name].summary
        for name in sorted(entries)
        if any(entry.name == BASES[kind] for entry in lineage(name, entries))
        and not is_abstract(name, entries)
    }


def experiments() -> dict[str, str]:
    """The experiments that come with the package, with what each is for."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted((shipped("configs") / "experiment").glob("*.yaml"))
    }


def entries_of(kind: str) -> dict[str, str]:
    """Names of a kind with a line each."""
    if kind == "experiments":
        return experiments()
    if kind == "zoo":
        return {f"{zoo.PREFIX}{name}": str(zoo.card(name)["purpose"]) for name in zoo.names()}
    return classes_of(kind)


def lines_of(entries: dict[str, str]) -> Iterable[str]:
    """A line for each name, which fits a terminal."""
    width = min(max(map(len, entries), default=0), 42)
    for name, summary in entries.items():
        text = textwrap.shorten(summary, WIDTH - 4 - max(width, len(name)), placeholder=" ...")
        yield f"  {name:<{width}}  {text}"


def print_list(kind: Kind | None = None) -> None:
    """Print what there is to choose from, a line each.

    Args:
        kind: of these alone.
    """
    kinds = [*BASES, "experiments", "zoo"] if kind is None else [kind]
    print("\n\n".join("\n".join([f"{name}:", *lines_of(entries_of(name))]) for name in kinds))


def copy_configs(output: Path = Path("configs")) -> None:
    """Copy the configurations that come with the package, to change them.

    Args:
        output: the folder to make.

    Raises:
        FileExistsError: if it is there.
    """
    if output.exists():
        raise FileExistsError(f"output={str(output)!r} is there already; name a new folder.")
    shutil.copytree(shipped("configs"), output)
    print(f"{sum(1 for _ in output.rglob('*.yaml'))} configurations copied to {output}")
