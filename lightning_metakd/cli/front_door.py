"""The command `metakd`: what needs no network answers without importing torch, and the rest goes on.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning_metakd
from lightning_metakd.cli.console import last_line, tidy_terminal
from lightning_metakd.cli.help_texts import fit_help, overview


class Command(NamedTuple):
    """A command that is a function, whose arguments are its options.

    Args:
        module: where the function lies.
        function: its name.
        summary: what it does, in a line.
    """

    module: str
    function: str
    summary: str


TRAINER_COMMANDS = {
    "fit": "train a teacher, or a student with its strategy; --resume goes on",
    "validate": "judge a checkpoint on the validation split",
    "test": "judge a checkpoint on the test split, and keep the result",
    "predict": "write a checkpoint's answers into a table",
    "precompute": "store what teachers answer, before a training",
    "export": "write a trained student as a file that runs elsewhere, with its card",
}
"""Commands with a configuration, by what they do."""

COMMANDS = {
    "demo": Command(
        "lightning_metakd.cli.demo",
        "demo",
        "what teaching is worth where labels are wrong, in minutes",
    ),
    "report": Command("lightning_metakd.reporting.report", "report", "tables of all results"),
    "classify": Command(
        "lightning_metakd.cli.classify_command",
        "classify",
        "photographs or texts, by a student",
    ),
    "list": Command("lightning_metakd.cli.listing", "print_list", "what there is to choose from"),
    "configs": Command(
        "lightning_metakd.cli.listing", "copy_configs", "copy the configurations, to change them"
    ),
    "doctor": Command("lightning_metakd.cli.doctor", "doctor", "what this machine has, and lacks"),
    "completion": Command(
        "lightning_metakd.cli.completion", "print_completion", "a script for the shell's Tab"
    ),
}
"""Commands that need no Trainer."""


def console() -> None:
    """The console script: whatever goes wrong is said in one line."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a user's own modules, which never hide an installed one
    try:
        run = prepared(None)
        tidy_terminal()  # after the imports: it quiets what they have set up
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who reads, as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # told apart there, and none is lost: a fault is written down
        line, code = last_line(error)
        if os.environ.get("METAKD_TRACEBACK"):
            traceback.print_exception(error)
        print(line, file=sys.stderr)
        sys.exit(code)


def main(args: list[str] | None = None) -> Any:
    """Run one command; the Trainer's commands return what they ran with.

    Args:
        args: the words of the command, by default those of the process.
    """
    return prepared(args)()


def prepared(args: list[str] | None) -> Callable[[], Any]:
    """The command of some words, with what it needs imported."""
    words = sys.argv[1:] if args is None else args
    first = words[0] if words else "--help"
    if first == "--version":
        return partial(print, lightning_metakd.__version__)
    if first in ("--help", "-h"):
        return partial(say, overview(TRAINER_COMMANDS, COMMANDS))
    if first in COMMANDS:
        return partial(run_function, COMMANDS[first], words)
    if first == "fit" and words[1:] in (["--help"], ["-h"]):
        return partial(say, fit_help())
    if not first.startswith("-") and first not in TRAINER_COMMANDS:
        names = ", ".join([*TRAINER_COMMANDS, *COMMANDS])
        return partial(refuse, f"{first!r} is no command; choose one of {names}.")
    with_trainer = importlib.import_module("lightning_metakd.cli.command")
    return partial(with_trainer.main, args)


def run_function(command: Command, words: list[str]) -> None:
    """Read the options of a function, and call it."""
    from jsonargparse import auto_cli

    from lightning_metakd.cli.parser import Parser, with_flags

    function = getattr(importlib.import_module(command.module), command.function)
    words = with_flags(words, function)
    auto_cli(
        {words[0]: function}, args=words, as_positional=False, parser_class=Parser, prog="metakd"
    )


def say(text: str) -> None:
    """Print a help, and end as `--help` does."""
    print(text)
    sys.exit(0)


def refuse(text: str) -> None:
    """Say what is wrong with the words, and end as a parser does."""
    print(f"metakd: {text}", file=sys.stderr)
    sys.exit(2)
