import warnings

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from lightning_metakd.reporting.answers import (
    Answered,
    answer_figures,
    answered,
    answers_of,
    by_class,
    calibration,
    calibration_error,
    confusion,
    title_of,
)
from lightning_metakd.reporting.result_rows import Result, Row, read_results, rows_of
from tests.left_results import answer_table, leave, leave_answers

Y = np.array([0, 0, 0, 1, 1, 3])
RESULT = Result({"experiment": "kd"}, None)
PREDICTED = np.array([0, 1, 0, 1, 3, 3])


def test_shares_of_classes_are_those_of_another_library():
    expected = 100 * confusion_matrix(Y, PREDICTED, labels=range(4), normalize="true")
    np.testing.assert_allclose(confusion(Y, PREDICTED, 4), expected)
    actual = by_class(PREDICTED == Y, Y, 4)
    recall = 100 * recall_score(Y, PREDICTED, labels=[0, 1, 3], average=None)
    np.testing.assert_allclose(actual[[0, 1, 3]], recall)
    assert np.isnan(actual[2])


def test_calibration_is_the_mean_of_each_bin():
    right, probability = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.55, 0.56, 0.95, 1.0])
    curve = calibration(right, probability)
    np.testing.assert_allclose(curve, [[0.555, 0.5, 2], [0.975, 1.0, 2]])
    assert calibration_error(curve) == pytest.approx((2 * 0.055 + 2 * 0.025) / 4)


def test_the_answers_of_a_result_are_found_beside_it(tmp_path):
    leave(tmp_path / "a" / "0", (0.9,))
    leave_answers(tmp_path / "b" / "0", experiment="kd")
    replies = answered(rows_of(read_results(tmp_path)))
    assert replies.row.experiment == "kd"
    assert title_of(replies) == "kd (MAML)"
    assert replies.has_teacher


def test_answers_that_a_later_test_has_overwritten_are_not_shown(tmp_path):
    leave_answers(tmp_path / "0")
    leave_answers(tmp_path / "0", experiment="later")
    first, _ = read_results(tmp_path)
    assert answers_of(first) is not None  # the same episodes: the same accuracies
    leave(tmp_path / "0", (0.75, 0.75, 0.75), experiment="last")
    assert answers_of(first) is None


def test_a_damaged_file_is_named_and_not_shown(tmp_path):
    leave_answers(tmp_path / "0")
    (tmp_path / "0" / "answers.test.npz").write_bytes(b"no archive")
    with pytest.warns(UserWarning, match=r"answers\.test\.npz is no table of answers .*not shown"):
        assert answered(rows_of(read_results(tmp_path))) is None


def test_figures_say_who_was_right_where_and_how_sure(tmp_path):
    leave_answers(tmp_path / "0")
    figures = answer_figures(answered(rows_of(read_results(tmp_path))))
    calibrated, classes, confused = figures
    assert [figure.title for figure in figures] == [
        *("Calibration", "Accuracy of each class", "Which class is taken for which")
    ]
    assert [trace["name"] for trace in classes.traces] == ["student", "teacher"]
    assert [trace["x"] for trace in classes.traces] == [[50.0, 50.0], [100.0, 100.0]]
    assert confused.traces[0]["z"] == [[50.0, 50.0], [50.0, 50.0]]
    assert "ant for bee (50.0 %)" in confused.caption
    assert [t["name"] for t in calibrated.traces] == ["as sure as right", "student", "teacher"]
    assert "teacher 25.0 points" in calibrated.caption


def test_of_many_classes_those_at_the_ends_are_shown():
    n = 100
    table = answer_table()
    columns = {name: np.resize(column, n) for name, column in table.columns.items()}
    columns |= {"label": np.arange(n), "predicted": np.arange(n) // 2}
    table = table._replace(columns=columns, classes=tuple(f"class {i}" for i in range(n)))
    with warnings.catch_warnings(action="error"):
        _, classes, confused = answer_figures(Answered(Row((RESULT,)), RESULT, table))
    assert len(classes.traces[0]["x"]) == 30
    assert "Shown are the 30 at the ends." in classes.caption
    assert len(confused.traces[0]["z"]) == 30
    assert "the 30 classes that are confused most, of 100" in confused.caption
