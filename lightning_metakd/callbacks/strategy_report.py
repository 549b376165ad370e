"""What the strategy says while it is learned, and its file at the end."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metakd.files import written_whole
from lightning_metakd.loggers import keep_file, run_directory


class StrategyReport(Callback):
    """Logs `strategy/<coefficient>_...` and writes `strategy.safetensors` when training ends.

    Args:
        every_n_steps: outer steps between two entries.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1.")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step
        if step != 1 and step % self.every_n_steps:
            return
        recipe: Any = pl_module
        # what the first process saw; coefficients of a sample differ between processes
        said: dict[str, float] = {
            f"strategy/{name}": value for name, value in recipe.describe_strategy().items()
        }
        for logger in trainer.loggers:
            logger.log_metrics(said, step - 1)  # where Lightning puts what this batch logged

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; its coefficients are what the recipe calls strategy."""
        folder = run_directory(trainer)  # every process
        recipe: Any = pl_module
        if (
            folder is None
            or not trainer.is_global_zero
            or not any(True for _ in recipe.loss.parameters())
        ):
            return
        path = folder / "strategy.safetensors"
        with written_whole(path) as part:
            recipe.save_strategy(part)
        keep_file(trainer, path, "strategy")
