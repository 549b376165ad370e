"""Wrong labels: what a learned gate is worth where it was learned, and carried to classes it has never met.

On the 64 base classes a gate for each row is learned by ten trusted rows a class. It is then carried, as it
is, to the 20 test classes, whose trusted rows it does not see: they choose the best constant and robust loss,
and train what is learned there. Perceptrons learn it; it is carried to perceptrons, and to whole networks of
images with a teacher of another kind.
"""

from typing import NamedTuple

from experiments.gate_rivals import (
    ALONE,
    CARRIED,
    CARRIED_ALIKE,
    CARRIED_AT_20,
    CONSTANTS,
    LEARNED,
    PER_ROW,
    ROBUST,
    RULES,
    TRUSTED,
    VARIANTS,
    WEIGHED,
)
from experiments.gate_runs import (
    BASE,
    CONV4,
    ELSEWHERE,
    PERCEPTRON,
    STEPS,
    Regime,
    Student,
    best,
    provenance,
    result,
    symmetric,
    tests,
)
from experiments.plan import ROOT, Run
from experiments.runner import main
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds

PAGE = ROOT / "docs/results/wrong-labels.md"
CHOSEN = {"best constant by validation": CONSTANTS, "best robust loss by validation": ROBUST}
"""Rows that are the best of others on the rows that choose, in each seed."""
RIVAL = next(iter(CHOSEN))
HINDSIGHT = {"best constant in the test": CONSTANTS, "best robust loss in the test": ROBUST}
"""Those that are the best in the test, in each seed: nobody can choose them."""
STRONGER = next(iter(HINDSIGHT))
"""Images are compared with it too."""
DRAWN = {
    "best robust loss by validation": "loss made for wrong labels",
    "constant 0.9, trusted rows thrice": "trusted rows trained on",
    "carried": "carried gate, no trusted rows",
    PER_ROW: "gate learned on the spot",
    "carried, its mean alone": "the mean of the carried gate",
}
FREE = [*ALONE, *WEIGHED, *TRUSTED, *RULES, *LEARNED, *VARIANTS]
FEW = ["alone", *list(TRUSTED)[-1:], *RULES, PER_ROW]
FEWER = ["alone", *list(TRUSTED)[-1:], PER_ROW]
"""Rows that are shown one by one: all, those that carry a claim, and those beside a gate at another rate."""


class Table(NamedTuple):
    """A table of the page.

    Args:
        section: of the page.
        split: classes that are learned.
        rates: percents of labels that are wrong.
        seeds: of all its trainings.
        names: rows that are shown one by one.
        student: what learns.
    """

    section: str
    split: str
    rates: tuple[int, ...]
    seeds: tuple[int, ...]
    names: list[str]
    student: Student = PERCEPTRON

    @property
    def regimes(self) -> list[Regime]:
        """A regime for each rate."""
        return [symmetric(rate, self.student) for rate in self.rates]

    def tests(self, regime: Regime, seed: int, data: str = "") -> dict[str, Run]:
        """All that is tested, by row."""
        return tests(self.split, regime, seed, [*self.names, *CONSTANTS, *ROBUST], data)

    @property
    def complete(self) -> bool:
        """Whether all rows are tested."""
        of_seed = [self.tests(regime, seed) for regime in self.regimes for seed in self.seeds]
        return all(run.complete for runs in of_seed for run in runs.values())


RATES = (20, 40, 60)
CLAIM = "wrong-labels-carried"
"""The table of more seeds, which is drawn."""
TABLES = [
    Table("wrong-labels-train", BASE, RATES, (0, 1, 2), FREE),
    Table(CLAIM, ELSEWHERE, RATES, tuple(range(10)), [*FEW, *CARRIED]),
    Table("wrong-labels-test", ELSEWHERE, RATES, (0, 1, 2, 3, 4), [*FREE, *CARRIED]),
    Table(
        "wrong-labels-images",
        ELSEWHERE,
        (40,),
        (0, 1, 2, 3, 4),
        [*FEW, *CARRIED, *CARRIED_ALIKE],
        CONV4,
    ),
    Table(
        "wrong-labels-images-20",
        ELSEWHERE,
        (20,),
        tuple(range(10)),
        [*FEWER, *CARRIED_ALIKE, *CARRIED_AT_20],
        CONV4,
    ),
    Table("wrong-labels-images-60", ELSEWHERE, (60,), (0, 1, 2), [*FEWER, *CARRIED_ALIKE], CONV4),
]


def plan(data: str) -> list[Run]:
    """All rows of all tables."""
    return [
        run
        for table in TABLES
        for regime in table.regimes
        for seed in table.seeds
        for run in table.tests(regime, seed, data).values()
    ]


def accuracies(table: Table, regime: Regime) -> dict[str, list[float]]:
    """Accuracy in the test by row and seed, also those that validation or the test chooses."""
    columns: dict[str, list[float]] = {}
    for seed in table.seeds:
        runs = table.tests(regime, seed)
        for name, rows in CHOSEN.items():
            runs[name] = runs[best(table.split, regime, seed, rows)]
        for name, run in runs.items():
            columns.setdefault(name, []).append(result(run)["accuracy"])
    best_in_test = {
        name: [max(values) for values in zip(*(columns[row] for row in rows), strict=True)]
        for name, rows in HINDSIGHT.items()
    }
    return columns | best_in_test


def over_rival(
    column: dict[str, list[float]], name: str, rival: str = RIVAL
) -> tuple[float, float | None]:
    """Difference of a row to the best constant, and its half-width over seeds."""
    return over_seeds([a - b for a, b in zip(column[name], column[rival], strict=True)])


def filled(table: Table) -> str:
    """A column for each rate, and others for the difference to the best constants."""
    columns = {regime.title: accuracies(table, regime) for regime in table.regimes}
    first = ("teacher", *HINDSIGHT, *CHOSEN)
    rivals = {"it": RIVAL} | ({STRONGER: STRONGER} if table.student is CONV4 else {})
    lines = []
    for name in (*first, *table.names):
        line = {"": name}
        for title, column in columns.items():
            line[title] = percent(*over_seeds(column[name]))
            for word, rival in rivals.items():
                minus = percent(*over_rival(column, name, rival), sign="+")
                line[f"minus {word}, {title}"] = "-" if name == rival else minus
        lines.append(line)
    runs = (
        run
        for regime in table.regimes
        for k in table.seeds
        for run in table.tests(regime, k).values()
    )
    made = provenance(runs, "wrong-labels", table.seeds)
    return f"{markdown(lines)}\n\n{STEPS[table.split]} steps. {made}"


def draw(table: Table) -> None:
    """What rows are worth beside the best constant, by the share of wrong labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    colours = ("#9ecae1", "#4292c6", "#084594")
    for k, (regime, colour) in enumerate(zip(table.regimes, colours, strict=True)):
        column = accuracies(table, regime)
        points = [over_rival(column, name) for name in DRAWN]
        axis.errorbar(
            [100 * value for value, _ in points],
            [row + 0.22 * (k - 1) for row in range(len(points))],
            xerr=[100 * (half or 0.0) for _, half in points],
            **{"fmt": "o", "color": colour, "capsize": 3, "label": regime.title},
        )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(DRAWN)), DRAWN.values())
    axis.invert_yaxis()
    seeds = f"95 % over {len(table.seeds)} seeds"
    axis.set_xlabel(f"points above the best constant that validation chooses; {seeds}")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(title="labels", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(PAGE.with_suffix(".png"), dpi=130)


def write_page() -> None:
    """Fill the tables of which all runs are there."""
    for table in TABLES:
        if table.complete:
            fill_section(PAGE, table.section, filled(table))
            if table.section == CLAIM:
                draw(table)


if __name__ == "__main__":
    if main(plan):
        write_page()
