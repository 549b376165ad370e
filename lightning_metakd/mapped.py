"""Files of tensors: filled by one process, whole or not there, memory-mapped when read.

The format is safetensors. A file is filled in place, so that a table larger than memory can be made piece by
piece, and nobody sees it under its name before it is complete.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_metakd.files import written_whole

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each tensor of a file, those with the largest elements first, which aligns them."""

CODES = {torch.int64: "I64", torch.float32: "F32", torch.uint8: "U8", torch.bool: "BOOL"}
PIECE = 2**24  # bytes

log = logging.getLogger(__name__)


def places(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Where each tensor begins and ends, in bytes after the head of the file."""
    found, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        found[name] = (begin, end)
    return found


def head(shapes: Shapes, metadata: Mapping[str, str] | None = None) -> bytes:
    """The head of a safetensors file: sizes and places of its tensors, which follow in this order."""
    layout: dict[str, object] = {"__metadata__": dict(metadata or {})}
    for name, place in places(shapes).items():
        dtype, shape = shapes[name]
        layout[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": list(place)}
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def filled(path: Path, shapes: Shapes) -> Iterator[dict[str, Tensor]]:
    """Tensors of zeros in a new file, which takes its name once the block has filled them.

    Raises:
        OSError: if the file cannot be written; nothing half-filled stays.
    """
    begin, ends = head(shapes), places(shapes)
    size = max(end for _, end in ends.values())
    with written_whole(path) as part:
        with part.open("wb") as file:  # written, not left sparse: a full disk is told here
            file.write(begin)
            for at in range(0, size, PIECE):
                file.write(bytes(min(PIECE, size - at)))
        size += len(begin)
        whole = torch.from_file(str(part), shared=True, size=size, dtype=torch.uint8)
        body = whole[len(begin) :]
        yield {
            name: body[slice(*ends[name])].view(dtype).view(shape)
            for name, (dtype, shape) in shapes.items()
        }
        with part.open("rb+") as file:
            os.fsync(file.fileno())


def mapped(path: Path, shapes: Shapes) -> dict[str, Tensor] | None:
    """The tensors of a file, memory-mapped; None where it is not there, damaged, or of other shapes."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        log.warning("%s is damaged (%s) and is made again.", path, error)
        return None
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()}
    return found if kinds == dict(shapes) else None
