import pytest

from lightning_metakd.reporting.result_rows import latest, read_episodes, read_results, rows_of
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
    assert row.values_of("accuracy") == [0.25, 0.75, 0.5]
    assert [row.seeds for row in rows_of(results, by_seed=True)] == [[0], [1], [2]]


LR = "train.model.optimisation.lr"


def test_results_of_other_settings_are_rows_named_by_what_differs(tmp_path):
    for lr in (1e-3, 1e-4, 0.01):
        leave_seeds(tmp_path, (0.5, 0.25), "maml", settings={LR: lr, "train.model.norm": "batch"})
    rows = {row.name: row.seeds for row in rows_of(read_results(tmp_path))}
    assert rows == {"maml, lr 0.001": [0, 1], "maml, lr 0.0001": [0, 1], "maml, lr 0.01": [0, 1]}


def test_a_result_without_settings_is_no_seed_of_one_with(tmp_path):
    leave_seeds(tmp_path, (0.5,), "maml")
    leave_seeds(tmp_path, (0.5,), "maml", seeds=(1,), settings={LR: 0.1})
    leave_seeds(tmp_path, (0.5,), "maml", seeds=(1,), settings={LR: 0.2})
    names = {row.name for row in rows_of(read_results(tmp_path))}
    assert names == {"maml, settings unknown", "maml, lr 0.1", "maml, lr 0.2"}


def test_settings_that_differ_between_experiments_are_in_no_name(tmp_path):
    leave_seeds(tmp_path, (0.5,), "maml", settings={LR: 0.1})
    leave_seeds(tmp_path, (0.5,), "kd", settings={LR: 0.2})
    leave_seeds(tmp_path, (0.5,), "kd", settings={LR: 0.3}, k_shot=5)
    assert [row.name for row in rows_of(read_results(tmp_path))] == ["kd", "kd", "maml"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "is a list and no result"),
        (b"7", "is a int and no result"),
        (b"\x89PNG\x00\xff", "is no JSON"),
        (b"[" * 10**5, "is no JSON"),
        (b'{"accuracy": "high"}', "has accuracy='high', which is no int or float"),
        (b'{"accuracy": NaN}', "has accuracy=nan, which is no int or float"),
        (b'{"accuracy": true}', "has accuracy=True, which is no int or float"),
        (b'{"wall_s": "long"}', "has wall_s='long', which is no int or float"),
        (b'{"train_seed": "one"}', "has train_seed='one', which is no int"),
        (b'{"versions": "new"}', "has versions='new', which is no dict"),
        (b'{"git": 5}', "has git=5, which is no str"),
    ],
)
def test_a_line_that_is_no_result_is_named_and_left_out(line, message, tmp_path):
    leave(tmp_path / "maml" / "0")
    with (tmp_path / "maml" / "0" / "results.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.warns(UserWarning, match=rf"results\.jsonl:2 {message}.*; it is left out\.$"):
        assert len(read_results(tmp_path)) == 1


def test_damaged_episodes_are_named_and_not_compared(tmp_path):
    leave(tmp_path / "maml" / "0")
    (result,) = read_results(tmp_path)
    path = tmp_path / "maml" / "0" / "episodes.test.csv"
    for content in (b"\xff\xfe\x00", b"id,accuracy\n0,high\n", b"id\n0\n"):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=r"episodes\.test\.csv is damaged .* not compared"):
            assert read_episodes(result) is None


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
