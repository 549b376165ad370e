"""The numbers of a run as a table that goes on where the run does."""

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lightning_metakd.storage.atomic_files import atomic_write


class MetricsFile(ExperimentWriter):
    """`metrics.csv` in a directory: rows are added to those that an earlier process of the run has left.

    Lightning's own begins anew in a directory that is not empty, and a kill while it adds a column costs it
    the whole table.

    Args:
        log_dir: the run's directory.
    """

    @property
    def path(self) -> Path:
        """The table."""
        return Path(self.metrics_file_path)

    def _check_log_dir_exists(self) -> None:
        """Take over the columns of the table that is there."""
        if self.path.is_file():
            self.metrics_keys = list(self.rows()[0])

    def rows(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and rows on disk, without a last line that a kill has cut off."""
        with self.path.open(newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        reader = csv.DictReader(lines)
        rows = list(reader)
        return list(reader.fieldnames or []), rows

    def rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """All of the table or, after a kill, the one before."""
        with atomic_write(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)

    def keep_before(self, step: int) -> None:
        """Drop the rows of this step and later ones: a run that goes on from it writes them again."""
        if self.path.is_file():
            columns, rows = self.rows()
            self.rewrite(columns, [row for row in rows if int(row["step"]) < step])

    def save(self) -> None:
        """Add the rows so far: all of them, or none where the disk is full."""
        if not self.metrics:
            return
        columns = sorted({*self.metrics_keys}.union(*self.metrics))
        there = self.path.is_file()
        if columns != self.metrics_keys or not there:
            self.rewrite(columns, self.rows()[1] if there else [])
            self.metrics_keys = columns
        if not there:
            self.save_hparams()
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(self.metrics)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise
        self.metrics = []

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Keep hyper-parameters: a run that fails before its first numbers leaves no file."""
        self.hparams.update(params)
        if self.path.is_file():
            self.save_hparams()

    def save_hparams(self) -> None:
        """Write them beside the table."""
        save_hparams_to_yaml(self.path.with_name(self.NAME_HPARAMS_FILE), self.hparams)

    def sync(self) -> None:
        """What was saved is on disk, whatever happens next, when this returns."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
