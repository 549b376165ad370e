"""What the coefficients are, looked at now and then in training, and a quiz that cannot teach them."""

import logging
import math

from lightning import LightningModule
from torch import Tensor

from lightning_metakd.losses.loss import CalibratedCrossEntropy, Loss
from lightning_metakd.strategy.strategy_file import coefficient_values
from lightning_metakd.types import Batch, Context, Output

log = logging.getLogger(__name__)

EVERY = 50
"""Outer steps between two looks."""


class CoefficientLog:
    """The last values of the coefficients of a training.

    Args:
        module: which trains.

    Attributes:
        values: mean of each coefficient by name, and its range where rows differ.
    """

    def __init__(self, module: LightningModule) -> None:
        self.module = module
        self.values: dict[str, float] = {}
        self.has_warned = False

    def is_due(self) -> bool:
        """Whether to look after this step: the first, every 50th, an epoch's last."""
        trainer = self.module.trainer
        step = trainer.global_step
        last = trainer.is_last_batch or step == trainer.max_steps
        return step == 1 or step % EVERY == 0 or last

    def update(
        self,
        loss: Loss,
        student: Output,
        batch: Batch,
        classes: Tensor,
        support_accuracy: Tensor | tuple[()] = (),
    ) -> None:
        """Keep what the coefficients are for a batch at the end of a task.

        Args:
            support_accuracy: of the teachers, as in `Context`; `()` where there is no support set.
        """
        context = Context(classes[batch.y], student.logits.new_ones(()), student, support_accuracy)
        self.values = coefficient_values(loss, student, batch, context)

    def warn_of_flat_quiz(self, quiz: Loss, loss: Tensor, n_classes: int) -> None:
        """Say once that a quiz is at chance at any scale of the logits, and so has no slope."""
        if self.has_warned or not isinstance(quiz, CalibratedCrossEntropy) or not self.is_due():
            return
        self.has_warned = loss.item() > math.log(n_classes) - 1e-6
        if self.has_warned:
            log.warning(
                "The quiz is answered no better than by chance: the best scale of the logits is 0, and the "
                "strategy's gradient with it. It learns nothing until the student answers better; start from "
                "a trained one (model.initialisation.checkpoint), wait (model.strategy_training.warmup), or "
                "set model.strategy_training.quiz to CrossEntropy."
            )
