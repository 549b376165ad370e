import numpy as np
import pytest

from lightning_metakd.reporting.flat_tables import (
    class_rows,
    flat_tables,
    hardest_rows,
    pareto_rows,
)
from lightning_metakd.reporting.result_rows import read_results, rows_of
from lightning_metakd.storage.answer_table import hardest_episodes
from tests.left_results import PIXEL, answer_table, leave, leave_answers


def columns(**changes):
    table = answer_table()
    return table._replace(columns={**table.columns, **changes})


def test_classes_stand_with_what_they_are_taken_for_the_hardest_first():
    # ant is answered as bee in three of six rows, bee as ant in two
    predicted = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1])
    first, second = class_rows(columns(predicted=predicted))
    assert first == {
        "class": "ant",
        "rows": 6,
        "student accuracy (%)": 50.0,
        "teacher accuracy (%)": 100.0,
        "most often taken for": "bee",
        "in (%)": 50.0,
    }
    assert (second["class"], second["student accuracy (%)"]) == ("bee", pytest.approx(200 / 3))


def test_a_class_that_is_always_right_is_taken_for_none_and_an_absent_teacher_has_no_column():
    right = answer_table().columns["label"]
    none = np.full(12, -1)
    row, _ = class_rows(columns(predicted=right, teacher_predicted=none))
    assert (row["most often taken for"], row["in (%)"]) == (None, 0.0)
    assert "teacher accuracy (%)" not in row


def test_the_hardest_episodes_come_first_with_their_wrong_answers():
    predicted = answer_table().columns["predicted"].copy()
    predicted[4:8] = [1, 0, 1, 0]  # all of episode 1 is wrong
    table = columns(predicted=predicted)
    places = hardest_episodes(table.columns)
    assert [*places] == [1, 0, 2]
    assert places[0].tolist() == [2, 3, 0, 1]
    rows = hardest_rows(table)
    assert [row["episode"] for row in rows[:6]] == [1] * 6
    assert [row["role"] for row in rows[:6]] == ["support"] * 2 + ["query"] * 4
    support, query = rows[0], rows[2]
    assert support["picture"] == PIXEL
    assert (support["class"], support["student"]) == ("ant", None)
    assert query["student accuracy (%)"] == 0.0
    assert (query["class"], query["student"], query["teacher"]) == ("ant", "bee", "ant")
    text = next(row for row in rows if row["row"] == 3)
    assert (text["picture"], text["text"]) == (None, "a <b> sentence")
    assert len({tuple(row) for row in rows}) == 1  # a table has the same columns everywhere


def test_of_many_episodes_five_are_shown():
    n = 40
    episode = np.repeat(np.arange(n // 2), 2)
    right = (episode % 4 > 0).astype(int)
    values = {"episode": episode, "label": np.ones(n, int), "predicted": right}
    assert [*hardest_episodes(values)] == [0, 4, 8, 12, 16]
    assert hardest_episodes(values | {"episode": np.full(n, -1)}) == {}


def test_the_best_for_a_cost_is_marked_for_each_cost(tmp_path):
    leave(tmp_path / "small", (0.5, 0.5), experiment="small", student_params=1e4, latency_ms=2.0)
    leave(tmp_path / "large", (0.75, 0.75), experiment="large", student_params=1e5, latency_ms=1.0)
    leave(tmp_path / "poor", (0.25, 0.25), experiment="poor", student_params=2e4, latency_ms=3.0)
    rows = pareto_rows(rows_of(read_results(tmp_path)))
    assert [row["name"] for row in rows] == ["large", "small", "poor"]
    best = {row["name"]: row["Pareto: parameters"] for row in rows}
    assert best == {"large": True, "small": True, "poor": False}
    assert [row["Pareto: latency (ms)"] for row in rows] == [True, False, False]
    assert rows[0]["accuracy (%)"] == 75.0
    assert rows[0]["MACs"] == 28_500_000


def test_a_teacher_stands_beside_its_student(tmp_path):
    teacher = {"teacher_accuracy": 0.9, "teacher_params": 1e6, "teacher_macs": 5e7}
    leave(tmp_path / "it", experiment="it", **teacher)
    first, second = pareto_rows(rows_of(read_results(tmp_path)))
    assert (first["name"], first["learner"]) == ("teacher of it", "teacher")
    assert (first["MACs"], first["Pareto: MACs"]) == (5e7, True)
    assert first["latency (ms)"] is None
    assert second["name"] == "it"


def test_the_tables_of_a_test_compare_it_with_other_runs_of_the_same_task(tmp_path):
    leave_answers(tmp_path / "it" / "0", experiment="it")
    leave(tmp_path / "other" / "0", experiment="other")
    leave(tmp_path / "elsewhere" / "0", experiment="elsewhere", k_shot=5)
    tables = flat_tables(read_results(tmp_path / "it" / "0"), tmp_path)
    assert [*tables] == ["classes", "hardest_episodes", "pareto"]
    assert {row["name"] for row in tables["pareto"]} == {"it", "other"}
    assert [row["class"] for row in tables["classes"]] == ["ant", "bee"]


def test_domains_have_tables_of_their_own(tmp_path):
    for domain in ("photographs", "letters"):
        leave(tmp_path / "it" / "0", experiment="it", domain=domain)
    tables = flat_tables(read_results(tmp_path / "it" / "0"), tmp_path)
    assert [*tables] == ["pareto.photographs", "pareto.letters"]


def test_a_test_without_answers_has_no_tables_of_them(tmp_path):
    leave(tmp_path / "it" / "0", experiment="it")
    assert [*flat_tables(read_results(tmp_path), tmp_path)] == ["pareto"]
