import os

from lightning_metakd.reporting.training_logs import trainings
from tests.left_results import leave, leave_training


def test_seeds_are_one_training_and_their_mean_is_taken(tmp_path):
    for seed, values in enumerate(([0.25, 0.5, 0.75], [0.75, 0.5, 0.25])):
        leave_training(tmp_path / "fit" / f"seed{seed}" / "kd" / "0", val__student_accuracy=values)
    leave_training(tmp_path / "alone" / "0", train__outer_loss=[2, 1], cost__params=[5, 5])
    (tmp_path / "alone" / "latest").symlink_to("0")
    group = {training.name: training for training in trainings(tmp_path)}
    assert group.keys() == {"kd", "alone"}
    assert group["kd"].columns == {"val/student_accuracy": {0: 0.5, 1: 0.5, 2: 0.5}}
    assert group["kd"].seeds == 2
    assert group["alone"].columns == {"train/outer_loss": {0: 2.0, 1: 1.0}}


def test_what_is_no_number_is_left_out(tmp_path):
    leave_training(tmp_path / "kd" / "0", train__outer_loss=[2, "nan", "", "inf", 1])
    (training,) = trainings(tmp_path)
    assert training.columns["train/outer_loss"] == {0: 2.0, 4: 1.0}


def test_tests_leave_no_curves(tmp_path):
    leave_training(tmp_path / "kd" / "0", train__outer_loss=[2, 1])
    (tmp_path / "kd" / "0" / "config.fit.yaml").rename(tmp_path / "kd" / "0" / "config.test.yaml")
    assert trainings(tmp_path) == []


def test_the_training_of_a_checkpoint_that_was_tested_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "kd" / "0"
    leave_training(run, train__outer_loss=[2, 1])
    path = run / "checkpoints" / "final.ckpt"
    path.parent.mkdir()
    path.touch()
    test = tmp_path / "runs" / "kd.test" / "0"
    leave(test)
    name = "runs/kd/0/checkpoints/final.ckpt"
    for text in (f"ckpt_path: {name}\n", f"  initialisation:\n    checkpoint: {name}\n"):
        (test / "config.test.yaml").write_text(text)
        assert [t.name for t in trainings(test.parent, [test])] == ["kd"]
    assert trainings(test.parent) == []
    later = (test / "config.test.yaml").stat().st_mtime + 9
    os.utime(path, (later, later))  # it was trained anew since then
    assert trainings(test.parent, [test]) == []
