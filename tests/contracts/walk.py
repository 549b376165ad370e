"""Which configurations there are, and which classes a file names, references followed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.commands import CONFIGS


def configs(kind: str) -> list[Path]:
    return sorted((CONFIGS / kind).rglob("*.yaml"))


def content(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def named_classes(spec: Any, folder: Path, at: tuple[Any, ...] = ()) -> Iterator[tuple]:
    """(path of keys, last part of the class path) of every class that a configuration names."""
    if isinstance(spec, str) and spec.endswith(".yaml"):
        path = folder / spec
        yield from named_classes(content(path), path.parent, at)
    elif isinstance(spec, dict):
        if "class_path" in spec:
            yield at, spec["class_path"].rpartition(".")[2]
        for key, value in spec.items():
            yield from named_classes(value, folder, (*at, key))
    elif isinstance(spec, list):
        for place, value in enumerate(spec):
            yield from named_classes(value, folder, (*at, place))


def class_at(config: Any, at: tuple[Any, ...]) -> str:
    """Last part of the class path that a parsed configuration has at some keys."""
    for key in at:
        config = config[key]
    return config["class_path"].rpartition(".")[2]
