"""What gates say of the labels of images, by where they were learned.

`python -m experiments.carried_gates --runs <folder>` asks the gates of the whole networks that
`experiments.wrong_labels` has left there, keeps their rows beside earlier ones, and fills their table of
`docs/results/wrong-labels.md`.
"""

import itertools

from experiments.gate_reading import read
from experiments.gate_rivals import PER_ROW
from experiments.gate_runs import CONV4, ELSEWHERE, symmetric, training
from experiments.kept_answers import (
    Answers,
    answer,
    from_command_line,
    keep,
    read_answers,
)
from experiments.plan import ROOT
from experiments.wrong_labels import PAGE, TABLES
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.reporting.seed_intervals import over_seeds

FILE = ROOT / "experiments/results/carried_gates.csv"
KEYS = ("row", "seed")
REGIME = symmetric(40, CONV4)
SEEDS = next(table.seeds for table in TABLES if table.student is CONV4)
GATES = ("carried", "carried from images", PER_ROW)


def table(rows: Answers) -> str:
    """A line for each gate that was asked in all seeds."""
    lines = []
    for name in GATES:
        keys = [(name, str(seed)) for seed in SEEDS]
        if not all(key in rows for key in keys):
            continue
        line = {"": name}
        for column in (column for column in rows[keys[0]] if column not in KEYS):
            mean, half = over_seeds([float(rows[key][column]) for key in keys])
            line[column] = f"{mean:.2f} ± {half:.2f}"
        lines.append(line)
    return markdown(lines) if lines else ""


def main(data: str) -> None:
    """Ask, keep, fill."""
    rows = read_answers(FILE, KEYS)
    for name, seed in itertools.product(GATES, SEEDS):
        run = training(ELSEWHERE, REGIME, seed, name, data)
        if run.complete:
            key = (name, str(seed))
            rows[key] = answer(KEYS, key, read(run).row())
    if rows:
        keep(FILE, rows, PAGE, "wrong-labels-gates", table(rows))


if __name__ == "__main__":
    from_command_line(__doc__, main)
