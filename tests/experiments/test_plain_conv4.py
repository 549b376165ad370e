"""A table of all seeds is made of those of each."""

import pytest

from experiments import plain_conv4
from lightning_metakd.reporting.seed_intervals import over_seeds

ROWS = ("alone", "alone_tuned", "taught", "taught_tuned")


def page(accuracy: float) -> str:
    """A page whose rows are of a seed that is so good, and each better by a point than the one before."""
    text = ""
    for seed in plain_conv4.SEEDS:
        text += f"<!-- results:begin plain-conv4-seed{seed} -->\n"
        for shots in plain_conv4.SHOTS:
            text += f"### CIFARFS, test, 5-way {shots}-shot\n"
            for k, name in enumerate(ROWS):
                value = accuracy + seed**2 + 10 * (shots == 5) + k
                text += f"| {name}_nearest_mean | ProtoNet | 1 | {value:.2f} ± 0.50 | - | 2 k |\n"
        text += "<!-- results:end -->\n"
        text += f"<!-- results:begin plain-conv4-levers-seed{seed} -->\n"
        for shots in plain_conv4.SHOTS:
            text += f"### CIFARFS, test, 5-way {shots}-shot\n"
            text += f"| by_mixup | ProtoNet | 1 | {accuracy - shots:.2f} ± 0.50 | - | 2 k |\n"
        text += "<!-- results:end -->\n"
    return text


def test_it_reads_each_seed_and_each_number_of_shots():
    assert plain_conv4.accuracies(page(60), 2, 5)["taught_nearest_mean"] == pytest.approx(0.76)


def test_it_reads_all_tables_of_a_seed():
    assert plain_conv4.accuracies(page(60), 1, 5) == pytest.approx(
        {f"{name}_nearest_mean": 0.71 + k / 100 for k, name in enumerate(ROWS)} | {"by_mixup": 0.55}
    )


def test_its_rows_are_means_over_seeds_and_differences_paired_by_seed():
    half = 100 * over_seeds([0.60, 0.61, 0.64])[1]
    rows = {f"{name}_nearest_mean": "alone_nearest_mean" for name in ROWS}
    lines = plain_conv4.over_all_seeds(page(60), rows, "alone").splitlines()
    cells = [cell.strip() for cell in lines[5].split("|")][1:-1]
    here = f"{60 + 5 / 3 + 3:.2f} ± {half:.2f}"
    more = f"{70 + 5 / 3 + 3:.2f} ± {half:.2f}"
    assert cells == ["taught_tuned", here, "+3.00 ± 0.00", more, "+3.00 ± 0.00"]


def test_two_seeds_are_shown_one_by_one_and_a_row_minus_itself_is_no_difference():
    table = plain_conv4.over_all_seeds(page(60), {"by_mixup": "by_mixup"}, "itself", (0, 1))
    (line,) = [line for line in table.splitlines() if line.startswith("| by_mixup")]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        *("by_mixup", "59.00, 59.00", "-", "55.00, 55.00", "-")
    ]
    assert "by seeds 0, 1," in table
