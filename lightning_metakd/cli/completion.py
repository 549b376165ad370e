"""Completion of commands, options and files by the shell's Tab key."""

import argparse
import importlib
import inspect
from typing import Literal

import shtab

from lightning_metakd.cli.front_door import COMMANDS, TRAINER_COMMANDS
from lightning_metakd.cli.help_texts import FIT_OPTIONS

PATHS = {"folder": shtab.DIRECTORY, "runs": shtab.DIRECTORY, "root": shtab.DIRECTORY}
"""Last words of options that name a folder; those of others are completed as files."""


def command_parser() -> argparse.ArgumentParser:
    """A parser of all commands with the options that people use, for completion alone."""
    parser = argparse.ArgumentParser("metakd")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name, summary in TRAINER_COMMANDS.items():
        options = ["--config", "--ckpt_path", *(o for o in FIT_OPTIONS if o != "--config")]
        add_options(commands.add_parser(name, help=summary), options)
    for name, command in COMMANDS.items():
        function = getattr(importlib.import_module(command.module), command.function)
        names = [f"--{parameter}" for parameter in inspect.signature(function).parameters]
        add_options(commands.add_parser(name, help=command.summary), names)
    return parser


def add_options(parser: argparse.ArgumentParser, options: list[str]) -> None:
    """Let a command have options whose values are completed as paths."""
    for option in options:
        action = parser.add_argument(option)
        place = PATHS.get(option.rpartition(".")[2].lstrip("-"), shtab.FILE)
        action.complete = place  # type: ignore[attr-defined]


def print_completion(shell: Literal["bash", "zsh", "tcsh"] = "bash") -> None:
    """Print a script for the shell: eval "$(metakd completion --shell=bash)".

    Args:
        shell: whose.
    """
    print(shtab.complete(command_parser(), shell=shell))
