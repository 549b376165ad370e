"""The rows of each task beside one another: what a table, and a page, is written from."""

from collections.abc import Sequence
from typing import NamedTuple

from lightning_metakd.reporting.control_comparison import (
    ControlledRow,
    controlled_rows,
    is_control_of,
)
from lightning_metakd.reporting.paired_comparison import Difference, gain_over, named
from lightning_metakd.reporting.result_rows import Result, Row, by_task, rows_of


class Comparison(NamedTuple):
    """The rows of one task.

    Attributes:
        title: what they have in common.
        rows: the best first; controls of others are not among them.
        gains: of each row over the baseline; None where there is none.
        baseline: what the rows are compared with, by name; None where nothing is named.
        baselines: rows of the baseline.
        controlled: rows that learned a strategy, beside their controls.
    """

    title: str
    rows: Sequence[Row]
    gains: Sequence[Difference | None]
    baseline: str | None
    baselines: Sequence[Row]
    controlled: Sequence[ControlledRow]

    @property
    def experiment_of_baseline(self) -> str | None:
        """Its experiment; None where nothing is named."""
        return self.baselines[0].experiment if self.baselines else None

    @property
    def left_out(self) -> list[str]:
        """Which training seeds are not compared."""
        return [d.left_out for d in self.gains if d is not None and d.left_out]


def comparisons(
    results: Sequence[Result],
    baseline: str | None = None,
    controls: Sequence[str] = (),
    by_seed: bool = False,
) -> list[Comparison]:
    """The results task by task.

    Args:
        baseline: experiment, or name of a row, that the others are compared with.
        controls: experiments that serve as controls.
        by_seed: a row for each training seed.
    """
    rows, selected = rows_of(results), rows_of(results, by_seed)
    for control in controls:
        named(rows, "controls", control)

    def of_baseline(matches: list[Row]) -> list[Row]:
        return [] if baseline is None else named(matches, "baseline", baseline)

    of_task, compared = by_task(rows), []
    for title, group in by_task(selected).items():
        shown = [row for row in group if not any(is_control_of(row, other) for other in group)]
        baselines = of_baseline(selected)
        gains = [gain_over(row, baselines) for row in shown]
        controlled = controlled_rows(of_task[title], controls, of_baseline(rows))
        compared.append(Comparison(title, shown, gains, baseline, baselines, controlled))
    return compared
