"""What rows of a regime come to, and those that validation chooses among them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.gate_runs import BASE, SEEDS, Regime, best, result, tests


class Outcome(NamedTuple):
    """What a row came to in each seed.

    Args:
        accuracy: in the test.
        seconds: of all its trainings.
    """

    accuracy: list[float]
    seconds: list[float]


def outcomes(
    regime: Regime, names: Sequence[str], choices: Mapping[str, Sequence[str]]
) -> dict[str, Outcome]:
    """The outcome of each row, and of those that validation chooses among others.

    Args:
        names: rows that were trained.
        choices: rows that are chosen from, by what the choice is called.
    """
    table = {name: Outcome([], []) for name in ("teacher", *names, *choices)}
    for seed in SEEDS:
        lines = {name: result(run) for name, run in tests(BASE, regime, seed, names, "").items()}
        for name, candidates in choices.items():
            chosen = lines[best(BASE, regime, seed, candidates)]
            total = sum(lines[row]["wall_s"] for row in candidates)
            lines[name] = {"accuracy": chosen["accuracy"], "wall_s": total}
        for name, outcome in table.items():
            outcome.accuracy.append(lines[name]["accuracy"])
            outcome.seconds.append(lines[name]["wall_s"])
    return table


def is_complete(regime: Regime, names: Sequence[str]) -> bool:
    """Whether all rows of a regime are tested in all seeds."""
    runs = [run for seed in SEEDS for run in tests(BASE, regime, seed, names, "").values()]
    return all(run.complete for run in runs)
