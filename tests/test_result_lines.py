import pytest

from lightning_metakd.result_lines import latest, read_results, rows_of
from tests.left_results import leave, leave_seeds


def test_the_latest_test_of_an_experiment_counts(tmp_path):
    leave(tmp_path / "maml" / "9", (0.1, 0.1, 0.1))
    leave(tmp_path / "maml" / "10", (0.2, 0.2, 0.2))
    leave(tmp_path / "maml" / "10", (0.3, 0.3, 0.3))
    (tmp_path / "maml" / "latest").symlink_to("10", target_is_directory=True)
    results = read_results(tmp_path)
    assert len(results) == 3
    assert [round(r.row["accuracy"], 6) for r in latest(results)] == [0.3]


def test_a_damaged_line_is_left_out_with_a_warning(tmp_path):
    leave(tmp_path / "maml" / "0")
    with (tmp_path / "maml" / "0" / "results.jsonl").open("a") as file:
        file.write('{"experiment": "half')
    with pytest.warns(UserWarning, match=r"results\.jsonl:2 is no JSON .* it is left out"):
        assert len(read_results(tmp_path)) == 1


def test_results_that_differ_in_the_training_seed_alone_are_one_row(tmp_path):
    leave_seeds(tmp_path, (0.5, 0.25, 0.75), "maml", seeds=(2, 0, 1))
    results = read_results(tmp_path)
    (row,) = rows_of(results)
    assert row.seeds == [0, 1, 2]
    assert row.known("accuracy") == [0.25, 0.75, 0.5]
    assert [row.seeds for row in rows_of(results, by_seed=True)] == [[0], [1], [2]]


@pytest.mark.parametrize(
    "change",
    [
        *({"learner": "Ridge"}, {"control": "frozen"}, {"teacher_at_test": True}),
        *({"eval_seed": 8}, {"k_shot": 5}, {"loss": "Hinton"}, {"episodes": 2}),
    ],
)
def test_results_that_differ_in_anything_else_are_rows_of_their_own(change, tmp_path):
    leave_seeds(tmp_path / "a", (0.5, 0.5), "maml")
    leave_seeds(tmp_path / "b", (0.5,), "maml", seeds=(2,), **change)
    assert sorted(row.seeds for row in rows_of(read_results(tmp_path))) == [[0, 1], [2]]
