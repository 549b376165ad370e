"""Files that are whole or not there."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place once the block has ended well.

    Raises:
        OSError: if it could not be written, a full disk for instance; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}); free some space or choose another "
            "directory. What was there before is unchanged.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def make_once(path: Path, there: Callable[[], bool], make: Callable[[], None]) -> None:
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


def lock(file: IO[str], path: Path) -> None:
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


def file_sha256(path: Path) -> str | None:
    """Hash of a file, None if it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
