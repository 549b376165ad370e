"""What an offline run of W&B has written down: the records of its file."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32_768
WHOLE, LAST = 1, 4
"""Kinds of the parts of a record, as LevelDB writes them, with which it is complete."""


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """(kind, content) of each record."""
    data, at, parts = path.read_bytes(), HEADER, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (WHOLE, LAST):
            record = Record.FromString(parts)
            name = record.WhichOneof("record_type")
            yield name, getattr(record, name)
            parts = b""


def key(item: Any) -> str:
    """The name under which a value was logged."""
    return item.key or "/".join(item.nested_key)


class OfflineRun(NamedTuple):
    """What a file says.

    Attributes:
        run: the last of what describes the run.
        metrics: definition of each curve by its name or pattern.
        summary: last values.
        history: logged values of each step.
        artifacts: by type, those of tables as `run_table`.
        config: what was configured.
    """

    run: Any
    metrics: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]
    artifacts: dict[str, list[Any]]
    config: dict[str, Any]


def offline_run(folder: Path) -> OfflineRun:
    """The only offline run in the directory of a run of ours, which has ended."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 60  # its process writes a little later
    while "exit" not in [name for name, _ in records(path)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    offline = OfflineRun(None, {}, {}, [], {}, {})
    for name, content in records(path):
        if name == "run":
            offline = offline._replace(run=content)
        elif name == "metric":
            offline.metrics[content.name or content.glob_name] = content
        elif name == "artifact":
            offline.artifacts.setdefault(content.type, []).append(content)
        elif name == "history":
            offline.history.append({key(i): json.loads(i.value_json) for i in content.item})
        elif name in ("summary", "config"):
            kept = getattr(offline, name)
            kept.update({key(item): json.loads(item.value_json) for item in content.update})
    return offline
