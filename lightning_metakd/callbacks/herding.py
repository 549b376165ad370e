"""A memory that is chosen by the student: rows that stand for their classes."""

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metakd.callbacks.reported_recipe import reported
from lightning_metakd.loggers.run_logger import is_dry_run, run_directory
from lightning_metakd.recipes.herding import herded_rows
from lightning_metakd.storage.atomic_files import atomic_write


class Herding(Callback):
    """Writes `memory.json` at the end of a task of a stream, for data.memory_file of the next task.

    Each class has as many rows as every other; they are chosen among those of the task and of the memory
    before it (iCaRL, see `data.memory.herd`).
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_directory(trainer)  # every process
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if folder is None or not trainer.is_global_zero or is_dry_run(trainer):
            return
        rows = herded_rows(reported(pl_module).eval_student, data)
        with atomic_write(folder / "memory.json") as part:
            part.write_text(json.dumps({"rows": rows}) + "\n")
