"""Many coefficients at once: one learned run beside random searches, where nobody can try a grid."""

from collections.abc import Sequence

from experiments.gate_outcomes import outcomes
from experiments.gate_rivals import OF_MANY, SEARCHED_MANY
from experiments.gate_runs import CLEAN, SEEDS, Regime
from lightning_metakd.reporting.markdown import markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

MANY_REGIMES = [CLEAN, Regime("rows30_rate20", "30 rows a class, 20 % wrong", 0.2, rows=30)]
OF_SEARCH = (8, 24, 64)
LONGEST = {"clean": 24, "rows30_rate20": 64}
"""Runs of the longest random search: more where a run is short."""
HALVES, LEARNED = "many, halves", "many, learned"
TIMED = CLEAN
"""These two of its first seed had the machine to themselves: what learning costs is read there."""


def of_many(regime: Regime) -> list[str]:
    """Rows of many coefficients, those of a random search behind the others."""
    return [*OF_MANY, *list(SEARCHED_MANY)[: LONGEST[regime.name]]]


def table_of_many(regimes: Sequence[Regime]) -> str:
    """Accuracy by row and regime where many coefficients are to be chosen, and what it costs to choose."""
    best_of_all = "best of the search in the test"
    searches = [f"random search of {n}" for n in OF_SEARCH]
    rows = ["teacher", *OF_MANY, *searches]
    lines = {name: {"": name.removeprefix("many, ")} for name in (*rows, best_of_all)}
    costs = {HALVES: 1.0, **dict(zip(searches, OF_SEARCH, strict=True))}
    for regime in regimes:
        names = of_many(regime)
        searched = names[len(OF_MANY) :]
        choices = {
            name: searched[:n]
            for name, n in zip(searches, OF_SEARCH, strict=True)
            if n <= len(searched)
        }
        table = outcomes(regime, names, choices)
        tops = [max(table[name].accuracy[k] for name in searched) for k in range(len(SEEDS))]
        accuracies = {name: table[name].accuracy for name in rows if name in table}
        for name, line in lines.items():
            values = {**accuracies, best_of_all: tops}.get(name)
            line[regime.title] = percent(*over_seeds(values)) if values else "-"
        if regime == TIMED:
            costs[LEARNED] = table[LEARNED].seconds[0] / table[HALVES].seconds[0]
    for name, line in lines.items():
        line["cost, runs"] = f"{costs[name]:.1f}" if name in costs else "-"
    return markdown(list(lines.values()))
