"""What Weights & Biases shows of a run beside its curves: tags, files and their lineage, tables of a test."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import run_directory
from lightning_metakd.loggers.wandb_logger import NETWORK, keep_file, wandb_loggers
from lightning_metakd.reporting.flat_tables import flat_tables
from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.storage.zoo import located


class WandbReport(Callback):
    """Hands the W&B run, where there is one, what a run reads and makes, and the tables of a test.

    A file is an artifact named by its content. So a student is the same artifact in the fit that makes it, in
    the test that reads it, and in the fit that it teaches, and W&B draws the line from one to the next.

    Example:
        >>> from lightning_metakd.cli.trainer import Trainer
        >>> from lightning_metakd.loggers import WandbOrOffline
        >>> trainer = Trainer("maml", logger=WandbOrOffline())  # has it among its callbacks
    """

    def __init__(self) -> None:
        self.folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what the run is, and from which files of a configuration it begins and is taught."""
        self.folder = run_directory(trainer) if wandb_loggers(trainer) else None  # every process
        if self.folder is None:
            return
        recipe = reported(pl_module)
        for logger in wandb_loggers(trainer):
            logger.add_tags((stage, type(recipe).__name__, type(recipe.loss).__name__))
        self.read(trainer, recipe.initialisation.checkpoint, NETWORK, "student")
        self.read(trainer, recipe.initialisation.strategy_file, "strategy")
        self.read(trainer, recipe.initialisation.support_weight, NETWORK, "support_weight")
        for teacher in recipe.teachers:
            for file in teacher.files:
                self.read(trainer, file, NETWORK, "teacher")

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say which checkpoint is judged, or gone on from."""
        self.read(trainer, trainer.ckpt_path, NETWORK, "student")

    def read(self, trainer: Trainer, name: str | Path | None, kind: str, *aliases: str) -> None:
        """Say that a file is read, if another run has left it."""
        if self.folder is None or name is None:
            return
        path = located(name)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            keep_file(trainer, path, kind, *aliases, is_input=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the students that the run has made."""
        for name in ("best", "final") if self.folder is not None else ():
            path = Path(f"{self.folder}/checkpoints/{name}.ckpt")
            keep_file(trainer, path, NETWORK, "student", name)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show tables of what `Results` and `Answers` have written."""
        if self.folder is None or not trainer.is_global_zero:
            return
        n_domains = len(list(reported(pl_module).record.evaluations()))
        tables = flat_tables(read_results(self.folder)[-n_domains:], self.folder.parents[1])
        for logger in wandb_loggers(trainer):
            logger.log_tables({f"test/{name}": rows for name, rows in tables.items()})
