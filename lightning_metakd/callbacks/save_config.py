"""The configuration of a run, kept beside its numbers."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import run_directory
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.storage.redaction import redact


class SaveConfig(SaveConfigCallback):
    """Writes `config.<stage>.yaml`, numbered where another one exists already; secrets are hidden.

    It is written when the first batch has been worked through: a run that fails before leaves nothing. The
    recipe is told it too: its settings go with the weights.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the recipe; nothing is written yet."""
        self.folder = run_directory(trainer)  # every process
        self.hidden: dict[str, Any] = redact(
            json.loads(
                self.parser.dump(self.config, format="json", skip_unset=False, skip_validation=True)
            )
        )
        reported(pl_module).record.configure(self.hidden)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.write(trainer, "fit")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.state.fn == "validate":
            self.write(trainer, "validate")

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.write(trainer, "test")

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.write(trainer, "predict")

    def write(self, trainer: Trainer, stage: str) -> None:
        """Write once per run, on the first process."""
        if self.already_saved or self.folder is None or not trainer.is_global_zero:
            return
        self.already_saved = True
        text = yaml.safe_dump(self.hidden, sort_keys=False, allow_unicode=True)
        path = name_for(self.folder, stage, text)
        if not path.exists():
            with atomic_write(path) as part:
                part.write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"config": self.hidden}, allow_val_change=True)


def name_for(folder: Path, stage: str, text: str) -> Path:
    """`config.<stage>.yaml`, or the first number that is free or holds this very text."""
    path, n = folder / f"config.{stage}.yaml", 0
    while path.exists() and path.read_text() != text:
        n += 1
        path = folder / f"config.{stage}.{n}.yaml"
    return path
