"""The rows of an evaluation beside its result: one line per episode, every digit kept."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_metakd.storage.atomic_files import atomic_write


def episodes_file(row: Mapping[str, Any]) -> str:
    """Name of the file of the episodes of a result."""
    domain = f".{row['domain']}" if row.get("domain") else ""
    return f"episodes.{row.get('split')}{domain}.csv"


def write_episodes(path: Path, rows: Mapping[str, Sequence[float | int]]) -> None:
    """One line per episode, every digit kept."""
    with atomic_write(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
