"""Wrong labels: what a learned gate is worth where it was learned, and carried to classes it has never met.

On the 64 base classes a gate for each row is learned by ten trusted rows a class. It is then carried, as it
is, to the 20 test classes, whose trusted rows it does not see: they choose the best constant and robust loss,
and train what is learned there. Perceptrons learn it; it is carried to perceptrons, and to whole networks of
images with a teacher of another kind.
"""

from typing import NamedTuple

from experiments.gate_rivals import (
    ALONE,
    BASE,
    CARRIED,
    CONSTANTS,
    CONV4,
    ELSEWHERE,
    LEARNED,
    PER_ROW,
    PERCEPTRON,
    QUIZZES,
    ROBUST,
    RULES,
    STEPS,
    TRUSTED,
    WEIGHED,
    Regime,
    Student,
    best,
    provenance,
    result,
    tests,
)
from experiments.plan import ROOT, Run
from experiments.runner import main
from lightning_metakd.reporting.markdown import between_markers, markdown, percent
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.atomic_files import atomic_write

PAGE = ROOT / "docs/results/wrong-labels.md"
CHOSEN = {"best constant by validation": CONSTANTS, "best robust loss by validation": ROBUST}
"""Rows that are the best of others on the rows that choose, in each seed."""
FREE = [*ALONE, *WEIGHED, *TRUSTED, *RULES, *LEARNED, *QUIZZES]
FEW = ["alone", *list(TRUSTED)[-1:], *RULES, PER_ROW]
"""Rows that are shown one by one: all, and those that carry a claim."""


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
        return [
            Regime(f"rate{rate}", f"{rate} % wrong", rate / 100, student=self.student)
            for rate in self.rates
        ]

    def tests(self, regime: Regime, seed: int, data: str = "") -> dict[str, Run]:
        """All that is tested, by row."""
        return tests(self.split, regime, seed, [*self.names, *CONSTANTS, *ROBUST], data)

    @property
    def complete(self) -> bool:
        """Whether all rows are tested."""
        of_seed = [self.tests(regime, seed) for regime in self.regimes for seed in self.seeds]
        return all(run.complete for runs in of_seed for run in runs.values())


RATES = (20, 40, 60)
TABLES = [
    Table("wrong-labels-train", BASE, RATES, (0, 1, 2), FREE),
    Table("wrong-labels-test", ELSEWHERE, RATES, (0, 1, 2, 3, 4), [*FREE, *CARRIED]),
    Table("wrong-labels-images", ELSEWHERE, (40,), (0, 1, 2), [*FEW, *CARRIED], CONV4),
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
    """Accuracy in the test by row and seed, those that validation chooses among them."""
    columns: dict[str, list[float]] = {}
    for seed in table.seeds:
        runs = table.tests(regime, seed)
        for name, rows in CHOSEN.items():
            runs[name] = runs[best(table.split, regime, seed, rows)]
        for name, run in runs.items():
            columns.setdefault(name, []).append(result(run)["accuracy"])
    constants = [max(columns[name][k] for name in CONSTANTS) for k in range(len(table.seeds))]
    return {**columns, "best constant in the test": constants}


def filled(table: Table) -> str:
    """A column for each rate, and one for the difference to the best constant by validation."""
    columns = {regime.title: accuracies(table, regime) for regime in table.regimes}
    rival, first = next(iter(CHOSEN)), ("teacher", "best constant in the test", *CHOSEN)
    lines = []
    for name in (*first, *table.names):
        line = {"": name}
        for title, column in columns.items():
            line[title] = percent(*over_seeds(column[name]))
            differences = [a - b for a, b in zip(column[name], column[rival], strict=True)]
            line[f"minus it, {title}"] = (
                "-" if name == rival else percent(*over_seeds(differences), sign="+")
            )
        lines.append(line)
    made = provenance(table.tests(table.regimes[0], 0)["teacher"], "wrong-labels", table.seeds)
    return f"{markdown(lines)}\n\n{STEPS[table.split]} steps. {made}"


def write_page() -> None:
    """Fill the tables of which all runs are there."""
    text = PAGE.read_text()
    for table in TABLES:
        if table.complete:
            text = between_markers(text, table.section, filled(table))
    with atomic_write(PAGE) as file:
        file.write_text(text)


if __name__ == "__main__":
    if main(plan):
        write_page()
