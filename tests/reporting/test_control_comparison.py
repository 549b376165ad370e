import math

import numpy as np
import pytest
from scipy.stats import t as student

from lightning_metakd.reporting.control_comparison import controls_of
from lightning_metakd.reporting.report import tables
from lightning_metakd.reporting.result_rows import read_results, rows_of
from tests.left_results import cell, leave_seeds


def control_cell(text, control, column):
    return cell(text, control, column, key="control")


@pytest.fixture
def runs(tmp_path):
    """A baseline, a gate with three seeds, and a control that is worse."""
    leave_seeds(tmp_path, (0.25, 0.25, 0.25), "plain")
    leave_seeds(tmp_path, (0.5, 0.53125, 0.515625), "gate", strategy="gate")
    leave_seeds(tmp_path, (0.375, 0.375, 0.375), "gate", strategy="gate", control="shuffled")
    return tmp_path


def test_a_control_is_of_the_same_experiment_or_named_and_tested_in_the_same_way(runs):
    leave_seeds(runs, (0.4,), "rival")
    leave_seeds(runs, (0.4,), "rival", learner="Ridge")
    leave_seeds(runs, (0.4,), "rival", control="frozen")
    leave_seeds(runs, (0.4,), "gate", strategy="gate", control="frozen", eval_seed=8)
    leave_seeds(runs, (0.4,), "gate", strategy="gate", control="uniform", teacher_at_test=True)
    leave_seeds(runs, (0.4,), "other", strategy="gate", control="frozen")
    rows = rows_of(read_results(runs))
    by_name = {row.name: row for row in rows}
    actual = controls_of(by_name["gate"], rows, ["rival"])
    assert list(actual) == ["shuffled", "rival"]
    assert (actual["rival"].control, actual["rival"].learner) == (None, "MAML")
    for name in ("plain", "rival", "gate, control shuffled"):
        assert name == "rival" or controls_of(by_name[name], rows, ["rival"]) == {}
    assert list(controls_of(by_name["gate"], rows, [])) == ["shuffled"]


def test_a_control_stands_beside_the_row_of_its_own_settings(tmp_path):
    for lr, mean in ((0.1, 0.5), (0.2, 0.75)):
        settings = {
            "train.model.optimisation.lr": lr,
            "train.model.strategy_training.control": "none",
        }
        leave_seeds(tmp_path, (mean,), "gate", strategy="gate", settings=settings)
        settings |= {
            "train.model.strategy_training.control": "final_constant",
            "train.model.initialisation.strategy_file.origin": "01",
        }
        control = {"control": "final_constant", "strategy": "gate"}
        leave_seeds(tmp_path, (mean - 0.25,), "gate", settings=settings, **control)
    alone = settings | {"train.model.optimisation.lr": 0.3}
    leave_seeds(tmp_path, (0.125,), "gate", settings=alone, **control)
    rows = rows_of(read_results(tmp_path))
    for row in rows:
        if row.control is None:
            (actual,) = controls_of(row, rows, []).values()
            assert row.values_of("accuracy")[0] - actual.values_of("accuracy")[0] == 0.25
    table = tables(read_results(tmp_path))
    assert control_cell(table, "final_constant", "difference") == "+25.00 ± 0.00"
    # one that belongs to no row is not lost
    assert cell(table, "gate, control final_constant, lr 0.3", "accuracy") == "12.50 ± 1.00"


def test_a_control_has_its_accuracy_the_difference_over_seeds_and_their_number(runs):
    table = tables(read_results(runs))
    differences = np.array((0.125, 0.15625, 0.140625))
    half_width = student.ppf(0.975, 2) * differences.std(ddof=1) / math.sqrt(3)
    expected = f"{100 * differences.mean():+.2f} ± {100 * half_width:.2f}"
    assert control_cell(table, "shuffled", "difference") == expected
    assert control_cell(table, "shuffled", "accuracy") == "37.50 ± 0.00"
    assert control_cell(table, "shuffled", "seeds") == "3"


def test_a_row_stands_beside_itself(runs):
    table = tables(read_results(runs))
    spread = student.ppf(0.975, 2) * np.std((0.5, 0.53125, 0.515625), ddof=1)
    expected = f"0 ± {100 * math.sqrt(2 / 3) * spread:.2f}"
    assert control_cell(table, "itself, other seeds (A/A)", "difference") == expected
    assert "- gate (MAML): two of its seeds differ by 2.08 points on average." in table


def test_identical_trainings_differ_from_themselves_by_nothing(tmp_path):
    leave_seeds(tmp_path, (0.61, 0.61, 0.61), "gate", strategy="gate")
    leave_seeds(tmp_path, (0.61, 0.61, 0.61), "gate", strategy="gate", control="frozen")
    table = tables(read_results(tmp_path))
    assert control_cell(table, "itself, other seeds (A/A)", "difference") == "0 ± 0.00"
    assert control_cell(table, "frozen", "difference") == "+0.00 ± 0.00"
    assert "differ by 0.00 points" in table


def test_a_gain_is_one_that_no_control_shows(runs):
    table = tables(read_results(runs), "plain")
    assert "; a gain over plain that none of its controls shows." in table


def test_a_gain_that_a_control_shows_too_is_marked(runs):
    leave_seeds(runs, (0.5, 0.53, 0.52), "gate", strategy="gate", control="frozen")
    leave_seeds(runs, (0.53, 0.5, 0.52), "rival")
    table = tables(read_results(runs), "plain", ["rival"])
    assert "; more than plain, but its controls show it too (frozen, rival)." in table
    assert "a gain over" not in table


def test_a_row_whose_interval_holds_0_is_no_gain(runs):
    leave_seeds(runs, (0.25, 0.25, 0.9), "plain")
    table = tables(read_results(runs), "plain")
    assert "; no gain over plain is shown." in table


@pytest.mark.parametrize("short", ["plain", "gate", "shuffled"])
def test_nothing_is_called_a_gain_with_fewer_than_three_seeds(short, tmp_path):
    many, few = (0.5, 0.5, 0.5), (0.5, 0.5)
    for name, change in {
        "plain": {"experiment": "plain"},
        "gate": {"experiment": "gate", "strategy": "gate"},
        "shuffled": {"experiment": "gate", "strategy": "gate", "control": "shuffled"},
    }.items():
        means = [m + 0.25 * (name == "gate") for m in (few if name == short else many)]
        leave_seeds(tmp_path, means, **change)
    table = tables(read_results(tmp_path), "plain")
    assert "a gain over" not in table
    assert "a claim needs 3 training seeds in common (with " in table
    assert ("plain 2" in table) == (short in ("plain", "gate"))
    assert ("shuffled 2" in table) == (short in ("shuffled", "gate"))


def test_one_seed_has_no_a_a_row_and_intervals_over_episodes(tmp_path):
    leave_seeds(tmp_path, (0.5,), "gate", strategy="gate", ci95=0.02)
    leave_seeds(tmp_path, (0.25,), "gate", strategy="gate", control="frozen")
    table = tables(read_results(tmp_path))
    assert control_cell(table, "frozen", "difference") == "+25.00 ± 0.00"
    assert "itself" not in table
    assert "one seed, so that there is no A/A row; a claim needs 3 training seeds" in table


def test_seeds_without_a_partner_are_said(runs):
    leave_seeds(runs, (0.5,), "gate", seeds=(7,), strategy="gate")
    table = tables(read_results(runs))
    assert control_cell(table, "shuffled", "seeds") == "3"
    assert "- gate minus gate, control shuffled leaves out seed 7 of gate: no partner" in table


def test_controls_without_a_row_to_control_are_said(tmp_path):
    leave_seeds(tmp_path, (0.5, 0.5), "plain")
    table = tables(read_results(tmp_path), controls=["plain"])
    assert "No row says that it learned a strategy, which plain would control." in table


def test_controls_are_over_seeds_where_rows_are_by_seed(runs):
    table = tables(read_results(runs), "plain", by_seed=True)
    assert cell(table, "gate, seed 1", "minus plain") == "+28.12 ± 0.00"
    assert control_cell(table, "shuffled", "seeds") == "3"
    assert "a gain over plain that none of its controls shows." in table
