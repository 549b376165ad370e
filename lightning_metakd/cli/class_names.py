"""The classes that a setting takes, for the line that says why one of them does not fit."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any, get_args

from torch import nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.cli.parser import nearest, shortened
from lightning_metakd.models.model import Model


def unfit_class(name: str, key: str, parser: argparse.ArgumentParser) -> str:
    """That a class does not exist or does not fit, and why; those that do, and the nearest."""
    module, _, last = name.rpartition(".")
    kinds, part = tuple(base_classes(parser, key)), getattr(sys.modules.get(module), last, None)
    if isinstance(part, type) and issubclass(part, Configured) and kinds:
        if issubclass(part, kinds):
            missing = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
            return f"={name} cannot be built: it does not define {missing}"
        wanted = " or ".join(kind.__name__ for kind in kinds)
        return f"={name} derives from {part.__bases__[0].__name__}, and a {wanted} is wanted"
    names = sorted({match.__name__ for kind in kinds for match in named_classes(kind)})
    listed = f"one of {', '.join(names)}, or " if names else ""
    return (
        f"={shortened(name)} is no class that can be used here; give {listed}the full path of your own"
        f"{(near := nearest(name.rsplit('.', 1)[-1], names)) and ';'}{near}"
    )


def base_classes(parser: argparse.ArgumentParser, key: str) -> Iterator[type]:
    """The classes of which a setting takes subclasses."""
    for action in parser._actions:
        if action.dest == key:
            pending: list[Any] = [getattr(action, "_typehint", None)]
            while pending:
                hint = pending.pop()
                pending += get_args(hint)
                if isinstance(hint, type) and hint.__module__ != "builtins":
                    yield Model if hint is nn.Module else hint


def named_classes(base: type) -> Iterator[type]:
    """The classes of the package that a configuration can name where it wants a `base`."""
    inside = base.__module__.startswith("lightning_metakd.")
    if inside and not getattr(base, "__abstractmethods__", None):
        yield base
    derived: list[type] = base.__subclasses__()
    for kind in derived:
        yield from named_classes(kind)
