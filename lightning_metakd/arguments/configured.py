"""What an object was built with, so that a run from Python knows its settings as one of the command does."""

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Object = TypeVar("Object", bound="Configured")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object lies in memory, as Python shows it."""


class Configured:
    """Remembers the arguments of its constructor.

    `constructor_arguments` are plain values by name, with the defaults, nested as in a configuration.
    """

    constructor_arguments: dict[str, Any]

    def __new__(cls: type[Object], *args: Any, **kwargs: Any) -> Object:
        self = super().__new__(cls)
        self.__dict__["constructor_arguments"] = bound_arguments(cls, args, kwargs)
        return self


def plain_arguments(built: Configured) -> dict[str, Any]:
    """The arguments of a constructor that are plain values, or groups of them; no objects and no lists."""
    return {
        name: value
        for name, value in built.constructor_arguments.items()
        if not isinstance(value, list) and not (isinstance(value, dict) and "class_path" in value)
    }


def bound_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor by name; copying and unpickling give none, and bring them along."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        arguments = signature.bind_partial(None, *args, **kwargs)
    except TypeError:  # the constructor itself says it better
        return {}
    arguments.apply_defaults()
    _, *names = arguments.arguments  # the object itself
    return {name: as_config(arguments.arguments[name]) for name in names}


def as_config(value: Any) -> Any:
    """A value as a configuration has it: classes by their path, with what they were built with.

    Numbers of a tensor are a hash, and those of other libraries are Python's: what is said here goes into
    checkpoints and JSON. Of an object that does not remember it there is what it keeps under the names of its
    arguments, and of a network its modules too; of one that keeps nothing, what it calls itself.
    """
    if isinstance(value, Configured):
        return class_config(value, value.constructor_arguments)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_config(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_config(part) for key, part in value.items()}
    if isinstance(value, list | tuple | nn.ModuleList):
        return [as_config(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(map(as_config, value), key=str)
    if value is None or isinstance(value, bool):
        return value
    for kind, plain in PLAIN.items():
        if isinstance(value, kind):
            return plain(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Tensor):
        content = value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]
    parts = getattr(value, "__dict__", {})
    kept = {name: as_config(parts[name]) for name in parameters(type(value)) if name in parts}
    text = ADDRESS.sub("", repr(value))
    represented: Any = type(value).__repr__
    if isinstance(value, nn.Module):
        kept["modules"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    elif not kept and represented is not object.__repr__:
        return text
    return class_config(value, kept)


PLAIN: Mapping[type, Callable[[Any], Any]] = {
    **{str: str, Integral: int, Real: float},
    os.PathLike: os.fspath,
}
"""How values of several kinds are written."""


def parameters(cls: type) -> list[str]:
    """Names of a constructor's arguments; none where it is not written in Python."""
    try:
        return list(inspect.signature(cls).parameters)
    except ValueError:
        return []


def class_config(value: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An object as a class and its arguments."""
    cls = type(value)
    path = f"{cls.__module__}.{cls.__qualname__}"
    return {"class_path": path, "init_args": dict(arguments)}
