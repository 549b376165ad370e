"""How much memory reading one file may take: sizes are read before contents.

A file of a few kB can name tensors, members or pixels of many GB. What a file claims is compared with one
limit, 768 MiB unless the environment variable METAKD_READ_LIMIT_MIB says otherwise.
"""

import os
import struct
import zipfile
from pathlib import Path

SETTING = "METAKD_READ_LIMIT_MIB"
DEFAULT = 768
MIB = 2**20
PER_ENTRY = 16
"""Memory of the list of an archive's members, over its size in the file."""


class TooLargeError(ValueError):
    """A file takes more memory than it may."""


def read_limit() -> int:
    """The limit in MiB.

    Raises:
        ValueError: if the setting is no positive whole number.
    """
    text = os.environ.get(SETTING) or str(DEFAULT)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{SETTING}={text!r} must be a whole number of MiB, 1 or more.")
    return int(text)


def check_size(size: int, what: str) -> None:
    """Refuse what would take more memory than one file may.

    Args:
        size: bytes of memory that reading it takes.
        what: the file or the part of it, for the message.

    Raises:
        TooLargeError: names the setting that allows it.
    """
    mib = -(-size // MIB)
    if mib > (limit := read_limit()):
        raise TooLargeError(
            f"{what} takes {mib:,} MiB of memory to read, and the limit is {limit:,}; if you trust the file, "
            f"set the environment variable {SETTING}={mib}."
        )


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive whose list of members fits in memory.

    Raises:
        zipfile.BadZipFile: if it is none, or truncated.
        ValueError: if the list is too large.
    """
    check_size(PER_ENTRY * directory_size(path), f"the list of members of {path}")
    return zipfile.ZipFile(path)


def directory_size(path: Path) -> int:
    """Bytes of the list of an archive's members, by the record at its end (and that of its 64-bit form)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 100))
        tail = file.read()
    at = tail[:-18].rfind(b"PK\5\6")
    if at < 0:
        return 0
    (size,) = struct.unpack_from("<I", tail, at + 12)
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":
        size = max(size, *struct.unpack_from("<Q", tail, at - 76 + 40))
    return int(size)
