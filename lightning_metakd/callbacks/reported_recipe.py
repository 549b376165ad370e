"""What callbacks read of a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning import LightningModule
from torch import nn

from lightning_metakd.recipes.coefficient_log import CoefficientLog
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.training_record import TrainingRecord
from lightning_metakd.teachers.teacher_pool import TeacherPool


@runtime_checkable
class ReportedRecipe(Protocol):
    """A LightningModule whose student, teachers and strategy are reported.

    Attributes:
        student: the network that is trained.
        loss: the teaching loss; its parameters are the strategy.
        teachers: the networks that help.
        initialisation: what is begun from.
        record: what is kept of the training beside weights.
        coefficient_log: the last values of the coefficients.
    """

    student: nn.Module
    loss: nn.Module
    teachers: TeacherPool
    initialisation: Initialisation
    record: TrainingRecord
    coefficient_log: CoefficientLog

    @property
    def eval_student(self) -> Any:
        """The student that is evaluated, a `Model`: its average where one is kept."""

    def adaptation(self) -> Callable[[], object] | None:
        """One adaptation, for counting its cost; None where the procedure does not adapt."""

    def save_strategy(self, path: Path) -> None:
        """Write the strategy's file."""


def reported(pl_module: LightningModule) -> ReportedRecipe:
    """The module as a recipe that is reported; Lightning's type does not say it."""
    return cast(ReportedRecipe, pl_module)
