"""What a user does at the command line, and finds on disk afterwards."""

import csv
import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Union

import pytest
import torch
import yaml
from lightning import Trainer

import lightning_metakd
from lightning_metakd.cli.command import main
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.meta_kd import MetaKD
from tests.commands import (
    CONFIGS,
    MAML,
    STUDENT,
    TEACHER,
    checkpoint,
    fresh,
    results,
    same,
    work_in,
    written,
)

NUMBERS = (
    "accuracy",
    "ci95",
    "teacher_accuracy",
    "teacher_ci95",
    "paired_difference",
    "nll",
    "ece",
)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder in which a teacher and a student were trained, and its student tested, in one process."""
    folder = tmp_path_factory.mktemp("once")
    written(folder, teacher=TEACHER, student=STUDENT, maml=MAML)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        main(["fit", "--config", "teacher.yaml"])
        run = main(["fit", "--config", "student.yaml"])
        run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    return folder, dict(run.model.record.result)


@pytest.fixture
def folder(once, tmp_path):
    """A copy of that folder, in which the command runs."""
    shutil.copytree(once[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def last_config(run):
    return run.config[run.config.subcommand]


# --- results ----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_fresh_process_finds_the_very_number_of_the_one_that_trained(once, folder):
    process = fresh(folder, "test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    assert process.returncode == 0, process.stderr
    (row,) = results("student.test", folder)
    trained = once[1]
    assert {name: row[name] for name in NUMBERS} == {name: trained[name] for name in NUMBERS}
    assert row["checkpoint_sha256"] is not None
    assert row["train_steps"] == 6
    assert row["train_classes"] == 64
    # what the terminal says: one sentence and a table, and nothing that a user cannot act on
    line, head, _, numbers = process.stdout.splitlines()
    assert [name.strip() for name in head.split("|")[1:-1]] == [
        *("name", "accuracy", "teacher", "difference", "parameters", "latency")
    ]
    assert f" {100 * row['accuracy']:.2f} ± " in numbers
    assert line.startswith(f"student.test: test accuracy {100 * row['accuracy']:.2f} +- ")
    assert line.endswith("written to runs/student.test/0/results.jsonl")
    assert "runs/student.test/0: test on cpu, seed 0" in process.stderr
    assert not re.search(
        "warn|deprecat|site-packages|Tip|GPU|Seed set", process.stderr, re.IGNORECASE
    )


def test_a_student_is_tested_without_its_teachers(once, metakd, folder):
    path = "runs/student/latest/checkpoints/final.ckpt"
    shutil.rmtree("runs/teacher")
    way_out = (
        r"final\.ckpt' does not exist; .* or judge the student alone by --model\.teachers=null\."
    )
    with pytest.raises(FileNotFoundError, match=way_out):
        metakd("test", "--ckpt_path", path)
    metakd("test", "--ckpt_path", path, "--model.teachers=null")
    (row,) = results("student.test")
    assert row["accuracy"] == once[1]["accuracy"]
    assert row["teacher_accuracy"] is None


def test_validation_of_a_checkpoint_repeats_the_number_of_its_training(metakd, folder):
    metakd("validate", "--ckpt_path", "runs/student/latest/checkpoints/last.ckpt")
    (row,) = results("student.validate")
    with Path("runs/student/0/metrics.csv").open() as file:
        recorded = [float(r[key]) for r in csv.DictReader(file) if r[key := "val/student_accuracy"]]
    assert len(recorded) == 2
    assert row["accuracy"] == pytest.approx(recorded[-1], abs=1e-7)  # single precision in the csv
    assert row["stage"] == row["split"] == "val"


def test_predictions_are_written_and_add_up_to_the_accuracy(metakd, folder, capsys):
    path = "runs/student/latest/checkpoints/final.ckpt"
    for command in ("test", "predict"):
        metakd(command, "--ckpt_path", path)
    assert "140 predictions written to runs/student.predict/0/predictions.csv" in (
        capsys.readouterr().out
    )
    with Path("runs/student.predict/latest/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {""}  # these images have none
    right = [row["class"] == row["predicted"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(results("student.test")[0]["accuracy"])
    assert sorted({int(row["episode"]) for row in rows}) == list(range(7))
    names = Synthetic(8).all_rows()
    assert all(names.class_names[names.y[int(r["row"])]] == r["class"] for r in rows)


def test_a_single_task_predicts_too(metakd, folder):
    for command in ("test", "predict"):
        metakd(command, "--ckpt_path", "runs/teacher/latest/checkpoints/final.ckpt")
    with Path("runs/teacher.predict/0/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [row["class"] == row["predicted"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(results("teacher.test")[0]["accuracy"])
    assert {row["episode"] for row in rows} == {""}


def test_every_checkpoint_opens_without_trust(once):
    paths = sorted(once[0].glob("runs/*/0/checkpoints/*.ckpt"))
    assert len(paths) == 6
    for path in paths:
        loaded = torch.load(path, weights_only=True)
        assert not [name for name in loaded["state_dict"] if ".model." in name]


# --- configurations -----------------------------------------------------------------------------------------


def test_a_second_run_has_a_directory_of_its_own(metakd, folder):
    metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    assert sorted(p.name for p in Path("runs/student").iterdir()) == ["0", "1", "latest"]
    assert Path("runs/student/latest").readlink() == Path("1")
    assert checkpoint("student")["global_step"] == 3
    assert checkpoint("student", version="0")["global_step"] == 6


@pytest.mark.thorough
def test_the_configuration_of_a_run_repeats_it(metakd, folder):
    metakd("fit", "--config", "runs/student/0/config.fit.yaml")
    one, other = (checkpoint("student", version=version) for version in ("0", "1"))
    assert same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer_states"], other["optimizer_states"])
    metakd(
        *("test", "--config", "runs/student/1/config.fit.yaml"),
        *("--ckpt_path", "runs/student/1/checkpoints/final.ckpt"),
    )
    assert results("student.test")[0]["experiment"] == "student.test"
    assert Path("runs/student/latest").readlink() == Path("1")


def test_one_batch_is_not_all_of_them(metakd, capsys, monkeypatch):
    hints = inspect.unwrap(Trainer.__init__).__annotations__
    monkeypatch.setitem(hints, "limit_train_batches", Union[float, int, None])  # noqa: UP007
    config = CONFIGS / "experiment" / "single_task_synthetic_teacher.yaml"
    with pytest.raises(SystemExit):
        metakd("fit", "--config", config, "--trainer.limit_train_batches=1", "--print_config")
    assert "limit_train_batches: 1\n" in capsys.readouterr().out


def test_print_config_shows_what_would_run(metakd, tmp_path, capsys):
    written(tmp_path, student=STUDENT)
    with pytest.raises(SystemExit) as done:
        metakd("fit", "--config", "student.yaml", "--data.n_way=4", "--print_config")
    assert done.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["class_path"] == "lightning_metakd.MetaKD"
    assert shown["data"]["init_args"]["n_way"] == 4
    assert not Path("runs").exists()


def test_a_second_configuration_overrides_the_first_and_words_override_both(metakd, tmp_path):
    over = {"data": {"init_args": {"n_way": 3}}, "trainer": {"max_epochs": 5}}
    written(tmp_path, student=MAML, over=over)
    run = metakd(
        *("fit", "--config", "student.yaml", "--config", "over.yaml"),
        *("--config", CONFIGS / "trainer" / "cpu.yaml", "--trainer.fast_dev_run=1"),
        *("--data.n_query=3", "--model.student.n_classes=3"),
    )
    assert (run.datamodule.n_way, run.datamodule.n_query) == (3, 3)
    assert last_config(run).trainer.max_epochs == 5
    assert not Path("runs").exists()  # a rehearsal writes nothing


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["fit", "--config", "student.yaml", "--data.n_wayy=3"],
            "data.n_wayy is no setting of EpisodicData; the nearest is n_way.",
        ),
        (
            ["fit", "--config", "student.yaml", "--model.strategy_training.lrr=3"],
            "model.strategy_training.lrr is no setting of MetaKD; the nearest is strategy_training.lr.",
        ),
        (
            ["fit", "--config", "student.yaml", "--model.learner.inner_lrr=3"],
            "model.learner.inner_lrr is no setting of ProtoNet; --help lists them.",
        ),
        (
            ["fit", "--config", "student.yaml", "--trainer.max_epohcs=3"],
            "trainer.max_epohcs is no setting; the nearest is trainer.max_epochs.",
        ),
        (  # an abbreviation is a mistake too
            ["fit", "--config", "student.yaml", "--trainer.max_epoch=3"],
            "trainer.max_epoch is no setting; the nearest is trainer.max_epochs.",
        ),
        (["fit", "--config", "student.yaml", "--data.n_way=five"], "data.n_way=five is not int."),
        (
            ["fit", "--config", "student.yaml", "--model.learner=MAMBL"],
            "model.learner=MAMBL is no class that can be used here; give one of IMAML, LSTMOptimizer, "
            "Logistic, MAML, MAMLPlusPlus, MetaSGD, ProtoMAML, ProtoNet, Reptile, Ridge, or "
            "the full path of your own; the nearest is MAML.",
        ),
        (
            ["fit", "--config", "typo.yaml"],
            "model.strategy_ratee is no setting of MetaKD; the nearest is strategy_training.",
        ),
        (
            ["fit", "--config", "nowhere.yaml"],
            "config: File does not exist: 'FOLDER/nowhere.yaml'.",
        ),
        (["fit"], "data, model must be given, as an option or in a file named by --config."),
        (
            ["fti", "--config", "student.yaml"],
            "'fti' is no command; choose one of fit, validate, test, predict, precompute, "
            "export, demo, report, classify, list, configs, doctor, completion.",
        ),
        (["report", "--foldr=runs"], "foldr is no setting; the nearest is folder."),
    ],
)
def test_a_typo_is_one_line_and_nothing_runs(words, line, metakd, tmp_path, capsys):
    typo = {**STUDENT["model"]["init_args"], "strategy_ratee": 1}
    typo = {**STUDENT, "model": {"class_path": "MetaKD", "init_args": typo}}
    written(tmp_path, student=STUDENT, typo=typo)
    with pytest.raises(SystemExit) as done:
        metakd(*words)
    assert done.value.code == 2
    assert capsys.readouterr().err == f"metakd: {line.replace('FOLDER', str(tmp_path))}\n"
    assert not Path("runs").exists()


UNFIT = """
from lightning_metakd.learners import Learner, ProtoNet

class Abstract(Learner):
    needs_head = True

class Nearest(ProtoNet):
    pass
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--model.learner=unfit.Abstract",
            "model.learner=unfit.Abstract cannot be built: it does not define adapt.",
        ),
        (
            "--model.loss=unfit.Nearest",
            "model.loss=unfit.Nearest derives from ProtoNet, and a Loss is wanted.",
        ),
    ],
)
def test_a_class_of_ones_own_that_does_not_fit_is_told_why(
    words, line, metakd, tmp_path, capsys, monkeypatch
):
    written(tmp_path, student=STUDENT)
    (tmp_path / "unfit.py").write_text(UNFIT)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        metakd("fit", "--config", "student.yaml", words)
    sys.modules.pop("unfit", None)
    assert capsys.readouterr().err == f"metakd: {line}\n"


def test_version_and_commands_are_told(metakd, capsys):
    metakd("--version")
    assert capsys.readouterr().out.strip() == lightning_metakd.__version__
    with pytest.raises(SystemExit):
        metakd("--help")
    text = capsys.readouterr().out
    assert all(
        name in text for name in ("fit", "validate", "test", "predict", "precompute", "report")
    )


# --- the networks and tools of others ----------------------------------------------------------------------


def wrapped(class_path, **settings):
    return {
        "class_path": "Wrapped",
        "init_args": {"module": {"class_path": class_path}, "n_classes": 0, **settings},
    }


def helped(student, teacher, checkpoint=None):
    """A student with such a teacher."""
    trained = {"model": teacher, "checkpoint": checkpoint}
    teachers = [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": trained}]
    settings = {**STUDENT["model"]["init_args"], "student": student, "teachers": teachers}
    return {**STUDENT, "model": {"class_path": "MetaKD", "init_args": settings}}


@pytest.mark.thorough
def test_any_network_may_be_student_and_teacher(metakd, tmp_path):
    net = wrapped("tests.commands.Net")
    pretrained = wrapped("tests.commands.Net", n_classes=48, head="fc")
    teacher = {**TEACHER, "model": {**TEACHER["model"], "init_args": {"student": pretrained}}}
    student = helped(net, net, "runs/teacher/latest/checkpoints/final.ckpt")
    written(tmp_path, teacher=teacher, student=student)
    small = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    metakd("fit", "--config", "teacher.yaml", *small, "--data.batch_size=16")
    metakd("fit", "--config", "student.yaml", *small, "--data.n_episodes=2")
    metakd("test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    assert results("student.test")[0]["teacher_sha256"] is not None


@pytest.mark.thorough
def test_a_network_of_torchvision_may_be_student_and_teacher(metakd, tmp_path):
    net = wrapped("torchvision.models.mobilenet_v3_small", head="classifier.3")
    written(tmp_path, student=helped(net, net))
    words = ["--trainer.fast_dev_run=1", "--data.meta_batch_size=1", "--data.n_query=2"]
    run = metakd("fit", "--config", "student.yaml", *words)
    assert type(run.model.student.module).__name__ == "MobileNetV3"
    assert run.trainer.global_step == 1


def test_a_plain_network_adapts_as_it_is(metakd, tmp_path):
    settings = {**MAML["model"]["init_args"], "student": {"class_path": "tests.commands.Net"}}
    written(tmp_path, own_net={**MAML, "model": {"class_path": "MetaKD", "init_args": settings}})
    metakd("fit", "--config", "own_net.yaml", "--trainer.max_epochs=1")
    assert "student.head.weight" in checkpoint("own_net")["state_dict"]


@pytest.mark.thorough
def test_weights_and_biases_stands_beside_without_account_network_or_question(
    once, folder, monkeypatch
):
    home = folder / "home"
    home.mkdir()
    quiet = {name: "" for name in os.environ if name.startswith("WANDB_")}
    process = fresh(
        *(folder, "fit", "--config", "maml.yaml", "--config", CONFIGS / "logger" / "wandb.yaml"),
        "--trainer.max_epochs=1",
        **quiet,
        HOME=str(home),
        NETRC=str(home / "netrc"),
        https_proxy="http://127.0.0.1:9",
    )
    assert process.returncode == 0, process.stderr
    (run,) = (folder / "runs" / "maml" / "0" / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert (folder / "runs" / "maml" / "0" / "checkpoints" / "final.ckpt").is_file()
    assert not (folder / "wandb").exists()


def test_the_same_in_plain_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = EpisodicData(
        Synthetic(per_class=8),
        k_shot=2,
        n_query=4,
        meta_batch_size=2,
        steps_per_epoch=2,
        n_episodes=5,
    )
    recipe = MetaKD(Conv4(width=4), ProtoNet(metric="cosine", scale=10.0))
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(
        **settings,
        max_epochs=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(recipe, datamodule=data)
    trainer.save_checkpoint("student.ckpt")
    (actual,) = trainer.test(recipe, datamodule=data, verbose=False)
    assert 0 <= actual["test/student_accuracy"] <= 1

    weights = torch.load("student.ckpt", weights_only=True)
    assert weights["global_step"] == 2
    again = MetaKD(Conv4(width=4), ProtoNet(metric="cosine", scale=10.0))
    (repeated,) = trainer.test(again, datamodule=data, ckpt_path="student.ckpt", verbose=False)
    assert repeated == actual
