"""The configuration of a run, kept beside its numbers."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from lightning_metakd.files import written_whole
from lightning_metakd.loggers import run_directory, scrubbed
from lightning_metakd.settings import flat_settings


class SaveConfig(SaveConfigCallback):
    """Writes `config.<stage>.yaml`, numbered where it exists already; secrets are hidden.

    The recipe is told it too: its settings go with the weights.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write once per run, on the first process."""
        folder = run_directory(trainer)  # every process
        config: dict[str, Any] = scrubbed(
            json.loads(
                self.parser.dump(self.config, format="json", skip_unset=False, skip_validation=True)
            )
        )
        pl_module.configured = flat_settings(config)  # type: ignore[assignment]
        if folder is None or self.already_saved:
            return
        self.already_saved = True
        if not trainer.is_global_zero:
            return
        with written_whole(free_name(folder, getattr(stage, "value", stage))) as part:
            part.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"config": config}, allow_val_change=True)


def free_name(folder: Path, stage: str) -> Path:
    """`config.<stage>.yaml`, or the first number that is free."""
    path, n = folder / f"config.{stage}.yaml", 0
    while path.exists():
        n += 1
        path = folder / f"config.{stage}.{n}.yaml"
    return path
