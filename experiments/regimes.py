"""Where learned teaching pays: the regret of one learned run to the best that one could have chosen.

The regret of a row is the best accuracy of any row of its regime and seed, minus its own. Rivals that are
chosen by validation cost a run for each candidate; the time of a learned run says how many it costs.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.gate_outcomes import Outcome, is_complete, outcomes
from experiments.gate_rivals import (
    ALONE,
    CONSTANTS,
    DEFAULT,
    LEARNED,
    OVER_ROBUST,
    OWN_RULE,
    PER_ROW,
    ROBUST,
    RULES,
    SEARCHED,
    STARTS,
    TRUSTED,
    VARIANTS,
)
from experiments.gate_runs import (
    BASE,
    CLEAN,
    FOREIGN,
    SEEDS,
    TRUSTED_ROWS,
    Regime,
    provenance,
    symmetric,
    tests,
)
from experiments.many_coefficients import MANY_REGIMES, of_many, table_of_many
from experiments.plan import ROOT, Run
from experiments.runner import main
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE = ROOT / "docs/where-it-pays.md"
ROBUST_TEACHER = "GCE 0.7, lr 0.2"
UNGATED = "GCE 0.4, lr 0.2"
"""The loss over which a gate is learned, without it: as much chosen by the tests."""
REGIMES = [
    CLEAN,
    *map(symmetric, (20, 40, 60)),
    *(
        Regime(f"superclass{rate}", f"{rate} % wrong within superclasses", rate / 100, "superclass")
        for rate in (20, 40)
    ),
    Regime("rate40_robust", "40 % wrong, teacher by GCE", 0.4, teacher=ROBUST_TEACHER),
    *(Regime(f"rows{rows}", f"{rows} rows a class", rows=rows) for rows in (10, 30)),
    Regime("clean_foreign", "right labels, foreign teacher", student=FOREIGN),
    Regime("rate40_foreign", "40 % wrong, foreign teacher", 0.4, student=FOREIGN),
]
TRAINED = [
    *ALONE,
    *ROBUST,
    *CONSTANTS,
    *RULES,
    *OWN_RULE,
    *SEARCHED,
    *LEARNED,
    *OVER_ROBUST,
    *VARIANTS,
    *STARTS,
]
CHOSEN = {
    "best constant by validation": list(CONSTANTS),
    "random search of 8 by validation": list(SEARCHED),
    "best robust loss by validation": list(ROBUST),
}
"""Rows that are the best of others on the rows that choose, in each seed."""
HINDSIGHT = "best row of the other seeds"
"""What tests of the other seeds would have chosen: what is left of its regret is the noise of a run."""
TIMED = symmetric(40)
"""Trainings of its first seed had the machine to themselves: what a row costs is read there."""
SHOWN = [
    HINDSIGHT,
    DEFAULT,
    *CHOSEN,
    *RULES,
    *OWN_RULE,
    *LEARNED,
    *OVER_ROBUST,
    UNGATED,
    *STARTS,
    *VARIANTS,
    *ALONE,
]


def with_trusted(rows: int) -> Regime:
    """40 % wrong labels, and so many trusted rows a class."""
    usual = symmetric(40)
    name = usual.name if rows == TRUSTED_ROWS else f"{usual.name}_trusted{rows}"
    return usual._replace(name=name, title=f"{rows} a class", trusted=rows)


TRUSTED_REGIMES = [with_trusted(rows) for rows in (1, 2, 5, 10, 20)]
OF_TRUSTED = [*ROBUST, *CONSTANTS, *LEARNED, *list(TRUSTED)[-1:]]
CHOSEN_OF_TRUSTED = {name: rows for name, rows in CHOSEN.items() if set(rows) <= set(OF_TRUSTED)}


def plan(data: str) -> list[Run]:
    """All rows of all regimes, those of many coefficients, and those of more and fewer trusted rows."""
    of_regimes = [(regime, TRAINED) for regime in REGIMES]
    of_all = [(regime, of_many(regime)) for regime in MANY_REGIMES]
    of_trusted = [(regime, OF_TRUSTED) for regime in TRUSTED_REGIMES]
    return [
        run
        for regime, names in [*of_regimes, *of_all, *of_trusted]
        for seed in SEEDS
        for run in tests(BASE, regime, seed, names, data).values()
    ]


def below_best(table: Mapping[str, Outcome], names: Sequence[str]) -> dict[str, list[float]]:
    """What each row is below the best of some rows in its seed."""
    tops = [max(values) for values in zip(*(table[name].accuracy for name in names), strict=True)]
    return {
        name: [top - value for top, value in zip(tops, outcome.accuracy, strict=True)]
        for name, outcome in table.items()
    }


def in_hindsight(table: Mapping[str, Outcome], names: Sequence[str]) -> Outcome:
    """In each seed the accuracy of the row that is best in the others; nobody could have paid for it."""
    n_seeds = len(table[names[0]].accuracy)

    def of_others(name: str, seed: int) -> float:
        values = table[name].accuracy
        return fmean([*values[:seed], *values[seed + 1 :]])

    chosen = [max(names, key=lambda name: of_others(name, seed)) for seed in range(n_seeds)]
    return Outcome([table[name].accuracy[seed] for seed, name in enumerate(chosen)], [])


def regret_tables(regimes: Sequence[Regime]) -> tuple[str, str]:
    """Regret by row and regime with the cost of each row, and accuracies of the regimes.

    Draws the first one too.
    """
    lines = {name: {"": name} for name in SHOWN}
    about, means = [], []
    for regime in regimes:
        table = outcomes(regime, TRAINED, CHOSEN)
        table[HINDSIGHT] = in_hindsight(table, TRAINED)
        regrets = below_best(table, TRAINED)
        for name in SHOWN:
            lines[name][regime.title] = percent(*over_seeds(regrets[name]))
        means.append([100 * fmean(regrets[name]) for name in SHOWN])
        top = max(TRAINED, key=lambda name: fmean(table[name].accuracy))
        columns = {
            n: percent(*over_seeds(table[n].accuracy)) for n in ("teacher", "alone", PER_ROW)
        }
        about.append({"regime": regime.title, **columns, "best row": top})
    if TIMED in regimes:
        table = outcomes(TIMED, TRAINED, CHOSEN)
        for name in SHOWN:
            cost = table[name].seconds[0] / table[DEFAULT].seconds[0] if name in table else None
            lines[name]["cost, runs"] = "-" if cost is None else f"{cost:.1f}"
    draw(means, [regime.title for regime in regimes])
    return markdown(list(lines.values())), markdown(about)


def draw(means: list[list[float]], titles: Sequence[str]) -> None:
    """Regrets as a map of rows and regimes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(
        figsize=(3.5 + 0.75 * len(titles), 0.29 * len(SHOWN)), layout="constrained"
    )
    image = axis.imshow(
        list(zip(*means, strict=True)), vmin=0, vmax=5, cmap="cividis_r", aspect="auto"
    )
    for column, values in enumerate(means):
        for row, value in enumerate(values):
            colour = "white" if value > 2.5 else "black"
            axis.text(
                column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8
            )
    axis.set_xticks(range(len(titles)), titles, rotation=40, ha="right")
    axis.set_yticks(range(len(SHOWN)), SHOWN)
    figure.colorbar(image, label="regret: points below the best row", extend="max", shrink=0.8)
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def table_of_trusted(regimes: Sequence[Regime]) -> str:
    """Accuracy by row and number of trusted rows a class, which judge, choose, or are trained on."""
    rows = [*CHOSEN_OF_TRUSTED, *LEARNED, *list(TRUSTED)[-1:]]
    lines = {name: {"": name} for name in rows}
    for regime in regimes:
        table = outcomes(regime, OF_TRUSTED, CHOSEN_OF_TRUSTED)
        for name, line in lines.items():
            line[regime.title] = percent(*over_seeds(table[name].accuracy))
    return markdown(list(lines.values()))


def write_page() -> None:
    """Fill the tables of the page by the regimes that are complete, and name the others."""
    regimes = [r for r in REGIMES if is_complete(r, TRAINED)]
    with_many = [r for r in MANY_REGIMES if is_complete(r, of_many(r))]
    of_trusted = [r for r in TRUSTED_REGIMES if is_complete(r, OF_TRUSTED)]
    complete = [*regimes, *with_many, *of_trusted]
    left = [r.title for r in (*REGIMES, *MANY_REGIMES, *TRUSTED_REGIMES) if r not in complete]
    filled: dict[str, tuple[str, list[tuple[Regime, list[str]]]]] = {}
    if regimes:
        regrets, about = regret_tables(regimes)
        rows = [(r, TRAINED) for r in regimes]
        filled |= {"regrets": (regrets, rows), "regimes": (about, rows)}
    if with_many:
        filled["many"] = table_of_many(with_many), [(r, of_many(r)) for r in with_many]
    if of_trusted:
        filled["trusted"] = table_of_trusted(of_trusted), [(r, OF_TRUSTED) for r in of_trusted]
    for section, (table, rows) in filled.items():
        runs = (
            run for r, names in rows for k in SEEDS for run in tests(BASE, r, k, names, "").values()
        )
        made = provenance(runs, "where-it-pays")
        made += f"\n\nNot complete: {', '.join(left)}." if left else ""
        fill_section(PAGE, section, f"{table}\n\n{made}")


if __name__ == "__main__":
    if main(plan):
        write_page()
