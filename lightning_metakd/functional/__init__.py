"""Pure functions of parameters: binding a network, descending, and differentiating a root."""

from lightning_metakd.functional.bind import after, bind, bind_loss
from lightning_metakd.functional.checkpointing import Draws
from lightning_metakd.functional.implicit import flat, like, newton, solution
from lightning_metakd.functional.inner_loop import descend, lesson_gradient, lesson_mean, step
from lightning_metakd.functional.params import as_key, detach, part, rows, stop, under

__all__ = [
    "Draws",
    "after",
    "as_key",
    "bind",
    "bind_loss",
    "descend",
    "detach",
    "flat",
    "lesson_gradient",
    "lesson_mean",
    "like",
    "newton",
    "part",
    "rows",
    "solution",
    "step",
    "stop",
    "under",
]
