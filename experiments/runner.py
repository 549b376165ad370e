"""Does a plan: trains what is missing, resumes what was stopped, tests what has no results, and reports."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from math import fsum
from pathlib import Path

from experiments.plan import Run, in_order
from lightning_metakd.cli.console import tidy_terminal
from lightning_metakd.cli.front_door import main as metakd


def arguments(args: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Those of the runner, and options for every training."""
    parser = argparse.ArgumentParser(
        description="Do what is not complete yet, in order; run again, it goes on where it was stopped.",
        epilog="Any further options are added to every training: --trainer.max_time=00:00:14:00",
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, default="data", help="folder of the images")
    parser.add_argument("--runs", type=Path, default="runs", help="folder of all runs, [PATH/]runs")
    parser.add_argument("--only", help="pattern of names; what these need is done too")
    parser.add_argument(
        "--dry-run", action="store_true", help="print names, minutes and what is left"
    )
    settings, options = parser.parse_known_args(args)
    if settings.runs.name != "runs":
        parser.error(
            f"--runs={settings.runs} must end in runs, where experiments look for starts; add /runs"
        )
    if not (settings.dry_run or settings.data.is_dir()):
        parser.error(f"--data={settings.data} is no folder; name the one that holds the images")
    return settings, options


def main(plan: Callable[[str], list[Run]], args: list[str] | None = None) -> bool:
    """Do or print the plan for a folder of images.

    Returns:
        Whether all of it is complete.

    Raises:
        ValueError: if no run has a name of the pattern.
    """
    settings, options = arguments(args)
    data = settings.data.resolve()
    settings.runs.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.runs.parent)
    targets = plan(os.path.relpath(data))
    if settings.only is not None:
        targets = [run for run in in_order(targets) if fnmatch(run.name, settings.only)]
    if not targets:
        raise ValueError(f"--only={settings.only} matches no run; --dry-run prints their names.")
    to_do = in_order(targets, skip=lambda run: run.complete)
    if settings.dry_run:
        print_plan(in_order(targets), set(to_do))
        return not to_do
    tidy_terminal()
    for number, run in enumerate(to_do, 1):
        run.prepare()
        words = [*run.words, *(options if run.command == "fit" else [])]
        print(f"{number}/{len(to_do)}: metakd {shlex.join(words)}", flush=True)
        # as if it were typed: Lightning warns of words beside those of the process
        sys.argv = ["metakd", *words]
        metakd()
    return settings.only is None


def print_plan(runs: list[Run], to_do: set[Run]) -> None:
    """A line for each run: its minutes on two cores, where it stands, and its name."""
    for run in runs:
        left = "to resume" if run.stopped else "to do"
        state = left if run in to_do else "complete" if run.complete else "not needed"
        print(f"{run.minutes:6.1f} min  {state:10}  {run.name}")
    minutes = fsum(run.minutes for run in to_do)
    print(f"{minutes:6.1f} min  for what is left: {len(to_do)} of {len(runs)} runs")
