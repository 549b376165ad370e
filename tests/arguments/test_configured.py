"""A run from Python knows its settings as one of the command does."""

import copy
import enum
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_metakd.arguments.configured import Configured, as_config
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.settings.run_settings import (
    digest,
    flat_settings,
    training_settings,
    with_origins,
)
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from tests.commands import STUDENT, TEACHER, Net, written
from tests.recipes.runs import episodes, grouped, meta_kd
from tests.tiny import SmoothConv4, trainer

SHORT = (
    "--trainer.limit_train_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.limit_val_batches=0",
)


def network(dropout):
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(9, 9), nn.Linear(9, 5))


def run(
    student=None, learner=None, teachers=(), n_way=5, per_class=8, temperature=4.0, gate=0.5, **more
):
    """What trains in a run from Python."""
    loss = MatchGate(gate, Hinton(temperature)) if teachers else None
    model = MetaKD(
        student or Conv4(width=4), learner or ProtoNet(), loss, list(teachers), **grouped(more)
    )
    data = EpisodicData(Synthetic(per_class), n_way)
    return training_settings(flat_settings({"model": as_config(model), "data": as_config(data)}))


def teacher(**settings):
    return Teacher(Conv4(width=4), **settings)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (
            {"optimisation": Optimisation(lr=0.1)},
            {"optimisation": Optimisation(lr=0.2)},
            "model.optimisation.lr",
        ),
        ({"n_way": 5}, {"n_way": 3}, "data.n_way"),
        ({"per_class": 8}, {"per_class": 9}, "data.source.per_class"),
        (
            {"teachers": [teacher()], "temperature": 4.0},
            {"teachers": [teacher()], "temperature": 2.0},
            "model.loss.match.temperature",
        ),
        (
            {"teachers": [teacher()]},
            {"teachers": [teacher()], "gate": Learned(0.5)},
            "model.loss.gate",
        ),
        ({"student": Conv4(width=4)}, {"student": Conv4(width=8)}, "model.student.width"),
        (
            {"student": network(0.1), "learner": MAML(0.1)},
            {"student": network(0.2), "learner": MAML(0.1)},
            "model.student.modules",
        ),
        (
            {"student": Conv4(n_classes=5), "learner": MAML(inner_lr=0.1)},
            {"student": Conv4(n_classes=5), "learner": MAML(inner_lr=0.2)},
            "model.learner.inner_lr",
        ),
        (
            {"teachers": [teacher()], "share": [Share({"convs.0": "convs.0"})]},
            {"teachers": [teacher()], "share": [Share({"convs.0": "convs.0"}, how="freeze")]},
            "model.initialisation.share.0.how",
        ),
    ],
)
def test_runs_from_python_differ_where_anything_was_built_otherwise(one, other, name):
    settings = run(**one), run(**other)
    assert digest(settings[0]) == digest(run(**one))
    assert settings[0][name] != settings[1][name]


@pytest.mark.parametrize("config", [STUDENT, TEACHER], ids=["MetaKD", "SingleTask"])
def test_python_and_command_say_the_same_settings(config, metakd, tmp_path):
    config = copy.deepcopy(config)
    for settings in config["model"]["init_args"].get("teachers", ()):
        head = {"class_path": "PrototypeHead", "init_args": {"scale": 5.0}}
        settings["init_args"] = {**settings["init_args"], "head": head, "cache": False}
        del settings["init_args"]["checkpoint"]
    written(tmp_path, config=config)
    run = metakd("fit", "--config=config.yaml", *SHORT, "--data.seed=3")
    built = flat_settings({"model": as_config(run.model), "data": as_config(run.datamodule)})
    assert built["data.seed"] == 3
    of_both = ("model", "data")
    assert built == {
        k: v for k, v in run.model.record.configured.items() if k.partition(".")[0] in of_both
    }


def test_arguments_are_by_name_with_defaults_and_survive_copies():
    model = Conv4(8, pooling="average")
    arguments = model.constructor_arguments
    assert arguments["width"] == 8
    assert arguments["pooling"] == "average"
    assert arguments["n_classes"] == 0
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.constructor_arguments == arguments
    assert "constructor_arguments" not in model.state_dict()


def test_what_was_built_is_not_held_on_to():
    train = Teacher(Net())
    assert set(train.constructor_arguments["model"]) == {"class_path", "init_args"}


def test_a_wrong_argument_is_told_by_the_constructor():
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        Conv4(widht=3)


def test_tensors_are_said_by_a_hash_and_what_is_not_written_in_python_by_its_class():
    one, other = as_config(torch.ones(2, 3)), as_config(torch.ones(2, 3) + 1e-6)
    assert isinstance(one, str)
    assert one != other
    assert one == as_config(torch.ones(2, 3))
    assert as_config(torch.tensor(2.0, dtype=torch.bfloat16)) != one
    assert as_config(object()) == {"class_path": "builtins.object", "init_args": {}}


def test_objects_of_others_are_said_by_what_they_keep():
    class Own(Configured):
        def __init__(self, *parts, scale=1.0, **more):
            self.parts = parts

    assert as_config(torch.nn.Linear(2, 3))["init_args"]["in_features"] == 2
    assert as_config(torch.relu).endswith(".relu")
    config = as_config(Own(1, scale=2.0, depth=3))
    assert flat_settings(config["init_args"]) == {"parts": [1], "scale": 2.0, "more.depth": 3}


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def extra_repr(self):
        return repr(self.function)


@pytest.mark.parametrize(
    ("value", "config"),
    [
        (Path("some/file.ckpt"), "some/file.ckpt"),
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.int64(3), 3),
        (np.str_("blob"), "blob"),
        (np.bool_(True), "np.True_"),
        (True, True),
        ({"b", "a"}, ["a", "b"]),
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "device(type='cpu')"),
        (Kind.TWO, "<Kind.TWO: 2>"),
        (Act(lambda x: x), as_config(Act(lambda x: x))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_is_said_plainly_and_by_what_tells_it_from_others(value, config):
    text = as_config(value)
    assert (text, type(text)) == (config, type(config))
    json.dumps(text)


def test_a_file_is_known_by_who_wrote_it_whether_its_path_is_a_text_or_not(
    tmp_path, as_users_run_it
):
    (tmp_path / "weights.pt").write_bytes(b"none")
    for path in (tmp_path / "weights.pt", str(tmp_path / "weights.pt")):
        settings = flat_settings({"model": as_config(Teacher(Net(), checkpoint=path))})
        assert "model.checkpoint.origin" in with_origins(settings)


def test_a_student_that_was_trained_is_another_than_a_new_one():
    student, data = SmoothConv4(0), episodes()
    recipe = meta_kd(ProtoNet(), student=student)
    trainer(max_steps=1).fit(recipe, data)
    one, other = (meta_kd(ProtoNet(), student=s) for s in (student, recipe.student))
    settings = [flat_settings({"model": as_config(r)}) for r in (one, other)]
    assert "model.student.trained_by" not in settings[0]
    assert settings[1].pop("model.student.trained_by")
    assert settings[0] == settings[1]
