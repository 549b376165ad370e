"""What a user reads: our own lines, mistakes without their surroundings, and no noise of libraries."""

import dis
import logging
import os
import platform
import re
import sys
import sysconfig
import tempfile
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning_metakd
from lightning_metakd.storage.redaction import redact, redact_words

NOISE = (
    *("Tip: For seamless", "`weights_only` was not set", "GPU available", "TPU available"),
    *("Seed set to", "Initializing distributed", "distributed_backend=", "`fast_dev_run` mode"),
    *("Loaded model weights", "Restoring states from", "Restored all states"),
)
"""Messages of Lightning that tell a user nothing, or nothing that our own line does not."""

ADVICE = (
    *("is deprecated", "does not have many workers", "smaller than the logging interval"),
    *("in eval mode at the start", "treespec, LeafSpec", "across ranks is zero"),
    "It is recommended to use `self.log(",  # to average what is the same on all processes already
)
"""Warnings about what is done on purpose, or inside the libraries below."""


def quiet(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning tells a user anything."""
    return not any(noise in record.getMessage() for noise in NOISE)


def one_line(message: Any, category: type[Warning], *where: Any, line: Any = None) -> str:
    """A warning without the line of a library that raised it."""
    return f"{category.__name__}: {message}\n"


def by_first_process(record: logging.LogRecord) -> bool:
    """Whether this process says what all of them would; a command without a Trainer has one."""
    run_logger = sys.modules.get("lightning_metakd.loggers.run_logger")
    return run_logger is None or bool(run_logger.first_process())


def tidy_terminal() -> None:
    """Nothing but what a user can act on, and that once."""
    to_stderr = logging.StreamHandler()
    to_stderr.addFilter(by_first_process)
    logging.getLogger("lightning_metakd").addHandler(to_stderr)
    quiet_lightning()
    for text in ADVICE:
        warnings.filterwarnings("ignore", f"[\\s\\S]*{re.escape(text)}")
    warnings.formatwarning = one_line  # type: ignore[assignment]


def quiet_lightning() -> None:
    """Leave out what Lightning, where it is imported, says to nobody's use."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(quiet)  # once, however often


# --- how a command ends -----------------------------------------------------------------------------------


MISTAKE, FAULT = 1, 70
"""Exit codes: a user can mend it, or the program is wrong (EX_SOFTWARE of sysexits.h)."""

CHECKED_BY = ("lightning_metakd", "lightning", "jsonargparse")
"""Installed packages whose refusals are written for a user."""

INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))

PACKAGE = str(Path(lightning_metakd.__file__).parent)

MEMORY = "can't allocate memory"
"""What torch says, as a RuntimeError, where the memory of the machine is not enough."""


def loaded(module: str, name: str) -> tuple[type[Exception], ...]:
    """A class of a library, where that is loaded: no error of it can have been raised otherwise."""
    return (getattr(sys.modules[module], name),) if module in sys.modules else ()


def out_of_memory(error: Exception) -> bool:
    """Whether the memory of the machine or of its device is not enough."""
    kinds: tuple[type[Exception], ...] = (MemoryError, *loaded("torch", "OutOfMemoryError"))
    return isinstance(error, kinds) or MEMORY in str(error)


def is_mistake(error: Exception) -> bool:
    """Whether a user can mend it: the system's refusal, or one by a `raise` in what checks for users.

    That is this package, those it builds on, and a user's own code. A TypeError that Python itself raises,
    or one of torch's, tells a user nothing.
    """
    of_trainer = loaded("lightning.fabric.utilities.exceptions", "MisconfigurationException")
    if isinstance(error, (OSError, ImportError, *of_trainer)) or out_of_memory(error):
        return True
    kinds = (ValueError, TypeError, FloatingPointError)
    checked = isinstance(error, (*kinds, RuntimeError) if from_callback(error) else kinds)
    return checked and refuses(error)


def origin(error: BaseException) -> TracebackType | None:
    """The innermost level of an error's traceback; None for one that was never raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def package_of(error: BaseException) -> str:
    """The package in which an error arose."""
    trace = origin(error)
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]


def from_callback(error: BaseException) -> bool:
    """Whether a callback of Lightning has raised it: those refuse settings of theirs by a RuntimeError."""
    trace = origin(error)
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return module.startswith("lightning.pytorch.callbacks.")


def refuses(error: Exception) -> bool:
    """Whether an error comes of a `raise`, where that is written for a user."""
    trace = origin(error)
    if trace is None:
        return True
    code = trace.tb_frame.f_code
    by_raise = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return by_raise and (
        package_of(error) in CHECKED_BY or not code.co_filename.startswith(INSTALLED)
    )


def message_of(error: Exception) -> str:
    """What an error says in one line, without the number that the operating system gives it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    if out_of_memory(error):
        text = (
            f"the memory is not enough ({text[:200]}); lower data.meta_batch_size, data.batch_size or the "
            "width of the networks."
        )
    return " ".join(redact(text).split()) or type(error).__name__


def note_fault(error: Exception, folder: Path | None) -> None:
    """Write an error down that no user can mend, and note on it where.

    Args:
        folder: where `error.log` goes, the run's directory; None takes a new file among temporary ones.
    """
    if not is_mistake(error) and not getattr(error, "__notes__", None):
        error.add_note(f"the full traceback is in {write_fault(error, folder)}")


def last_line(error: Exception) -> tuple[str, int]:
    """The one line with which a command ends, and its exit code."""
    if is_mistake(error):
        return f"metakd: {message_of(error)}", MISTAKE
    note_fault(error, None)
    return (
        f"metakd: a fault {where(error)}, {type(error).__name__}: {message_of(error)[:300]} "
        f"({'; '.join(error.__notes__)}; METAKD_TRACEBACK=1 shows it here)"
    ), FAULT


def where(error: Exception) -> str:
    """Whose fault it is: the innermost line of a user's own file, or the program's."""
    frames = traceback.extract_tb(error.__traceback__)
    others = (*INSTALLED, PACKAGE, "<")
    of_user = [frame for frame in frames if not frame.filename.startswith(others)]
    if not of_user:
        return "of the program"
    return f"in {Path(of_user[-1].filename).name}, line {of_user[-1].lineno}"


def write_fault(error: Exception, folder: Path | None) -> str:
    """Write the traceback with the versions that it was made with, and return the file's path."""
    versions = [f"{name} {version(name)}" for name in VERSIONS]
    text = "".join(traceback.format_exception(error))
    report = f"{' '.join(redact_words(sys.argv))}\n{', '.join(versions)}, {platform.platform()}\n\n{text}\n"
    if folder is None:
        handle, path = tempfile.mkstemp(prefix="metakd-error-", suffix=".log")
    else:
        folder.mkdir(parents=True, exist_ok=True)  # gone where a run ends before it has written
        path = str(folder / "error.log")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(redact(report))
    return path


VERSIONS = ("lightning_metakd", "torch", "torchvision", "lightning", "jsonargparse")
