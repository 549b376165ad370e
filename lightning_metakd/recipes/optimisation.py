"""How the outer loop descends: optimiser, schedule, clipping, averaging.

Under manual optimisation the Trainer's own clipping, schedules and averaging do not act, so they are
here, once for all recipes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_metakd.arguments.ranges import (
    check_choice,
    check_number,
    check_positive,
    check_share,
)
from lightning_metakd.models.model import Model

Schedule = Literal["constant", "cosine", "one_cycle"]
Optimiser = Literal["sgd", "adam", "adamw"]
StrategyOptimiser = Literal["sgd", "adam"]
FEWEST_STEPS = 300
"""Of a training in which a reach is reached: in fewer, single steps would be as long as to jump."""


@dataclass(frozen=True)
class Optimisation:
    """One outer update.

    Args:
        lr: peak learning rate of student and learner, per step.
        optimiser: `sgd` (Nesterov), `adam` or `adamw`.
        momentum: of sgd; the first beta of adam.
        weight_decay: on weights of two or more dimensions; norms and biases have none.
        schedule: `constant`, `cosine` to zero, or `one_cycle` (linear up to the peak at 30 %, cosine down).
        milestones: parts of the training, ascending in (0, 1), at each of which a `constant` rate falls; null
            for none.
        gamma: factor of each such fall, in (0, 1); null is a tenth.
        warmup: part of the training, in [0, 1), in which the rate rises linearly to its peak: in n steps
            from 1/n of it.
        grad_clip: largest norm of the gradient; null does not clip.
        strategy_optimiser: by which the strategy descends, whatever the student's: its gradient may be a
            thousandth of a weight's, and no rate of a plain descent suits all coefficients.
        ema_decay: of the averaged student that is evaluated and saved, beside which the learner is as it
            stands; null keeps no average.
    """

    lr: float = 1e-3
    optimiser: Optimiser = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    milestones: tuple[float, ...] | None = None
    gamma: float | None = None
    warmup: float = 0.0
    grad_clip: float | None = None
    ema_decay: float | None = None
    strategy_optimiser: StrategyOptimiser = "adam"

    def __post_init__(self) -> None:
        check_positive("optimisation.lr", self.lr)
        check_choice("optimisation.optimiser", self.optimiser, get_args(Optimiser))
        check_choice("optimisation.schedule", self.schedule, get_args(Schedule))
        strategy_optimiser = self.strategy_optimiser
        check_choice(
            "optimisation.strategy_optimiser", strategy_optimiser, get_args(StrategyOptimiser)
        )
        check_milestones(self.milestones, self.schedule)
        check_number(
            "optimisation.gamma", self.gamma, 0.0, 1.0, hint="or null for 0.1", optional=True
        )
        check_share("optimisation.momentum", self.momentum)
        check_number("optimisation.weight_decay", self.weight_decay, 0.0, ends="[)")
        check_share("optimisation.warmup", self.warmup)
        check_positive("optimisation.grad_clip", self.grad_clip, "or null", optional=True)
        check_number(
            "optimisation.ema_decay", self.ema_decay, 0.0, 1.0, hint="or null", optional=True
        )

    def factor(self, progress: float, step: float = 0.0) -> float:
        """Part of the peak rate of a step at `progress` in [0, 1] through the training.

        Args:
            step: part of the training that a step is, so that a warm-up of n steps begins at 1/n, not at 0.
        """
        rising = min(1.0, (progress + step) / self.warmup) if self.warmup else 1.0
        falls = sum(progress >= at for at in self.milestones or ())
        return rising * SCHEDULES[self.schedule](progress) * (self.gamma or 0.1) ** falls

    def build(self, groups: list[dict[str, Any]], optimiser: str = "") -> torch.optim.Optimizer:
        """An optimiser over groups of parameters; each group remembers its own peak rate.

        Args:
            optimiser: by default the student's.
        """
        built = OPTIMISERS[optimiser or self.optimiser](groups, self)
        for group in built.param_groups:
            group["peak_lr"] = group["lr"]
        return built


def check_milestones(milestones: tuple[float, ...] | None, schedule: str) -> None:
    """Raise where milestones do not ascend within a training, or something else has the rate fall.

    Raises:
        ValueError: names them.
    """
    if milestones is None:
        return
    for at in milestones:
        check_number("optimisation.milestones", at, 0.0, 1.0, hint="for instance [0.6, 0.8]")
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(
            f"optimisation.milestones={list(milestones)} must ascend, each part of the training once."
        )
    if schedule != "constant":
        raise ValueError(
            f"optimisation.milestones={list(milestones)} have a constant rate fall, and "
            f"optimisation.schedule={schedule!r} has it fall by itself; set schedule to constant, or leave "
            "milestones out."
        )


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
    "one_cycle": lambda p: (
        max(p / 0.3, 0.04) if p < 0.3 else 0.5 * (1 + math.cos(math.pi * (p - 0.3) / 0.7))
    ),
}

OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], Optimisation], torch.optim.Optimizer]] = {
    "sgd": lambda groups, o: torch.optim.SGD(
        groups, o.lr, momentum=o.momentum, nesterov=o.momentum > 0
    ),
    "adam": lambda groups, o: torch.optim.Adam(groups, o.lr, betas=(o.momentum, 0.999)),
    "adamw": lambda groups, o: torch.optim.AdamW(groups, o.lr, betas=(o.momentum, 0.999)),
}


def decay_groups(
    named: dict[str, nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Two groups: weights, which decay, and norms, biases and what a learner learns, which do not."""
    decays = {n: p.dim() > 1 and not n.startswith("learner.") for n, p in named.items()}
    weights = [p for name, p in named.items() if decays[name]]
    others = [p for name, p in named.items() if not decays[name]]
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_rates(optimiser: Any, factor: float, step: float) -> None:
    """Set the rate of each group to `factor` times its peak, or to what its `reach` wants, if that is more.

    Args:
        step: part of the training that a step is; a training of fewer than FEWEST_STEPS reaches less far.
    """
    for group in optimiser.param_groups:
        reaching = min(step, 1 / FEWEST_STEPS) * group.get("reach", 0.0)
        group["lr"] = factor * max(group["peak_lr"], reaching)


def parameters_of(optimiser: Any) -> list[nn.Parameter]:
    """All parameters of an optimiser."""
    return [p for group in optimiser.param_groups for p in group["params"]]


def averaged(student: Model, decay: float) -> AveragedModel:
    """A running average of the student's weights and norm statistics."""
    copy = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    copy.requires_grad_(False)
    copy.eval()
    return copy
