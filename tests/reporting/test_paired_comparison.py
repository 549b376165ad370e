import math

import numpy as np
import pytest

from lightning_metakd.reporting.paired_comparison import comparable, difference, gain_over
from lightning_metakd.reporting.report import tables
from lightning_metakd.reporting.result_rows import read_results, rows_of
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.storage.answer_table import COLUMNS, write_answers
from tests.left_results import answer_table, cell, leave, leave_seeds


def paired(folder):
    return {row.name: row for row in rows_of(read_results(folder))}


@pytest.mark.parametrize("key", ["source", "split", "n_way", "k_shot", "n_query", "eval_seed"])
@pytest.mark.parametrize("value", ["other", None])
def test_results_over_other_episodes_are_not_compared(key, value, tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd", **{key: value})
    leave(tmp_path / "same" / "0", experiment="same")
    rows = paired(tmp_path)
    assert not comparable(rows["kd"], rows["maml"])
    assert gain_over(rows["kd"], [rows["maml"]]) is None
    assert gain_over(rows["same"], [rows["maml"]]).mean == 0


def test_episodes_that_are_gone_or_overwritten_are_not_compared(tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd")
    leave(tmp_path / "kd" / "0", (0.9, 0.9, 0.9), experiment="later")
    leave(tmp_path / "gone" / "0", experiment="gone")
    (tmp_path / "gone" / "0" / "episodes.test.csv").unlink()
    leave(tmp_path / "fewer" / "0", (0.5, 0.25), experiment="fewer")
    table = tables(read_results(tmp_path), "maml")
    for name in ("kd", "gone", "fewer"):
        assert cell(table, name, "minus maml") == "-"
        assert f"{name} minus maml: no two trainings share their seed and their episodes." in table
    assert cell(table, "later", "minus maml").startswith("+40.00")


def test_a_single_pair_is_compared_over_episodes(tmp_path):
    leave(tmp_path / "maml" / "0", (0.0, 0.0, 0.0), train_seed=0)
    leave(tmp_path / "maml" / "1", (0.25, 0.25, 0.5), train_seed=1)
    leave(tmp_path / "kd" / "0", (1.0, 1.0, 1.0), experiment="kd", train_seed=1)
    rows = paired(tmp_path)
    gap = difference(rows["kd"], rows["maml"])
    assert gap.mean == pytest.approx(2 / 3)
    assert gap.half_width == pytest.approx(1.96 * (0.25 / math.sqrt(3)) / math.sqrt(3))
    assert gap.pairs == 1
    assert gap.left_out == (
        "kd minus maml leaves out seed 0 of maml: no partner on the same episodes."
    )


def test_single_trainings_are_a_pair_whatever_their_seeds(tmp_path):
    leave(tmp_path / "maml" / "0", (0.25, 0.25, 0.25), train_seed=3)
    leave(tmp_path / "kd" / "0", (1.0, 1.0, 1.0), experiment="kd", train_seed=None)
    rows = paired(tmp_path)
    assert difference(rows["kd"], rows["maml"]) == (0.75, 0.0, 1, "")


def test_several_seeds_are_paired_by_seed_and_not_by_their_order(tmp_path):
    leave_seeds(tmp_path, (0.25, 0.5, 0.75), "maml", seeds=(4, 5, 6))
    leave_seeds(tmp_path, (0.9375, 0.375, 0.6875, 0.25), "kd", seeds=(6, 4, 5, 9))
    rows = paired(tmp_path)
    gap = difference(rows["kd"], rows["maml"])
    assert gap[:2] == over_seeds([0.125, 0.1875, 0.1875])
    assert gap.pairs == 3
    assert "leaves out seed 9 of kd: no partner" in gap.left_out
    assert gap.is_positive
    assert not difference(rows["maml"], rows["kd"]).is_positive


def test_a_seed_on_other_episodes_has_no_partner(tmp_path):
    leave_seeds(tmp_path, (0.25, 0.5, 0.75), "maml")
    leave_seeds(tmp_path, (0.5, 0.5), "kd")
    leave(tmp_path / "kd_2" / "0", (0.5, 0.5, 0.5), [7, 8, 9], experiment="kd", train_seed=2)
    rows = paired(tmp_path)
    gap = difference(rows["kd"], rows["maml"])
    assert gap.pairs == 2
    assert "seed 2 of kd and seed 2 of maml" in gap.left_out


def test_the_baseline_that_adapts_in_the_same_way_is_preferred(tmp_path):
    leave_seeds(tmp_path, (0.25,), "maml", learner="ProtoNet")
    leave_seeds(tmp_path, (0.5,), "maml", learner="Ridge")
    leave_seeds(tmp_path, (0.75,), "kd", learner="Ridge")
    rows = rows_of(read_results(tmp_path))
    kd = next(row for row in rows if row.experiment == "kd")
    baselines = [row for row in rows if row.experiment == "maml"]
    assert gain_over(kd, baselines).mean == 0.25
    assert gain_over(kd, baselines[::-1]).mean == 0.25
    assert gain_over(baselines[0], baselines) is None


def test_a_baseline_of_several_settings_has_to_be_named_whole(tmp_path):
    leave_seeds(tmp_path, (0.75, 0.75), "kd", settings={"train.lr": 0.5})
    for lr, mean in ((0.1, 0.25), (0.2, 0.5)):
        leave_seeds(tmp_path, (mean, mean), "plain", settings={"train.lr": lr})
    results = read_results(tmp_path)
    with pytest.raises(ValueError, match=r"rows of other settings; name one of them: .*lr 0\.1"):
        tables(results, "plain")
    table = tables(results, "plain, lr 0.1")
    assert cell(table, "kd", "minus plain, lr 0.1") == "+50.00 ± 0.00"
    assert cell(table, "plain, lr 0.2", "minus plain, lr 0.1") == "+25.00 ± 0.00"
    assert cell(table, "plain, lr 0.1", "minus plain, lr 0.1") == "-"


ONE_TASK = dict.fromkeys(("episodes", "n_way", "k_shot", "n_query", "eval_seed"))
"""A result without episodes."""


def leave_rows(folder, right, rows=range(6), **changes):
    """A test of a single task: which of its rows were answered rightly."""
    accuracy = sum(right) / len(right)
    leave(folder, experiment=folder.parent.name, **{**ONE_TASK, "accuracy": accuracy, **changes})
    label = np.zeros(len(right), dtype=np.int32)
    columns = {"row": np.array(rows), "label": label, "predicted": 1 - np.array(right, np.int32)}
    columns |= {name: label for name in COLUMNS if name not in columns}
    write_answers(
        folder / "answers.test.npz", answer_table()._replace(columns=columns, coefficients={})
    )


def test_tests_of_one_task_are_compared_row_by_row(tmp_path):
    leave_rows(tmp_path / "alone" / "0", [1, 0, 0, 0, 1, 1])
    leave_rows(tmp_path / "taught" / "0", [1, 1, 1, 0, 0, 1])
    rows = paired(tmp_path)
    gap = gain_over(rows["taught"], [rows["alone"]])
    gaps = [0, 1, 1, 0, -1, 0]
    assert gap.mean == pytest.approx(1 / 6)
    assert gap.half_width == pytest.approx(1.96 * np.std(gaps, ddof=1) / math.sqrt(6))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": range(1, 7)},  # other rows
        {"accuracy": 0.9},  # a later test has overwritten them
        {"source": "other"},
    ],
)
def test_tests_of_other_rows_are_not_compared(changes, tmp_path):
    leave_rows(tmp_path / "alone" / "0", [1, 0, 0, 0, 1, 1])
    leave_rows(tmp_path / "taught" / "0", [1, 1, 1, 0, 0, 1], **changes)
    leave(tmp_path / "episodes" / "0", experiment="episodes")
    rows = paired(tmp_path)
    for other in (rows["alone"], rows["episodes"]):
        gap = gain_over(rows["taught"], [other])
        assert gap is None or math.isnan(gap.mean)


def test_rows_whose_file_is_damaged_are_named_and_not_compared(tmp_path):
    for name in ("alone", "taught"):
        leave_rows(tmp_path / name / "0", [1, 0, 0, 0, 1, 1])
    (tmp_path / "taught" / "0" / "answers.test.npz").write_bytes(b"no archive")
    rows = paired(tmp_path)
    with pytest.warns(UserWarning, match="answers.test.npz .*; it is not compared"):
        assert math.isnan(gain_over(rows["taught"], [rows["alone"]]).mean)
