"""Files that are whole or not there."""

import errno
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".metakd-part"
"""How the names of temporary files end; they begin with a dot and the name of the file to be."""

log = logging.getLogger(__name__)


class DamagedFileError(ValueError):
    """Why a file cannot be read, in a few words."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place, safe on disk, once the block has ended well.

    It is written in place, with the permissions that the umask leaves. While it is written it is locked;
    a temporary file without a lock was left by a killed process, and the next writer removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent)
    part, claim = new_part(path)
    with claim:
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """As `replaced`, and where it fails the error says what to do.

    Raises:
        OSError: if it could not be written, a full disk for instance; nothing half-written stays.
    """
    with named(path), replaced(path) as part:
        yield part


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Have a failure inside say which file could not be written, and what to do.

    Raises:
        OSError: what the system says is wrong, a full disk for instance.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}); free some space or choose another "
            "directory. What was there before is unchanged.",
        ) from error


def new_part(path: Path) -> tuple[Path, IO[bytes]]:
    """A new temporary file, and the open file that holds its lock."""
    while True:
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
        claim = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "rb+")
        if fcntl is None:
            claim.close()  # where nothing is locked, an open file could not be renamed either
            return part, claim
        with suppress(OSError):  # a network file system without locks
            fcntl.flock(claim, fcntl.LOCK_EX)
        if os.fstat(claim.fileno()).st_nlink:  # nobody took it for a dead one before it was locked
            return part, claim
        claim.close()


def remove_unfinished(folder: Path, below: bool = False) -> None:
    """Remove temporary files that killed processes left, never those of a living one.

    Args:
        below: in all folders below, too.
    """
    if fcntl is None:
        return
    for part in folder.glob(("**/" if below else "") + f".*{UNFINISHED}"):
        with suppress(OSError), part.open("rb+") as file:  # its writer lives, or has just ended
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def create_once(path: Path, there: Callable[[], bool], make: Callable[[], None]) -> None:
    """Make a file unless it is there; of several processes one does, the others wait and look again.

    Where files cannot be locked, each makes it, and the last one stays. The lock is a hidden file beside it.
    """
    if there():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        lock(file, path)
        if not there():
            make()  # closing the file, or the end of the process, lets the next one in


def lock(file: IO[Any], path: Path) -> None:
    """Wait until no other process holds the file, where the system has locks."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("Another process is making %s; waiting for it.", path)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # a network file system without locks
        log.warning("%s cannot be locked; two processes may both make it.", path)


def hold_folder(folder: Path, patience: float = 10.0) -> int | None:
    """Hold a folder for this process until the descriptor is closed; None where folders cannot be locked.

    Args:
        patience: seconds to wait for one that was killed, whose loaders may outlive it for a while.

    Raises:
        OSError: if another process holds it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            os.close(descriptor)
            raise OSError(
                errno.EBUSY,
                f"another process writes in {folder}; wait until it has ended, or give this run another "
                "--experiment.",
            ) from error
        except OSError:  # a network file system without locks
            os.close(descriptor)
            return None
        return descriptor


def file_sha256(path: Path) -> str | None:
    """Hash of a file, None if it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, text: str) -> None:
    """Append a line, on disk when this returns; whole or not at all, also beside other processes.

    Raises:
        OSError: if it could not be written.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            lock(file, path)
            size = file.seek(0, os.SEEK_END)
            line = missing_end(file, size) + text.encode() + b"\n"
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise


def missing_end(file: IO[bytes], size: int) -> bytes:
    """What ends the last line of a file that was cut in the middle of it."""
    if size == 0:
        return b""
    file.seek(size - 1)
    return b"" if file.read(1) == b"\n" else b"\n"
