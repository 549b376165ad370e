"""What the strategy says while it is learned, and its file at the end."""

import warnings
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import run_directory
from lightning_metakd.loggers.wandb_logger import keep_file
from lightning_metakd.storage.atomic_files import atomic_write

GAINS = 5
"""So many entries in a row of a negative gain are no accident."""
FEWEST = 50
"""Updates of which the mean gain is compared with its noise, at least."""
LAST_STEPS = 4000
"""Steps that are looked at for them: between two updates a gain is logged again as it was."""


class StrategyMonitor(Callback):
    """Logs `strategy/<coefficient>_...` and writes `strategy.safetensors` when training ends.

    Warns once if the pilot steps on which a strategy is judged keep making the quiz worse, and at the end if
    their gain was not above its noise, as where the labels of the quiz are wrong.

    Args:
        every_n_steps: outer steps between two entries.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check_integer("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps
        self.losses_in_a_row = 0
        self.gains: deque[Tensor] = deque(maxlen=LAST_STEPS)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget another training."""
        self.losses_in_a_row = 0
        self.gains.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        gain = trainer.callback_metrics.get("strategy/pilot_gain")
        if gain is not None:
            self.gains.append(gain.detach().clone())
        step = trainer.global_step
        if step != 1 and step % self.every_n_steps:
            return
        # of the first process; coefficients of a sample differ between processes
        values = reported(pl_module).coefficient_log.values
        coefficients = {f"strategy/{name}": value for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(
                coefficients, step - 1
            )  # where Lightning puts what this batch logged
        if gain is not None:
            self.judge(gain, trainer)

    def judge(self, gain: Tensor, trainer: Trainer) -> None:
        """Count the entries in which a pilot step made the quiz worse."""
        self.losses_in_a_row = self.losses_in_a_row + 1 if gain < 0 else 0
        if self.losses_in_a_row == GAINS and trainer.is_global_zero:
            warnings.warn(
                f"strategy/pilot_gain was negative {GAINS} times in a row, last {float(gain):.2g}: a pilot "
                "step makes the quiz worse, and the strategy learns from steps that lead astray; lower "
                "model.strategy_training.pilot_lr.",
                stacklevel=2,
            )

    def warn_of_noise(self) -> None:
        """Say that the quiz did not tell a pilot step from none in the later two thirds of the updates.

        In the first third any step helps; in the last no step does, where its length goes to zero.
        """
        steps = torch.stack([*self.gains]) if self.gains else torch.empty(0)
        updates = steps.unique_consecutive()
        gains = updates[len(updates) // 3 :]
        if len(gains) < FEWEST:
            return
        mean, noise = gains.mean(), 2 * gains.std() / len(gains) ** 0.5
        if mean < noise:
            warnings.warn(
                f"strategy/pilot_gain was {mean:.1g} +- {noise:.1g} in the last {len(gains)} updates, not "
                "above its noise: the quiz cannot tell whether a step helps, nor what teaches well. See if "
                "its labels are right, and give it more rows (data.quiz_fraction) or other classes "
                "(model.strategy_training.quiz_classes); until then a constant is as good.",
                stacklevel=2,
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; its coefficients are what the recipe calls strategy."""
        if trainer.is_global_zero:
            self.warn_of_noise()
        folder = run_directory(trainer)  # every process
        recipe = reported(pl_module)
        if (
            folder is None
            or not trainer.is_global_zero
            or trainer.global_step == 0  # nothing was learned
            or not any(True for _ in recipe.loss.parameters())
        ):
            return
        path = folder / "strategy.safetensors"
        with atomic_write(path) as part:
            recipe.save_strategy(part)
        keep_file(trainer, path, "strategy")
