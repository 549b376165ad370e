"""What is counted when a file is compared with the student."""

import numpy as np
import pytest

from lightning_metakd.export.cases import Case
from lightning_metakd.export.export import check_parity
from lightning_metakd.export.parity import compare


def case(answer, y=(0, 1), support=True):
    rows = np.zeros((2, 1, 2, 2), np.uint8)
    x = rows if support else None
    return Case(x, np.arange(2), rows, None if y is None else np.array(y), np.array(answer, float))


RIGHT, WRONG = [[2.0, 0.0], [0.0, 2.0]], [[0.0, 2.0], [2.0, 0.0]]


def test_the_same_answers_have_no_difference():
    results = compare([case(RIGHT), case(WRONG)], {"onnx": lambda it: it.answer})
    assert results["onnx"]["largest_difference"] == 0
    assert results["onnx"]["agreement"] == 1
    assert results["onnx"]["accuracy"] == results["torch"]["accuracy"] == 0.5
    assert results["torch"]["ci95"] == pytest.approx(1.96 * np.std([1, 0], ddof=1) / 2**0.5)


def test_answers_of_another_kind_are_counted():
    results = compare([case(RIGHT)], {"onnx": lambda it: np.array(WRONG)})
    assert results["onnx"]["largest_difference"] == 2
    assert results["onnx"]["agreement"] == 0
    assert (results["onnx"]["accuracy"], results["torch"]["accuracy"]) == (0, 1)


def test_rows_of_a_single_task_have_the_interval_of_a_share():
    results = compare([case(RIGHT, support=False), case(WRONG, support=False)], {})
    assert results["torch"]["accuracy"] == 0.5
    assert results["torch"]["ci95"] == pytest.approx(1.96 * (0.25 / 4) ** 0.5)


def test_embeddings_are_compared_and_not_judged():
    results = compare([case(RIGHT, y=None)], {"onnx": lambda it: it.answer + 0.5})
    assert results["onnx"]["largest_difference"] == 0.5
    assert "accuracy" not in results["onnx"]


def test_a_file_that_does_something_else_is_refused(tmp_path):
    near = {
        "torch": {"accuracy": 0.7},
        "onnx": {"accuracy": 0.7009},
        "onnx-int8": {"accuracy": 0.692},
    }
    check_parity(near, tmp_path)
    with pytest.raises(ValueError, match=r"format=onnx: the file has an accuracy of 70.20 %"):
        check_parity(near | {"onnx": {"accuracy": 0.702}}, tmp_path)
    with pytest.raises(ValueError, match="format=onnx-int8"):
        check_parity(near | {"onnx-int8": {"accuracy": 0.68}}, tmp_path)
