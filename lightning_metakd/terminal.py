"""What a user reads: our own lines, mistakes without their surroundings, and no noise of libraries."""

import logging
import re
import warnings
from typing import Any

AROUND = re.compile(
    r"\s*(- )?(Does not validate against any|Subtypes:|Errors:$|Given value|Expected a <class '\w+'>$|$)"
)
"""Lines in which the parser tells what else it has tried."""


def plainly(message: str) -> str:
    """A message of the parser without what surrounds the mistake itself."""
    kept = [line for line in message.splitlines() if not AROUND.match(line)]
    return "\n".join(kept) or message


NOISE = (
    *("Tip: For seamless", "`weights_only` was not set", "GPU available", "TPU available"),
    *("Seed set to", "Initializing distributed", "distributed_backend=", "`fast_dev_run` mode"),
    "Loaded model weights",
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


def tidy_terminal() -> None:
    """Nothing but what a user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(quiet)
    for text in ADVICE:
        warnings.filterwarnings("ignore", f"[\\s\\S]*{re.escape(text)}")
    warnings.formatwarning = one_line  # type: ignore[assignment]


def told(error: Exception) -> str:
    """What an error says, without the number that the operating system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error)
