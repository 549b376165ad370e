"""How the same numbers are computed faster."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.learners.learner import Learner
from lightning_metakd.models.norm import NormForm


@dataclass(frozen=True)
class Execution:
    """How a meta-step is computed; its result is the same.

    Args:
        tasks_at_once: episodes of a meta-batch that run together, by vmap; null is 1 on a CPU, where more
            gain nothing, and all of them elsewhere, if the learner can; those in which teachers learn run
            one by one.
        compile_step: compile inner steps and the query loss, or a whole task where it has no inner steps or
            several run together: needs a C++ compiler and a minute. `auto` compiles tasks of second order on
            a CPU once the first steps say that it pays. What cannot be compiled runs without, and says so.
    """

    tasks_at_once: int | None = None
    compile_step: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        hint = "or left out for what suits the device"
        if not (isinstance(self.compile_step, bool) or self.compile_step == "auto"):
            raise ValueError(
                f"execution.compile_step={self.compile_step!r} is unknown; choose one of auto, true, false."
            )
        path = "execution.tasks_at_once"
        check_integer(path, self.tasks_at_once, 1, hint=hint, optional=True)

    def check_learner(self, learner: Learner, norm: NormForm) -> None:
        """Raise where a learner cannot run so.

        Raises:
            ValueError: if tasks of the learner cannot run together, or its class does not say its kind.
        """
        learner.check_flags()
        together = self.tasks_at_once is not None and self.tasks_at_once > 1
        if together and not supports_vmap(learner, norm):
            raise ValueError(
                f"tasks_at_once={self.tasks_at_once} runs tasks together, and {type(learner).__name__} with "
                f"norm={norm} cannot: a solver, recomputed steps and norm=tracked take them one by one; "
                "leave tasks_at_once out."
            )

    def tasks_per_call(self, tasks: Sized, device: torch.device, vmap: bool) -> int:
        """How many of the tasks run together.

        Args:
            vmap: whether they can.
        """
        if self.tasks_at_once is not None:
            return self.tasks_at_once
        return 1 if device.type == "cpu" or not vmap else len(tasks)


def lay_out_weights(networks: Iterable[nn.Module], learner: Learner) -> None:
    """Take convolutions back from channels-last, where a gradient of gradients would have slow sums."""
    if learner.second_order:
        for network in networks:
            network.to(memory_format=torch.contiguous_format)


def supports_vmap(learner: Learner, norm: NormForm) -> bool:
    """Whether several tasks can run in the same kernels."""
    return learner.vmap_compatible and norm != "tracked"
