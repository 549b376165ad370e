"""Parameters in flat dictionaries, and nested tuples of tensors."""

from typing import TypeVar

from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_metakd.types import Batch, Params

T = TypeVar("T")


def detach(params: Params) -> dict[str, Tensor]:
    """The same values without their graph."""
    return {name: p.detach() for name, p in params.items()}


def detach_tree(tree: T) -> T:
    """The same values without their graph, for any nested tuple of tensors."""
    return tree_map(lambda leaf: leaf.detach(), tree)


def subtree(params: Params, prefix: str) -> dict[str, Tensor]:
    """The parameters under one prefix of a flat dictionary, named without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): p for name, p in params.items() if name.startswith(start)}


def with_prefix(prefix: str, params: Params) -> dict[str, Tensor]:
    """The inverse of `subtree`."""
    return {f"{prefix}.{name}": p for name, p in params.items()}


def select_rows(batch: Batch, part: slice | Tensor) -> Batch:
    """Some rows of a batch, their teachers' outputs included."""
    return tree_map(lambda leaf: leaf[part], batch)
