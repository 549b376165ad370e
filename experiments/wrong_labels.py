"""Wrong labels: what a learned gate is worth where it was learned, and carried to classes it has never met.

On the 64 base classes a gate for each row is learned by ten trusted rows a class. It is then carried, as it
is, to the 20 test classes, whose trusted rows it does not see: they choose the best constant and robust loss,
and train what is learned there.
"""

from experiments.perceptrons import (
    ALONE,
    BASE,
    CARRIED,
    CLASSES,
    CONSTANTS,
    ELSEWHERE,
    LEARNED,
    QUIZZES,
    ROBUST,
    RULES,
    STEPS,
    TRUSTED,
    WEIGHED,
    Regime,
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
REGIMES = [Regime(f"rate{rate}", f"{rate} % wrong", rate / 100) for rate in (20, 40, 60)]
SEEDS = {BASE: (0, 1, 2), ELSEWHERE: (0, 1, 2, 3, 4)}
CHOSEN = {"best constant by validation": CONSTANTS, "best robust loss by validation": ROBUST}
"""Rows that are the best of others on the rows that choose, in each seed."""
FREE = [*ALONE, *WEIGHED, *TRUSTED, *RULES, *LEARNED, *QUIZZES]
"""Rows that are shown one by one."""


def names(split: str) -> list[str]:
    """The rows that are trained."""
    return [*FREE, *CONSTANTS, *ROBUST, *(CARRIED if split == ELSEWHERE else ())]


def plan(data: str) -> list[Run]:
    """All rows at all rates."""
    return [
        run
        for regime in REGIMES
        for split in CLASSES
        for seed in SEEDS[split]
        for run in tests(split, regime, seed, names(split), data).values()
    ]


def is_complete(split: str) -> bool:
    """Whether all rows of a table are tested."""
    of_split = [tests(split, r, seed, names(split), "") for r in REGIMES for seed in SEEDS[split]]
    return all(run.complete for runs in of_split for run in runs.values())


def accuracies(split: str, regime: Regime) -> dict[str, list[float]]:
    """Accuracy in the test by row and seed, those that validation chooses among them."""
    columns: dict[str, list[float]] = {}
    for seed in SEEDS[split]:
        runs = tests(split, regime, seed, names(split), "")
        for name, rows in CHOSEN.items():
            runs[name] = runs[best(split, regime, seed, rows)]
        for name, run in runs.items():
            columns.setdefault(name, []).append(result(run)["accuracy"])
    constants = [max(columns[name][k] for name in CONSTANTS) for k in range(len(SEEDS[split]))]
    return {**columns, "best constant in the test": constants}


def table(split: str) -> str:
    """A column for each rate, and one for the difference to the best constant by validation."""
    columns = {regime.title: accuracies(split, regime) for regime in REGIMES}
    rival, first = next(iter(CHOSEN)), ("teacher", "best constant in the test", *CHOSEN)
    lines = []
    for name in (*first, *FREE, *(CARRIED if split == ELSEWHERE else ())):
        line = {"": name}
        for title, column in columns.items():
            line[title] = percent(*over_seeds(column[name]))
            differences = [a - b for a, b in zip(column[name], column[rival], strict=True)]
            line[f"minus it, {title}"] = (
                "-" if name == rival else percent(*over_seeds(differences), sign="+")
            )
        lines.append(line)
    return markdown(lines)


def write_page() -> None:
    """Fill the tables of the page of which all runs are there."""
    text = PAGE.read_text()
    for split in filter(is_complete, CLASSES):
        teacher = tests(split, REGIMES[0], 0, [], "")["teacher"]
        made = provenance(teacher, "wrong-labels", SEEDS[split])
        filled = f"{table(split)}\n\n{STEPS[split]} steps. {made}"
        text = between_markers(text, f"wrong-labels-{split}", filled)
    with atomic_write(PAGE) as file:
        file.write_text(text)


if __name__ == "__main__":
    if main(plan):
        write_page()
