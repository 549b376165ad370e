"""The outer update: one scalar, one backward, one step of everything that it moves.

One `manual_backward` to the leaf parameters (several processes then average it), clip, step through
Lightning's optimiser, schedule, average. No gradient is ever assigned by hand: replicas would drift apart
silently.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_metakd.models.model import Model
from lightning_metakd.recipes.optimisation import (
    Optimisation,
    decay_groups,
    parameters_of,
    set_rates,
)

Who = Literal["student", "strategy"]
Moves = tuple[Who, ...]


class OuterUpdate:
    """The optimisers of a recipe, and one step of them.

    Args:
        module: whose step it is.
        optimisation: how it descends.
        student: the network that is trained.
        average: of the student, if one is kept.
    """

    def __init__(
        self,
        module: LightningModule,
        optimisation: Optimisation,
        student: Model,
        average: AveragedModel | None,
    ) -> None:
        self.module, self.optimisation = module, optimisation
        self.student, self.average = student, average
        self.clipped_together: dict[Who, list[list[nn.Parameter]]] = {}

    def configure(
        self,
        trained: Mapping[str, nn.Parameter],
        adapters: Mapping[str, nn.Parameter],
        strategy: Sequence[dict[str, Any]],
    ) -> list[torch.optim.Optimizer]:
        """One optimiser for student, learner and adapters; one for a strategy that learns.

        Args:
            trained: student and learner by name.
            adapters: by name.
            strategy: groups of parameters with their own rates; none where nothing learns.
        """
        self.clipped_together = {
            "student": [list(trained.values()), list(adapters.values())],
            "strategy": [[p for group in strategy for p in group["params"]]],
        }
        moving = {n: p for n, p in {**trained, **adapters}.items() if p.requires_grad}
        optimisation = self.optimisation
        groups = decay_groups(moving, optimisation.lr, optimisation.weight_decay)
        student = optimisation.build(groups)
        if not strategy:
            return [student]
        return [student, optimisation.build(list(strategy), optimisation.strategy_optimiser)]

    def __call__(self, loss: Tensor, moves: Moves = ("student", "strategy")) -> None:
        """Backward, clip, step, average.

        Args:
            loss: a scalar.
            moves: what this update moves; an outer step is counted where it is the student.

        Raises:
            FloatingPointError: if the gradient is not finite; nothing was changed then.
        """
        trainer = self.module.trainer
        configured: Any = self.module.optimizers()
        configured = configured if isinstance(configured, list) else [configured]
        optimisers: dict[Who, LightningOptimizer] = dict(
            zip(get_args(Who), configured, strict=False)
        )
        step = 1 / total_steps(trainer)
        factor = self.optimisation.factor(progress(trainer), step)
        for optimiser in optimisers.values():
            set_rates(optimiser, factor, step)
            optimiser.zero_grad()
        # a parameter without any gradient would be an error on several processes: of what is not moved, or
        # of a teacher that learns and is not followed
        still = [o for who, o in optimisers.items() if who == "strategy" or who not in moves]
        idle = [p for optimiser in still for p in parameters_of(optimiser)]
        self.module.manual_backward(loss + sum(0.0 * p.sum() for p in idle))
        moved = {who: optimiser for who, optimiser in optimisers.items() if who in moves}
        self.clip(loss, moved)
        if "strategy" in moved:  # past Lightning, which would count an outer step
            moved["strategy"].optimizer.step()
        if "student" in moved:
            moved["student"].step()
            if self.average is not None:
                self.average.update_parameters(self.student)
        self.module.log("train/lr", self.optimisation.lr * factor)

    def clip(self, loss: Tensor, moved: Mapping[Who, LightningOptimizer]) -> None:
        """Shorten gradients, each kind apart: a large one does not shorten the step of another.

        Raises:
            FloatingPointError: if one is not finite.
        """
        limit = self.optimisation.grad_clip or float("inf")
        norms = [
            nn.utils.clip_grad_norm_(params, limit).to(self.module.device)
            for who in moved
            for params in self.clipped_together[who]
        ]
        norm = torch.stack(norms).max()
        if not torch.isfinite(norm):  # the averaged gradient: every process sees the same
            raise FloatingPointError(
                f"the gradient is {norm.item()} at step {self.module.trainer.global_step} "
                f"(loss {loss.item():.4g}); nothing was changed. Start anew "
                f"with a lower model.optimisation.lr={self.optimisation.lr}, or set "
                "model.optimisation.grad_clip and go on with --resume."
            )


def total_steps(trainer: Trainer) -> float:
    """Outer steps that Lightning will make, whichever limit ends them; inf where only time does."""
    total = trainer.estimated_stepping_batches
    return float(total) if total > 0 else math.inf


def progress(trainer: Trainer) -> float:
    """Part of the training that is done, in [0, 1]: by steps or by time, whichever is further."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    timers: list[Any] = [c for c in callbacks if isinstance(c, Timer) and c._duration]
    parts = [timer.time_elapsed() / timer._duration for timer in timers]
    furthest = min(1.0, max(trainer.global_step / total_steps(trainer), *parts, 0.0))
    if timers and trainer.world_size > 1:  # clocks differ between processes, and rates must not
        return float(trainer.strategy.broadcast(furthest))
    return furthest


def check_finite(logits: Tensor, lr: float) -> None:
    """Raise where the logits of an evaluated student are no numbers.

    Args:
        lr: rate of its training, for the message.

    Raises:
        FloatingPointError: names the rate.
    """
    if not logits.isfinite().all():
        raise FloatingPointError(
            "the student's answers are not finite: its training has diverged, or its weights or images "
            f"are none; start anew with a lower model.optimisation.lr={lr}."
        )


def check_precision(precision: object) -> None:
    """Raise where the Trainer's precision is half, with a scaler of gradients or without."""
    name = str(precision)
    if name == "bf16-true":
        raise ValueError(
            "trainer.precision=bf16-true keeps weights and inner steps in 8 bits; use bf16-mixed or 32-true."
        )
    if name.startswith("16") or name.endswith("-float16"):
        raise ValueError(
            f"trainer.precision={name} loses hyper-gradients to underflow, and its scaler changes the length "
            "of steps; use 32-true, or bf16-mixed where no second derivative passes a batch norm (first "
            "order, ProtoNet, Ridge)."
        )


SHARDED = ("fsdp", "deepspeed", "modelparallel", "xla")


def check_unsharded(strategy: object) -> None:
    """Raise where the Trainer's strategy would divide the parameters over processes."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if any(word in name.lower().replace("_", "") for word in SHARDED):
        raise ValueError(
            f"trainer.strategy={name} divides parameters over processes, and second derivatives through an "
            "inner loop need them whole; use ddp, or auto on one device."
        )
