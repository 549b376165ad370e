"""Which settings a training and a test are told apart by."""

import copy

import pytest
import torch

from lightning_metakd.settings.run_settings import (
    digest,
    evaluation_settings,
    flat_settings,
    names_file,
    origin,
    result_settings,
    resumed_from,
    trained_with,
    trainer_settings,
    training_settings,
)
from tests.commands import STUDENT
from tests.tiny import trainer

RUN = {
    "model": "MetaKD",
    "model.student": "Conv4",
    "model.student.width": 64,
    "model.learner.inner_lr": 0.1,
    "model.loss": "Hinton",
    "model.optimisation.lr": 0.001,
    "model.execution.tasks_at_once": 4,
    "data.k_shot": 5,
    "data.meta_batch_size": 4,
    "data.seed": 3,
    "data.split_seed": 4,
    "data.source.root": "/somewhere",
    "data.source.content": "0123",
    "data.num_workers": 2,
    "trainer.max_steps": 100,
    "trainer.accelerator": "gpu",
    "seed_everything": 3,
    "runs": "runs",
}


def test_a_configuration_becomes_dotted_names_without_its_class_paths():
    flat = flat_settings(STUDENT)
    assert flat["model"] == "MetaKD"
    assert flat["model.student"] == "Conv4"
    assert flat["model.student.width"] == 4
    assert flat["model.loss.match.temperature"] == "Learned"
    assert flat["model.teachers.0"] == "Teacher"
    assert flat["model.teachers.0.cache"] is True
    assert flat["trainer.max_epochs"] == 2
    assert not [name for name in flat if "class_path" in name or "init_args" in name]


@pytest.mark.parametrize(
    ("config", "flat"),
    [
        ({"a": {"b": None, "c": [1, 5]}, "d": []}, {"a.c": [1, 5]}),
        ({"a": [{"class_path": "x.Y"}, {"b": 1}]}, {"a.0": "x.Y", "a.1.b": 1}),
        ({"class_path": "lightning_metakd.models.conv4.Conv4"}, {"": "Conv4"}),
        ({"a": {"class_path": "N", "dict_kwargs": {"n": 1}}}, {"a": "N", "a.n": 1}),
    ],
)
def test_null_is_no_setting_and_lists_are_numbered_where_they_are_nests(config, flat):
    assert flat_settings(config) == flat


def test_seeds_places_and_ways_of_running_train_nothing():
    others = {
        *("model.execution.tasks_at_once", "data.seed", "data.source.root", "data.num_workers"),
        *("trainer.accelerator", "seed_everything", "runs"),
    }
    assert training_settings(RUN) == {n: v for n, v in RUN.items() if n not in others}


@pytest.mark.parametrize("teacher_at_test", [False, True])
def test_what_trains_alone_tests_nothing_and_a_loss_does_where_teachers_help(teacher_at_test):
    tested = evaluation_settings(RUN | {"model.teacher_at_test": teacher_at_test})
    assert ("model.loss" in tested) == teacher_at_test
    assert not {"model.optimisation.lr", "data.meta_batch_size", "trainer.max_steps"} & set(tested)
    assert {"model.learner.inner_lr", "data.k_shot", "data.source.content"} <= set(tested)


def test_a_part_of_a_test_is_another_test_and_the_same_training():
    part = RUN | {"trainer.limit_test_batches": 3}
    assert evaluation_settings(part)["trainer.limit_test_batches"] == 3
    assert training_settings(part) == training_settings(RUN)


def test_a_digest_is_of_the_settings_and_not_of_their_order():
    assert digest(RUN) == digest(dict(reversed(RUN.items())))
    assert len({digest(RUN), digest(RUN | {"data.k_shot": 1}), digest({})}) == 3


def test_a_result_knows_what_trained_and_what_tested():
    names = set(result_settings({"model.optimisation.lr": 0.1}, RUN))
    assert "train.model.optimisation.lr" in names
    assert "test.data.k_shot" in names


def test_the_trainer_says_how_long_and_on_how_many():
    actual = trainer_settings(trainer(max_steps=7, max_time="00:00:01:00", limit_train_batches=2))
    assert actual["trainer.max_steps"] == 7
    assert actual["trainer.max_time"] == 60
    assert actual["trainer.limit_train_batches"] == 2
    assert actual["trainer.world_size"] == 1


# --- the training behind a file ----------------------------------------------------------------


def left(path, settings=None, complete=True, is_best=False, **more):
    """A checkpoint as a run leaves it."""
    states = {"Results": {"complete": complete}, "Checkpoints": {"is_best": is_best}}
    options = {"state_dict": {"w": torch.ones(1)}, "global_step": 5, "callbacks": states, **more}
    torch.save(options if settings is None else options | {"settings": settings}, path)
    return path


def test_a_file_counts_by_the_training_that_wrote_it_whatever_its_seed(tmp_path):
    one, same = left(tmp_path / "a.ckpt", RUN), left(tmp_path / "b.ckpt", RUN | {"data.seed": 9})
    other = left(tmp_path / "c.ckpt", RUN | {"model.optimisation.lr": 0.1})
    assert origin(one) == origin(same) != origin(other)


def test_weights_from_elsewhere_count_by_what_they_are(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "b.pt")
    (tmp_path / "c.txt").write_text("no weights")
    (tmp_path / "d.safetensors").write_text("none here")
    names = ("a.pt", "b.pt", "c.txt", "d.safetensors")
    assert len({origin(tmp_path / name) for name in names}) == 4
    assert names_file("model.initialisation.checkpoint", str(tmp_path / "a.pt"))
    assert not names_file("data.source.path", str(tmp_path / "a.pt"))
    assert not names_file("model.initialisation.checkpoint", str(tmp_path / "no.pt"))


def test_a_training_that_is_not_complete_knows_its_steps_and_the_best_state_is_another(tmp_path):
    kinds = [
        {},
        {"complete": False},
        {"complete": False, "global_step": 6},
        {"is_best": True},
    ]
    paths = [left(tmp_path / f"{i}.ckpt", RUN, **kind) for i, kind in enumerate(kinds)]
    assert len({origin(path) for path in paths}) == 4
    best = {"complete": False, "is_best": True, "global_step": 3}
    assert origin(left(tmp_path / "4.ckpt", RUN, **best)) == origin(paths[3])
    bare = torch.load(paths[0]) | {"callbacks": {}}
    assert trained_with(bare, paths[0])["steps"] == 5


def test_a_file_is_a_setting_by_its_training_and_not_by_its_path():
    settings = RUN | {
        "model.initialisation.checkpoint": "here.ckpt",
        "model.initialisation.checkpoint.origin": "0123",
    }
    assert training_settings(settings).keys() - RUN.keys() == {
        "model.initialisation.checkpoint.origin"
    }


def test_a_run_that_goes_on_stays_the_same_training_only_with_the_same_settings():
    assert resumed_from(RUN, RUN | {"data.num_workers": 0, "runs": "elsewhere"}) == RUN
    began = RUN | {"trainer.max_steps": 50}
    longer = resumed_from(RUN, began)
    assert training_settings(longer)["resumed"] == digest(training_settings(began))
    again = resumed_from(copy.deepcopy(RUN), longer)
    assert digest(training_settings(again)) == digest(training_settings(longer))


def test_a_run_that_goes_on_needs_no_files_of_its_beginning():
    began = RUN | {
        "model.initialisation.checkpoint": "gone.ckpt",
        "model.initialisation.checkpoint.origin": "0123",
    }
    now = RUN | {"model.initialisation.checkpoint": "gone.ckpt"}
    assert training_settings(resumed_from(now, began)) == training_settings(began)


def test_the_best_state_of_a_training_is_told_by_the_validations_that_chose_it(tmp_path):
    path = tmp_path / "best.ckpt"

    def by(limit, **more):
        settings = RUN | {"trainer.limit_val_batches": limit, "trainer.val_check_interval": 1.0}
        return trained_with(torch.load(left(path, settings, **more)), path)

    assert by(2, is_best=True) != by(3, is_best=True)
    assert by(2, is_best=True)["trainer.limit_val_batches"] == 2
    assert by(2) == by(3)  # the last state does not depend on them
    assert "trainer.limit_val_batches" in trainer_settings(trainer(limit_val_batches=2))
