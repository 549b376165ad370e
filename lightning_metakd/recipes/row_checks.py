"""Which teachers and coefficients go with plain batches."""

from torch import nn

from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.strategy_training import StrategyTraining, of_batch
from lightning_metakd.teachers.teacher import Teacher


def check_head(teacher: Teacher) -> None:
    """Raise where the head of a teacher needs episodes.

    Raises:
        ValueError: says which head does not.
    """
    if teacher.head.needs_support:
        raise ValueError(
            f"head={type(teacher.head).__name__} is fitted on the support set of an episode, and "
            "SingleTask has none; give the teacher a SlicedHead."
        )


def check_of_batch(loss: nn.Module, optimisation: Optimisation, training: StrategyTraining) -> None:
    """Raise where a coefficient that is learned anew for each batch would not be.

    Raises:
        ValueError: says what to change.
    """
    for name in {type(coefficient).__name__ for coefficient in of_batch(loss)}:
        every = training.steps_apart
        if not training.lr or every != 1 or training.warmup > 0:
            raise ValueError(
                f"{name} is learned anew for each batch, before the step on it, and strategy_training has "
                f"lr={training.lr}, every={every}, warmup={training.warmup}; take lr=1, every=1 and warmup=0."
            )
        if training.control not in ("none", "shuffled"):
            raise ValueError(
                f"control={training.control} compares with a strategy that lasts, and {name} is learned anew "
                "for each batch; take shuffled, or no control."
            )
        if optimisation.strategy_optimiser != "sgd":
            raise ValueError(
                f"{name} is the gradient of the quiz, and optimisation.strategy_optimiser="
                f"{optimisation.strategy_optimiser} keeps little of it but its sign; take sgd."
            )
