"""Who won, and whether that is a claim: one sentence for each task."""

from collections.abc import Sequence

from lightning_metakd.reporting.comparison import Comparison
from lightning_metakd.reporting.control_comparison import accuracy_cell
from lightning_metakd.reporting.markdown import percent
from lightning_metakd.reporting.paired_comparison import (
    Difference,
    comparable,
    difference,
    gain_over,
)
from lightning_metakd.reporting.result_rows import Row
from lightning_metakd.reporting.seed_intervals import SEEDS_OF_A_CLAIM


def verdict(task: Comparison) -> str:
    """Which row is the best, what it is compared with, and whether the difference is a claim."""
    best, *others = task.rows
    if not best.values_of("accuracy"):
        return "No accuracy was measured."
    who, accuracy = f"{best.name} ({best.learner})", f"{accuracy_cell(best)} %"
    if not others:
        return f"{who} has an accuracy of {accuracy}; it is the only row, and nothing is compared."
    first = f"{who} has the highest accuracy, {accuracy}, of {len(task.rows)} rows."
    return f"{first} {beside_rival(best, others, task.baselines)}"


def beside_rival(best: Row, others: Sequence[Row], baselines: Sequence[Row]) -> str:
    """How much the best row is above the baseline or, where there is none, above the next row."""
    gain = gain_over(best, baselines)
    if gain is None or not gain.pairs:
        second = next((row for row in others if comparable(best, row)), None)
        if second is None:
            return (
                "No other row is known to be of the same episodes, so that no difference is paired, "
                "and this is no claim."
            )
        rival, gain = f"the next row, {second.name} ({second.learner})", difference(best, second)
    else:
        rival = f"the baseline {baselines[0].experiment}"
    if not gain.pairs:
        return f"No training shares its episodes with {rival}, so that this is no claim."
    return claim(rival, gain, len(others))


def claim(rival: str, gain: Difference, n_others: int) -> str:
    """What may be said of a difference to another row.

    Args:
        n_others: among how many other rows the best was chosen.
    """
    over = f"{gain.pairs} training seed{'s' * (gain.pairs > 1)}"
    sentence = (
        f"It is {percent(gain.mean, gain.half_width)} points above {rival}, paired by episode or row over "
        f"{over}"
    )
    if not gain.is_positive:
        return f"{sentence}: the interval holds 0, and nobody has won."
    if gain.pairs < SEEDS_OF_A_CLAIM:
        return (
            f"{sentence}: better on these, but no claim, which needs {SEEDS_OF_A_CLAIM} training "
            "seeds, as another seed might turn it round."
        )
    chosen = (
        f", with the reservation that it is the best of {n_others + 1} by this very table"
        if n_others > 1
        else ""
    )
    return f"{sentence}: the interval lies above 0, which is a claim{chosen}."
