"""What one training procedure decides where another decides otherwise."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lightning_metakd.data.source_data import SourceData


class Procedure(ABC):
    """What a recipe of the package has of its own; `Recipe` calls it in a fixed order.

    Attributes:
        classes_set_by: the setting of the data from which the student's logits are counted.
    """

    classes_set_by: str

    @abstractmethod
    def check_procedure(self, data: SourceData, stage: str) -> None:
        """Raise, before anything is read, where settings of the data do not suit the procedure."""

    @abstractmethod
    def n_logits(self) -> int | None:
        """Logits that the data want of the student's head; None where it is not used, or they do not say."""

    @abstractmethod
    def on_head_resized(self) -> None:
        """Follow a student whose head has another width."""

    @abstractmethod
    def load_student(
        self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], who: str, stage: str
    ) -> None:
        """Load student and learner of an initial checkpoint.

        Args:
            weights: of the student.
            state: all tensors of the checkpoint.
            who: the checkpoint, for messages.
            stage: of the Trainer.
        """

    @abstractmethod
    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise where a checkpoint is of a student of other classes."""

    @abstractmethod
    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What the outer loop trains beside adapters and strategy, by name."""

    @abstractmethod
    def adaptation(self) -> Callable[[], object] | None:
        """One adaptation, for counting its cost; None where the procedure does not adapt."""
