"""Parts of a computation that are compiled each by itself, once, however often they run.

A whole task as one graph has every inner step in it anew, and takes minutes to compile. Its steps are alike:
one region for a step and one for the query rows run as fast, and compile in a third of the time.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

P = ParamSpec("P")
R = TypeVar("R")
active = False
"""Whether regions are compiled at present."""


@cache
def compiled(function: Callable[..., R]) -> Callable[..., R]:
    """The function as one graph, compiled when it first meets a network, a loss or a shape."""
    # tracing looks at the gradients of all that goes in, of which inner parameters have none
    warnings.filterwarnings(
        "ignore", message=r"The \.grad attribute of a Tensor that is not a leaf"
    )
    return torch.compile(function, fullgraph=True, dynamic=False)


@contextmanager
def compiled_regions(on: bool) -> Iterator[None]:
    """Compile the regions that run inside.

    Args:
        on: false leaves them as they are.
    """
    global active
    before, active = active, on
    try:
        yield
    finally:
        active = before


def region(function: Callable[P, R]) -> Callable[P, R]:
    """Make a pure function one that is compiled inside `compiled_regions`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not active:
            return function(*args, **kwargs)
        return compiled(function)(*tree_map(no_leaf, args), **kwargs)

    return run


def no_leaf(leaf: Any) -> Any:
    """A view of a parameter: a leaf, and what a step makes of it, would be compiled apart."""
    return (
        leaf.view_as(leaf)
        if isinstance(leaf, Tensor) and leaf.is_leaf and leaf.requires_grad
        else leaf
    )
