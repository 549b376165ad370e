"""Several processes train one student, and one evaluation has one number whatever their number."""

import os
import sys
import time
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from tests.commands import (
    CONFIGS,
    MAML,
    STUDENT,
    TEACHER,
    checkpoint,
    fresh,
    results,
    same,
    written,
)
from tests.conftest import ADVICE
from tests.processes import run_on

pytestmark = pytest.mark.ddp
DDP = ("--trainer.accelerator=cpu", "--trainer.strategy=ddp")


def command(rank, world, folder, words):
    """The command on one of several processes that are there already, as under a cluster's launcher."""
    from lightning_metakd.cli.command import main  # late: it imports the whole package

    os.chdir(folder)
    names = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": world}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}  # the processes have met by a file
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ["METAKD_CACHE"] = str(Path(folder) / "cache")
    for text in ADVICE:
        warnings.filterwarnings(*text.split(":", 1))
    os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # as pyproject.toml says
    sys.argv = ["metakd"]
    run = main([*words, *DDP, f"--trainer.devices={world}"])
    weights = run.model.state_dict()
    return {name: p.clone().numpy() for name, p in weights.items()}, run.trainer.global_step


def on(world, folder, *words):
    """What each process holds in the end, and how many steps it took."""
    message = run_on(world, folder, command, str(folder), [str(word) for word in words])
    for text in message:
        assert not isinstance(text, str), text
    return message


KINDS = {
    "maml": ["--data.meta_batch_size"],
    "student": [
        "--model.strategy_training.every=2",
        "--model.norm=tracked",
        "--data.meta_batch_size",
    ],
    "other classes": [
        *("--model.strategy_training.quiz_classes=other", "--data.strategy_split=strategy"),
        *("--data.train_split=teacher", "--data.meta_batch_size"),
    ],
    "learning teachers": ["--model.strategy_training.teacher_lr=0.1", "--data.meta_batch_size"],
    "hints": ["--model.student.width=6", "--model.loss=what_where.yaml", "--data.meta_batch_size"],
}


MARKS = dict.fromkeys(KINDS, pytest.mark.slow) | {
    "maml": (),
    "learning teachers": pytest.mark.thorough,
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS[kind]) for kind in KINDS])
def test_two_processes_train_as_one_with_twice_the_episodes(kind, metakd, tmp_path):
    student = deepcopy(STUDENT)
    if kind == "learning teachers":
        student["model"]["init_args"]["teachers"][0]["init_args"]["cache"] = False
    written(tmp_path, maml=MAML, student=student, teacher=TEACHER)
    *settings, size = KINDS[kind]
    if kind == "hints":
        loss = (CONFIGS / "loss" / "what_where.yaml").read_text()
        (tmp_path / "what_where.yaml").write_text(loss.replace("channels: 64", "channels: 4"))
    if kind != "maml":
        metakd("fit", "--config", "teacher.yaml")
    config = "maml.yaml" if kind == "maml" else "student.yaml"
    words = ["fit", "--config", config, "--data.n_episodes=3", *settings]
    # Adam would divide rounding by rounding at the biases before a norm, which have no gradient
    words += ["--model.optimisation.optimiser=sgd", "--model.optimisation.lr=0.05"]
    (one, steps), (other, _) = on(2, tmp_path, *words, f"{size}=1", "--experiment=two")
    assert steps == 6
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    metakd(*words, f"{size}=2", "--experiment=alone")
    alone, two = (checkpoint(name)["state_dict"] for name in ("alone", "two"))
    assert any("loss." in name for name in two) == (kind != "maml")
    assert any("adapters." in name for name in two) == (kind == "hints")
    assert any(".model." in name for name in two) == (kind == "learning teachers")
    for name, tensor in alone.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-5, atol=1e-6, msg=partial("{}: {}".format, name)
        )
    assert len(list(Path("runs/two").glob("[0-9]*"))) == 1


@pytest.mark.thorough
def test_a_single_task_trains_replicas_that_agree(tmp_path):
    written(tmp_path, teacher=TEACHER)
    words = ["fit", "--config", "teacher.yaml", "--data.batch_size=32"]
    (one, steps), (other, _) = on(2, tmp_path, *words)
    assert steps == 2
    # running statistics are each process's own between two steps
    trained = [name for name in one if not name.rpartition(".")[2].startswith(("running", "num_b"))]
    assert all((one[name] == other[name]).all() for name in trained)


@pytest.mark.thorough
def test_teachers_of_a_single_task_learn_alike_and_one_that_nobody_follows_does_not(
    metakd, tmp_path
):
    sliced = {
        "model": {"class_path": "Conv4", "init_args": {"width": 4, "n_classes": 48}},
        "checkpoint": "runs/teacher/latest/checkpoints/final.ckpt",
        "head": {"class_path": "SlicedHead"},
    }
    one = {"class_path": "lightning_metakd.teachers.Teacher", "init_args": sliced}
    loss = {
        "class_path": "OfTeacher",
        "init_args": {"teacher": 1, "loss": {"class_path": "Hinton"}},
    }
    learning = {"teachers": [one, one], "loss": loss}
    quiz = {"class_path": "CrossEntropy"}
    learning["strategy_training"] = {"teacher_lr": 0.1, "quiz": quiz}
    single = deepcopy(TEACHER)
    single["model"]["init_args"] |= learning
    single["data"]["init_args"] |= {"quiz_fraction": 0.25, "batch_size": 16}
    written(tmp_path, teacher=TEACHER, single=single)
    metakd("fit", "--config", "teacher.yaml")
    (first, steps), (other, _) = on(2, tmp_path, "fit", "--config", "single.yaml")
    assert steps == 2
    names = [name for name in first if name.startswith("teachers.") and "num_b" not in name]
    assert all((first[name] == other[name]).all() for name in names)
    start = checkpoint("teacher")["state_dict"]
    name = "convs.0.weight"
    moved = [
        (first[f"teachers.{k}.model.{name}"] != start[f"student.{name}"].numpy()).any()
        for k in (0, 1)
    ]
    assert moved == [False, True]


@pytest.mark.thorough
def test_a_test_on_one_two_and_three_processes_is_the_same_to_the_last_digit(metakd, tmp_path):
    written(tmp_path, teacher=TEACHER, student=STUDENT)
    metakd("fit", "--config", "teacher.yaml")
    metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    test = ["test", "--config", "student.yaml", "--data.n_episodes=7"]
    test += ["--ckpt_path", "runs/student/0/checkpoints/final.ckpt", "--experiment"]
    metakd(*test, "on1")
    on(2, tmp_path, *test, "on2")
    on(3, tmp_path, *test, "on3")
    rows = [results(f"on{world}") for world in (1, 2, 3)]
    assert [row["world_size"] for (row,) in rows] == [1, 2, 3]
    numbers = ("accuracy", "ci95", "teacher_accuracy", "teacher_ci95", "paired_difference", "nll")
    for name in (*numbers, "agreement", "episodes"):
        assert len({row[name] for (row,) in rows}) == 1, name
    result = [Path(f"runs/on{world}/0/episodes.test.csv").read_text() for world in (1, 2, 3)]
    assert result[0] == result[1] == result[2]
    replies = [Path(f"runs/on{world}/0/answers.test.npz").read_bytes() for world in (1, 2, 3)]
    assert replies[0] == replies[1] == replies[2]
    test = ["test", "--config", "teacher.yaml", "--data.batch_size=9"]
    test += ["--ckpt_path", "runs/teacher/0/checkpoints/final.ckpt", "--experiment"]
    metakd(*test, "of1")
    on(2, tmp_path, *test, "of2")
    (alone,), (both,) = results("of1"), results("of2")
    assert (alone["accuracy"], alone["ci95"]) == (both["accuracy"], both["ci95"])


@pytest.mark.thorough
def test_predictions_of_two_processes_are_in_one_table(metakd, tmp_path):
    written(tmp_path, maml=MAML)
    metakd("fit", "--config", "maml.yaml", "--trainer.max_epochs=1", "--data.n_episodes=1")
    words = ["predict", "--config", "maml.yaml", "--experiment"]
    path = ["--ckpt_path", "runs/maml/0/checkpoints/final.ckpt"]
    metakd(*words, "one", *path)
    on(2, tmp_path, *words, "two", *path)
    one, two = (Path(f"runs/{name}/0/predictions.csv").read_text() for name in ("one", "two"))
    assert len(one.splitlines()) == 1 + 7 * 20
    assert one == two


class Slow(Callback):
    """One process is slower than the others, so that their clocks disagree about the end."""

    def on_train_batch_start(self, trainer, *args) -> None:
        time.sleep(0.05 * trainer.global_rank)


@pytest.mark.thorough
def test_a_limit_of_time_stops_all_processes_at_one_step(tmp_path):
    written(tmp_path, maml=MAML)
    words = [
        "--trainer.max_epochs=-1",
        "--trainer.max_time=00:00:00:02",
        "--data.meta_batch_size=1",
    ]
    words += ["--data.steps_per_epoch=500", "--trainer.limit_val_batches=0"]
    words += ["--model.optimisation.schedule=cosine"]
    slow = "--trainer.callbacks=[{class_path: tests.test_distributed.Slow}]"
    (one, steps), (other, other_steps) = on(
        2, tmp_path, "fit", "--config", "maml.yaml", *words, slow
    )
    assert steps == other_steps >= 1
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.thorough
def test_the_command_itself_starts_the_other_processes(tmp_path):
    written(tmp_path, maml=MAML)
    words = ["--trainer.max_epochs=1", "--data.n_episodes=3", "--trainer.devices=2"]
    process = fresh(tmp_path, "fit", "--config", "maml.yaml", *words, *DDP)
    assert process.returncode == 0, process.stderr
    assert "runs/maml/0: fit on cpu, 2 processes, seed 0" in process.stderr
    assert process.stderr.count("fit on cpu") == 1
    assert "Warning" not in process.stderr
    final = tmp_path / "runs" / "maml" / "0" / "checkpoints" / "final.ckpt"
    assert torch.load(final, weights_only=True)["global_step"] == 3
    assert same(sorted(p.name for p in (tmp_path / "runs" / "maml").iterdir()), ["0", "latest"])
