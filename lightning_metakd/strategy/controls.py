"""Controls: the same training, but for one thing without which learning to teach cannot help.

A gain that its controls show too is not a gain of what was learned. Each touches the side of the quiz only:

- `frozen`: the coefficients, and teachers that would learn, stay where they start.
- `shuffled`: the labels of the quiz are permuted, so that it says nothing.
- `step_size`: one learned number scales the whole loss, whose coefficients and teachers stay: a gate
  rescales steps as well as it chooses between directions. It at most doubles them, as a gate that starts
  at one half can; without a bound it grows until training diverges.
- `final_constant`: what the coefficients said at the end of a run, on average, is said from the start;
  teachers stay.
- `uniform`: every teacher has the same weight; other coefficients are learned.
"""

from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch

from lightning_metakd.arguments.ranges import check_choice
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.losses.coefficient import Coefficient, Interval, Learned
from lightning_metakd.losses.loss import Loss, WeightedSum
from lightning_metakd.strategy.strategy_file import coefficients, weights_of_teachers
from lightning_metakd.types import Batch, Episode

Control = Literal["none", "frozen", "shuffled", "step_size", "final_constant", "uniform"]
SCALED = "loss"
"""What `step_size` calls that which it scales."""
STEP_SIZES = Interval(0.0, 2.0)
"""By what `step_size` can multiply the loss."""


def check_control(control: Control, lr: float, teacher_lr: float) -> None:
    """Raise where a control has nothing to control.

    Raises:
        ValueError: if it is unknown, or no strategy is learned that it could be compared with.
    """
    check_choice("control", control, get_args(Control))
    if control != "none" and lr == teacher_lr == 0:
        raise ValueError(
            f"control={control} takes something away from the learning of a strategy, and "
            "strategy_training.lr=0 learns none; give the lr of the run that it is to be compared with."
        )
    if control == "step_size" and lr == 0:
        raise ValueError(
            "control=step_size learns one number at the rate strategy_training.lr=0; give it a rate, and the "
            "loss a learned coefficient, or compare teachers that learn with frozen or shuffled."
        )


def controlled(loss: Loss, control: Control, n_teachers: int) -> Loss:
    """The loss of a control, before it is trained.

    Raises:
        ValueError: if `uniform` finds no weights of teachers.
    """
    if control == "step_size":
        scaled = WeightedSum({SCALED: loss.requires_grad_(False)}, {SCALED: Learned()})
        cast(Coefficient, scaled.weights[SCALED]).configure(SCALED, STEP_SIZES, 1.0)
        return scaled
    of_teachers = weights_of_teachers(loss).values()
    if control == "uniform" and not of_teachers:
        raise ValueError(
            f"control=uniform weighs teachers alike, and loss={type(loss).__name__} weighs none; take "
            "another control, or MultiTeacher."
        )
    for weights in of_teachers:
        if control == "uniform":
            weights.replace([1.0])
        if control == "final_constant" and n_teachers and any(True for _ in weights.parameters()):
            weights.replace([Learned() for _ in range(n_teachers)])
    return loss


def loss_without_control(loss: Loss, control: Control) -> Loss:
    """The loss of a control as the configuration names it."""
    return cast(Loss, loss.get_submodule(f"terms.{SCALED}")) if control == "step_size" else loss


def learns(control: Control) -> bool:
    """Whether any coefficient is trained."""
    return control not in ("frozen", "final_constant")


def teachers_learn(control: Control) -> bool:
    """Whether teachers are trained that would be without the control."""
    return learns(control) and control != "step_size"


def set_values(loss: Loss, values: Mapping[str, float]) -> None:
    """Hold every learned coefficient at its average.

    Args:
        values: from `coefficient_values`, as it stands in the head of a strategy's file.

    Raises:
        ValueError: if it is of another loss.
    """
    names = {name: f"{name}_mean" for name in coefficients(loss)}
    for at, weights in weights_of_teachers(loss).items():
        names |= {f"{at}.of_teacher.{k}": f"{at}.{k}_mean" for k in range(len(weights.of_teacher))}
    for name, c in coefficients(loss).items():
        if not any(True for _ in c.parameters()):
            continue
        if names[name] not in values:
            raise ValueError(
                f"strategy_file has no value of {name} (it says {', '.join(values) or 'nothing'}); name the "
                "strategy.safetensors of a run with the same loss for control=final_constant."
            )
        low, high = c.interval
        c.set_value(min(max(values[names[name]], low + 1e-6), high - 1e-6))


def shuffled(batch: Batch, *key: object) -> Batch:
    """The rows with their labels permuted, always alike for one key."""
    order = torch.randperm(len(batch.y), generator=generator("shuffled", *key))
    return batch._replace(y=batch.y[order.to(batch.y.device)])


def shuffled_quiz(episode: Episode, seed: int) -> Episode:
    """The episode with the labels of its query rows permuted."""
    return episode._replace(query=shuffled(episode.query, seed, int(episode.id)))
