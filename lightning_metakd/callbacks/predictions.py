"""What `predict` answers, as a table on disk."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_metakd.loggers.run_logger import run_directory, run_loggers
from lightning_metakd.storage.atomic_files import atomic_write

Row = tuple[int | None, int, int, int, float]
"""Episode, row, class, predicted class, probability of the latter."""


class Predictions(Callback):
    """Writes `predictions.csv`: episode, row, its file or text, class, predicted class and its probability.

    One line for each image or text that was asked. It is named by its row number in the source, and by its
    file, where it has one of its own, or its text; a class by its name. Of several processes each answers its
    share; the first one writes all, sorted. The run is then the latest of its experiment.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.rows += rows_of(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather on the first process, and write."""
        folder = run_directory(trainer)  # every process
        gathered: list[list[Row]] = [self.rows]
        if trainer.world_size > 1:
            gathered = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self.rows)
        if folder is None or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = [row for part in gathered for row in part]
        write_predictions(folder / "predictions.csv", rows, data.source)
        for logger in run_loggers(trainer):
            logger.be_latest()
        print(f"{len(rows)} predictions written to {folder / 'predictions.csv'}")


def rows_of(outputs: Mapping[str, Tensor]) -> list[Row]:
    """The rows of one answer of a recipe's `predict_step`."""
    probability, label = outputs["probs"].max(-1)
    episode = int(outputs["id"]) if "id" in outputs else None
    classes = outputs["classes"]
    columns = (outputs["index"], classes[outputs["y"]], classes[label], probability)
    return [(episode, *row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def write_predictions(path: Path, rows: list[Row], source: Any) -> None:
    """The table, with names of the source's classes, and the files or texts of its rows where it has them."""
    class_names, row_names = source.all_rows().class_names, source.row_names
    with atomic_write(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("episode", "row", source.row_title, "class", "predicted", "probability"))
        for episode, row, true, predicted, probability in sorted(
            rows, key=lambda row: (-1 if row[0] is None else row[0], row[1])
        ):
            row_name = row_names[row] if row_names else ""
            writer.writerow(
                (episode, row, row_name, class_names[true], class_names[predicted], probability)
            )
