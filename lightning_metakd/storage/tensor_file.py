"""Files of tensors: filled by one process, whole or not there, memory-mapped when read.

The format is safetensors, with a checksum of the whole file (CRC-32, as in zip archives) in its head, which
is compared when the file is opened. A file is filled in place, so that a table larger than memory can be
made piece by piece, and nobody sees it under its name before it is complete.
"""

import json
import logging
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_metakd.storage.atomic_files import DamagedFileError, atomic_write
from lightning_metakd.storage.limits import check_size

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each tensor of a file, those with the largest elements first, which aligns them."""

CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"},
}
PIECE = 2**24  # bytes
UNSEALED = {"metakd_crc32": "0" * 8}
"""The checksum in the metadata of a file that is not complete."""
SEAL = re.compile(rb'(?<="metakd_crc32":)( ?")[0-9a-f]{8}(?=")')
PER_BYTE = 256
"""Memory that the most wasteful head or pickle takes, over its size in the file."""

log = logging.getLogger(__name__)


def places(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Where each tensor begins and ends, in bytes after the head of the file."""
    tensors, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        tensors[name] = (begin, end)
    return tensors


def head(shapes: Shapes, metadata: Mapping[str, str] | None = None) -> bytes:
    """The head of a safetensors file: sizes and places of its tensors, which follow in this order."""
    layout: dict[str, object] = {"__metadata__": UNSEALED | dict(metadata or {})}
    for name, place in places(shapes).items():
        dtype, shape = shapes[name]
        layout[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": list(place)}
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def create_tensor_file(
    path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Tensors of zeros in a new file, which takes its name once the block has filled them.

    Raises:
        OSError: if the file cannot be written; nothing half-filled stays.
    """
    begin, ends = head(shapes, metadata), places(shapes)
    size = max((end for _, end in ends.values()), default=0)
    with atomic_write(path) as part:
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
        seal(part)


def seal(path: Path) -> None:
    """Write the checksum of a complete file into its head."""
    begin, checksum = read_head(path), checksum_of(path)
    sealed = SEAL.sub(rb"\g<1>" + checksum, begin, count=1)
    with path.open("rb+") as file:
        file.write(sealed)


def read_head(path: Path) -> bytes:
    """The bytes before the tensors.

    Raises:
        DamagedFileError: if the file is shorter.
        ValueError: if there are more than may be read.
    """
    with path.open("rb") as file:
        begin = file.read(8)
        size = int.from_bytes(begin, "little")
        if 8 + size > path.stat().st_size:
            raise DamagedFileError("it ends inside its head")
        check_size(PER_BYTE * size, f"the head of {path}")
        return begin + file.read(size)


def checksum_of(path: Path) -> bytes:
    """CRC-32 of a file whose head does not say it yet."""
    begin = read_head(path)
    total = zlib.crc32(SEAL.sub(rb"\g<1>" + UNSEALED["metakd_crc32"].encode(), begin, count=1))
    with path.open("rb") as file:
        file.seek(len(begin))
        while piece := file.read(PIECE):
            total = zlib.crc32(piece, total)
    return b"%08x" % total


@lru_cache(maxsize=1024)
def check_seal(path: Path, inode: int, size: int, time: int) -> None:
    """Compare a file with its checksum, once for as long as the file stays the same.

    Raises:
        DamagedFileError: if it differs, or there is none.
    """
    seal = SEAL.search(read_head(path))
    if seal is None:
        raise DamagedFileError("it has no checksum")
    if not seal[0].endswith(checksum_of(path)):
        raise DamagedFileError("its checksum is wrong")


def read_sealed(path: Path, must: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file, memory-mapped and compared with its checksum.

    Args:
        must: refuse a file without a checksum, as other programs write it.

    Raises:
        DamagedFileError: says how.
        ValueError: if its head is too large.
    """
    begin = read_head(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise DamagedFileError(str(error)[:120]) from error
    if must or SEAL.search(begin):
        about = path.stat()
        check_seal(path, about.st_ino, about.st_size, about.st_mtime_ns)
    return metadata, tensors


def open_tensor_file(path: Path, shapes: Shapes) -> dict[str, Tensor] | None:
    """The tensors of a file, memory-mapped; None where it is not there, damaged, or of other shapes."""
    if not path.is_file():
        return None
    try:
        _, tensors = read_sealed(path)
    except DamagedFileError as error:
        log.warning("%s is damaged (%s) and is made again.", path, error)
        return None
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return tensors if kinds == dict(shapes) else None
