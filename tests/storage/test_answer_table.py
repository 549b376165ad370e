import re

import numpy as np
import pytest

from lightning_metakd.storage.answer_table import answers_file, read_answers, write_answers
from lightning_metakd.storage.atomic_files import DamagedFileError
from tests.left_results import answer_table


def test_a_table_comes_back_as_it_was(tmp_path):
    table = answer_table()
    write_answers(tmp_path / "answers.test.npz", table)
    other = read_answers(tmp_path / "answers.test.npz")
    for part in ("columns", "support", "coefficients"):
        columns, actual = getattr(table, part), getattr(other, part)
        assert columns.keys() == actual.keys()
        for name, column in columns.items():
            np.testing.assert_array_equal(column, actual[name])
    assert (table.classes, table.pictures, table.texts) == other[3:]
    assert [p.name for p in tmp_path.iterdir()] == ["answers.test.npz"]


def test_without_pictures_and_texts_there_are_none(tmp_path):
    table = answer_table()._replace(pictures={}, texts={}, coefficients={})
    write_answers(tmp_path / "it.npz", table)
    assert read_answers(tmp_path / "it.npz")[2:] == ({}, table.classes, {}, {})


def test_its_name_is_that_of_the_episodes():
    assert answers_file({"split": "test"}) == "answers.test.npz"
    assert answers_file({"split": "test", "domain": "birds"}) == "answers.test.birds.npz"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query.row": None}, "query.row"),
        ({"query.label": np.full(12, 9)}, "a class that has no name"),
        ({"query.predicted": np.full(12, -2)}, "a class that has no name"),
        ({"support.row": np.zeros(2, int)}, "columns of several lengths"),
        ({"coefficient.gate": np.zeros((12, 2))}, "columns of several lengths"),
        ({"classes": np.array([{}], dtype=object)}, "allow_pickle=False"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(changes, reason, tmp_path):
    path = tmp_path / "it.npz"
    write_answers(path, answer_table())
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: column for name, column in arrays.items() if column is not None})
    with pytest.raises(DamagedFileError, match=f"is no table of answers .*{re.escape(reason)}"):
        read_answers(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\5\6" + bytes(18)])
def test_a_file_that_is_none_is_refused(content, tmp_path):
    path = tmp_path / "it.npz"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="is no table of answers"):
        read_answers(path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "it.npz"
    write_answers(path, answer_table())
    with np.load(path) as file:
        arrays = {**file, "pictures": np.zeros(2**21, np.uint8)}
    np.savez_compressed(path, **arrays)
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "1")
    with pytest.raises(DamagedFileError, match="METAKD_READ_LIMIT_MIB"):
        read_answers(path)
