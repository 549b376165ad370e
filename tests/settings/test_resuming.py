from pathlib import Path

import pytest

from lightning_metakd.settings.resuming import check_resumable

EARLIER = {
    "experiment": "a",
    "seed_everything": 0,
    "model": "MetaKD",
    "model.student": "Conv4",
    "model.student.width": 64,
    "model.optimisation.lr": 0.1,
    "model.optimisation.optimiser": "adam",
    "model.strategy_training.lr": 0.01,
    "model.initialisation.checkpoint": "start.ckpt",
    "model.initialisation.checkpoint.origin": "1234",
    "model.teachers.0": "Teacher",
    "model.teachers.0.checkpoint": "teacher.ckpt",
    "model.teachers.0.checkpoint.origin": "abcd",
    "data.n_way": 5,
    "data.seed": 0,
    "data.source.root": "data",
    "data.num_workers": 0,
    "data.n_episodes": 600,
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": 1.0,
    "trainer.callbacks.0": "Checkpoints",
    "trainer.logger": True,
}


def refusal_of(change, earlier=EARLIER):
    now = {key: value for key, value in {**EARLIER, **change}.items() if value is not None}
    saved = {"settings": earlier, "optimizer_states": [{}], "lr_schedulers": []}
    return check_resumable(saved, Path("last.ckpt"), now)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"data.n_way": 4}, "data.n_way=4 was 5"),
        ({"data.seed": 1}, "data.seed=1 was 0"),
        ({"model.strategy_training.lr": 0.0}, "model.strategy_training.lr=0.0 was 0.01"),
        ({"model.optimisation.lr": 0.2}, "model.optimisation.lr=0.2 was 0.1"),
        ({"model.optimisation.optimiser": "sgd"}, "model.optimisation.optimiser=sgd was adam"),
        ({"trainer.limit_train_batches": 2}, "trainer.limit_train_batches=2 was 1.0"),
        (
            {"model.student": "MLP", "model.student.width": None},
            "model.student=MLP was Conv4; model.student.width=None was 64",
        ),
        (
            {"model.teachers.0.checkpoint": "b.ckpt", "model.teachers.0.checkpoint.origin": "ef"},
            "model.teachers.0.checkpoint=ef was abcd",
        ),
        ({f"data.x{n}": 1 for n in range(6)}, "data.x0=1 was None; data.x1=1 was None; data.x2=1"),
    ],
)
def test_what_makes_it_another_training_is_refused_by_name(change, line):
    with pytest.raises(ValueError, match=r" in last\.ckpt: it cannot go on with other") as refusal:
        refusal_of(change)
    assert str(refusal.value).startswith(line)
    assert ("and 2 more in last.ckpt" in str(refusal.value)) is (len(change) > 4)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, None),
        ({"experiment": "b", "seed_everything": 1}, None),
        (
            {
                "model.initialisation.checkpoint": "moved.ckpt",
                "model.initialisation.checkpoint.origin": None,
            },
            None,
        ),
        ({"model.teachers.0.checkpoint": "moved.ckpt"}, None),
        (
            {
                "model.teachers.0.checkpoint": "gone.ckpt",
                "model.teachers.0.checkpoint.origin": None,
            },
            None,
        ),
        ({"data.source.root": "/data"}, "data.source.root=/data (was data)"),
        ({"data.num_workers": 2, "data.n_episodes": 9}, "data.n_episodes=9 (was 600), data.num_w"),
        (
            {"trainer.max_epochs": 3, "trainer.devices": 2},
            "trainer.devices=2 (was None), trainer.max",
        ),
        (
            {"trainer.callbacks.0": "Timer", "trainer.callbacks.0.x": 1, "trainer.logger": False},
            "other trainer.callbacks, other trainer.logger",
        ),
    ],
)
def test_how_long_where_and_how_fast_may_change_and_that_is_said(change, line):
    result = refusal_of(change)
    assert result is line or result.startswith(line)


def test_a_training_that_no_configuration_described_is_not_compared():
    assert refusal_of({}, earlier={"trainer.max_epochs": 7}) is None


def test_weights_alone_are_no_training():
    with pytest.raises(ValueError, match=r"--model\.initialisation\.checkpoint=w\.ckpt"):
        check_resumable({"state_dict": {}}, Path("w.ckpt"), {})
