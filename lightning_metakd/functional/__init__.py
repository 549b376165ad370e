"""Pure functions: binding a network, descending, differentiating a root."""

from lightning_metakd.functional.bind import bind, bind_loss, with_support_statistics
from lightning_metakd.functional.checkpointing import Draws
from lightning_metakd.functional.implicit import flatten, implicit_root, newton_krylov, unflatten
from lightning_metakd.functional.inner_loop import descend, inner_gradient, mean_loss, step
from lightning_metakd.functional.params import (
    detach,
    detach_tree,
    select_rows,
    subtree,
    with_prefix,
)

__all__ = [
    "Draws",
    "bind",
    "bind_loss",
    "descend",
    "detach",
    "detach_tree",
    "flatten",
    "implicit_root",
    "inner_gradient",
    "mean_loss",
    "newton_krylov",
    "select_rows",
    "step",
    "subtree",
    "unflatten",
    "with_prefix",
    "with_support_statistics",
]
