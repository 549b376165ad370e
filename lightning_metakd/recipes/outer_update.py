"""The outer loop: one scalar, one backward, one step of everything that it moves.

One `manual_backward` to the leaf parameters (several processes then average it), clip, step through
Lightning's optimiser, schedule, average. No gradient is ever assigned by hand: replicas would drift apart
silently.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, cast, get_args

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.losses.adapters import Adapters
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.optimisation import (
    Optimisation,
    averaged,
    decay_groups,
    parameters_of,
    set_rates,
)

Who = Literal["student", "strategy"]
Moves = tuple[Who, ...]


class OuterLoop(LightningModule, ABC, Configured):
    """A student that is trained, with its adapters, and a strategy beside it.

    Args:
        student: the network that is trained.
        optimisation: how the outer loop descends.
    """

    def __init__(self, student: Model, optimisation: Optimisation | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student, self.adapters = student, Adapters()
        self.optimisation = optimisation or Optimisation()
        decay = self.optimisation.ema_decay
        self.ema = None if decay is None else averaged(student, decay)

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: Lightning would build what the file says."""
        raise TypeError(
            "load_from_checkpoint would build what a file says, and is not there; "
            f"build {cls.__name__} by its arguments, and name the file as its init or as ckpt_path of the "
            "Trainer."
        )

    @property
    def eval_student(self) -> Model:
        """The student that is evaluated: its average where one is kept."""
        return self.student if self.ema is None else cast(Model, self.ema.module)

    @abstractmethod
    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One outer update on a batch or meta-batch."""

    @abstractmethod
    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained beside adapters and strategy, by name."""

    @abstractmethod
    def strategy_groups(self) -> list[dict[str, Any]]:
        """What is trained of the strategy, in groups of one rate; none where nothing is learned."""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for student, learner and adapters; one for a strategy that is learned, at its own rates."""
        optimisation = self.optimisation
        adapters = dict(self.adapters.named_parameters(prefix="adapters"))
        every = {**self.trained_parameters(), **adapters}
        trained = {name: p for name, p in every.items() if p.requires_grad}
        student = optimisation.build(
            decay_groups(trained, optimisation.lr, optimisation.weight_decay)
        )
        groups = self.strategy_groups()
        return (
            [student, optimisation.build(groups, optimisation.strategy_optimiser)]
            if groups
            else [student]
        )

    def total_steps(self) -> float:
        """Outer steps that Lightning will make, whichever limit ends them; inf where only time does."""
        total = self.trainer.estimated_stepping_batches
        return float(total) if total > 0 else math.inf

    def progress(self) -> float:
        """Part of the training that is done, in [0, 1]: by steps or by time, whichever is further."""
        trainer = self.trainer
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        timers: list[Any] = [c for c in callbacks if isinstance(c, Timer) and c._duration]
        parts = [timer.time_elapsed() / timer._duration for timer in timers]
        furthest = min(1.0, max(trainer.global_step / self.total_steps(), *parts, 0.0))
        if timers and trainer.world_size > 1:  # clocks differ between processes, and rates must not
            return float(trainer.strategy.broadcast(furthest))
        return furthest

    def outer_update(self, scalar: Tensor, moves: Moves = ("student", "strategy")) -> None:
        """Backward, clip, step, average.

        Args:
            moves: what this update moves; an outer step is counted where it is the student.

        Raises:
            FloatingPointError: if the gradient is not finite; nothing was changed then.
        """
        configured: Any = self.optimizers()
        configured = configured if isinstance(configured, list) else [configured]
        optimisers: dict[Who, LightningOptimizer] = dict(
            zip(get_args(Who), configured, strict=False)
        )
        factor = self.optimisation.factor(self.progress(), 1 / self.total_steps())
        for optimiser in optimisers.values():
            set_rates(optimiser, factor)
            optimiser.zero_grad()
        # a parameter without any gradient would be an error on several processes: of what is not moved, or
        # of a teacher that learns and is not followed
        still = [o for who, o in optimisers.items() if who == "strategy" or who not in moves]
        idle = [p for optimiser in still for p in parameters_of(optimiser)]
        self.manual_backward(scalar + sum(0.0 * p.sum() for p in idle))
        moved = {who: optimiser for who, optimiser in optimisers.items() if who in moves}
        self.clip(scalar, moved)
        if "strategy" in moved:  # past Lightning, which would count an outer step
            moved["strategy"].optimizer.step()
        if "student" in moved:
            moved["student"].step()
            if self.ema is not None:
                self.ema.update_parameters(self.student)
        self.log("train/lr", self.optimisation.lr * factor)

    def clip(self, scalar: Tensor, moved: Mapping[Who, LightningOptimizer]) -> None:
        """Shorten gradients, each kind apart: a large one does not shorten the step of another.

        Raises:
            FloatingPointError: if one is not finite.
        """
        together: list[Iterable[nn.Parameter]] = []
        if "student" in moved:
            together += [self.trained_parameters().values(), self.adapters.parameters()]
        if "strategy" in moved:
            together.append(parameters_of(moved["strategy"]))
        limit = self.optimisation.grad_clip or float("inf")
        norms = [
            nn.utils.clip_grad_norm_(list(params), limit).to(self.device) for params in together
        ]
        norm = torch.stack(norms).max()
        if not torch.isfinite(norm):  # the averaged gradient: every process sees the same
            raise FloatingPointError(
                f"the gradient is {norm.item()} at step {self.trainer.global_step} "
                f"(loss {scalar.item():.4g}); nothing was changed. Start anew "
                f"with a lower model.optimisation.lr={self.optimisation.lr}, or set "
                "model.optimisation.grad_clip and go on with --resume."
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
