"""A run that was stopped goes on: one course, in one directory, to the very same end."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.cli import command
from lightning_metakd.loggers import run_logger
from lightning_metakd.storage import atomic_files
from lightning_metakd.storage.atomic_files import file_sha256
from tests.commands import MAML, STUDENT, TEACHER, checkpoint, numbers, same, work_in, written

OFTEN = {"class_path": "Checkpoints", "init_args": {"every_minutes": 1e-9}}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder in which a student was trained without a break, and how to train it again."""
    folder = tmp_path_factory.mktemp("once")
    written(folder, teacher=TEACHER, student=STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        command.main(["fit", "--config", "teacher.yaml"])
        command.main(["fit", "--config", "student.yaml"])
    return folder


@pytest.fixture
def folder(once, tmp_path):
    shutil.copytree(once, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def callbacks(*extra):
    return f"--trainer.callbacks={json.dumps([OFTEN, *extra])}"


def power_cut(step, hook):
    return {
        "class_path": "tests.commands.PowerCut",
        "init_args": {"step": step, "hook": hook},
    }


CUTS = [  # of 6 steps, validated after 3 and 6
    (2, "on_train_batch_end"),
    (3, "on_validation_batch_start"),
    (3, "on_validation_end"),
    (4, "on_train_batch_start"),
    (6, "on_validation_epoch_end"),
    (6, "on_train_end"),
]


@pytest.mark.thorough
@pytest.mark.parametrize("cuts", [CUTS[1:2], pytest.param(CUTS, marks=pytest.mark.slow)])
def test_a_run_that_was_cut_goes_on_to_the_very_same_end(cuts, metakd, folder):
    words = ["fit", "--resume", "--config=student.yaml", "--experiment=cut"]
    for cut in cuts:
        with pytest.raises(RuntimeError, match="power cut"):
            metakd(*words, callbacks(power_cut(*cut)))
        assert not Path("runs/cut/0/checkpoints/final.ckpt").exists()
    metakd(*words, callbacks())
    assert sorted(path.name for path in Path("runs/cut").iterdir()) == ["0", "latest"]
    for name in ("final", "best", "last"):
        whole, resumed = checkpoint("student", name), checkpoint("cut", name)
        assert whole["global_step"] == resumed["global_step"]
        for part in ("state_dict", "optimizer_states", "coefficient_values"):
            assert same(whole[part], resumed[part]), (name, part)
        assert same(*(c["callbacks"]["Checkpoints"] for c in (whole, resumed)))
    assert numbers(Path("runs/cut/0")) == numbers(Path("runs/student/0"))
    left = [Path(f"runs/{e}/0/strategy.safetensors").read_bytes() for e in ("student", "cut")]
    assert left[0] == left[1]
    kept = sorted(p.name for p in Path("runs/cut/0/checkpoints").iterdir())
    assert kept == ["best.ckpt", "final.ckpt", "last.ckpt"]


@pytest.mark.thorough
def test_a_run_limited_by_time_stops_and_goes_on_with_more(metakd, tmp_path):
    written(tmp_path, maml=MAML)
    words = ["fit", "--config", "maml.yaml", "--trainer.max_epochs=-1", "--data.n_episodes=1"]
    steps = []
    for limit in (1, 3):
        metakd(*words, "--resume", f"--trainer.max_time=00:00:00:0{limit}")
        steps.append(checkpoint("maml")["global_step"])
    assert 0 < steps[0] < steps[1]
    # nothing is left: the complete run is still what `latest` points to, or a copy of it
    metakd(*words, "--resume", "--trainer.max_time=00:00:00:03")
    assert (
        checkpoint("maml")["global_step"] == checkpoint("maml", "last")["global_step"] == steps[1]
    )


def hashes(run):
    return {path.name: file_sha256(path) for path in run.rglob("*") if path.is_file()}


def test_a_complete_run_that_is_resumed_stays_as_it_is(metakd, folder, capsys):
    before = hashes(Path("runs/student/0"))
    metakd("fit", "--config", "student.yaml", "--resume")
    assert sorted(path.name for path in Path("runs/student").iterdir()) == ["0", "latest"]
    assert hashes(Path("runs/student/0")) == before
    assert "is there, and nothing was left to train; metakd test" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_start_that_fails_hides_no_earlier_run(metakd, folder):
    with pytest.raises(ValueError, match="n_way=17 exceeds"):
        metakd("fit", "--config", "student.yaml", "--data.n_way=17")
    assert sorted(path.name for path in Path("runs/student").iterdir()) == ["0", "latest"]
    run = metakd("fit", "--config", "student.yaml", "--resume", "--trainer.max_epochs=3")
    assert run.trainer.global_step == 9


def test_resume_begins_where_there_is_nothing(metakd, tmp_path, capsys):
    written(tmp_path, maml=MAML)
    run = metakd("fit", "--resume", "--config", "maml.yaml", "--trainer.max_epochs=1")
    assert run.trainer.global_step == 3
    assert "nothing to resume in runs/maml; training begins" in capsys.readouterr().err


WAYS = {
    "words": ["--resume", "--config=maml.yaml", "--experiment=other", "--runs=elsewhere"],
    "a value": [
        "--resume=true",
        "--config=maml.yaml",
        "--experiment",
        "other",
        "--runs",
        "elsewhere",
    ],
    "a first configuration": ["--config=place.yaml", "--config=maml.yaml", "--resume"],
    "a second one": ["--config=maml.yaml", "--config=place.yaml", "--resume"],
    "a configuration alone": ["--config=maml.yaml", "--config=place.yaml", "--config=resume.yaml"],
    "a logger": ["--config=maml.yaml", "--config=logger.yaml", "--resume"],
    "the checkpoint": [
        "--config=maml.yaml",
        "--config=place.yaml",
        "--ckpt_path=elsewhere/other/latest/checkpoints/last.ckpt",
    ],
}


@pytest.mark.thorough
def test_every_way_to_say_where_the_run_lies_goes_on_there(metakd, tmp_path, capsys):
    place = {"experiment": "other", "runs": "elsewhere"}
    logger = {
        "class_path": "RunLogger",
        "init_args": {"experiment": "other", "save_dir": "elsewhere"},
    }
    written(
        tmp_path,
        maml={**MAML, "trainer": {**MAML["trainer"], "max_epochs": 1}},
        place=place,
        resume={"resume": True},
        logger={"trainer": {"logger": logger}},
    )
    metakd("fit", *WAYS["words"])
    for name, words in WAYS.items():
        capsys.readouterr()
        metakd("fit", *words)
        line = "elsewhere/other/0/checkpoints/final.ckpt is there, and nothing was left to train"
        assert line in capsys.readouterr().err, name
    assert sorted(path.name for path in Path("elsewhere/other").iterdir()) == ["0", "latest"]
    assert not Path("runs").exists()


def test_another_checkpoint_of_a_run_begins_a_directory_of_its_own(metakd, folder):
    """Going on from the best one in the same directory would cost what was trained after it."""
    before = hashes(Path("runs/student/0"))
    metakd("fit", "--config=student.yaml", "--ckpt_path=runs/student/0/checkpoints/best.ckpt")
    assert hashes(Path("runs/student/0")) == before
    assert same(
        checkpoint("student", version="1")["state_dict"],
        checkpoint("student", version="0")["state_dict"],
    )


def test_a_training_with_other_settings_does_not_go_on(metakd, folder):
    before = hashes(Path("runs/student/0"))
    words = ["--data.n_way=4", "--model.student.width=8", "--trainer.max_epochs=3"]
    with pytest.raises(ValueError, match="it cannot go on with other settings") as refusal:
        metakd("fit", "--resume", "--config=student.yaml", *words)
    text = str(refusal.value)
    assert text.startswith("data.n_way=4 was 5; model.student.width=8 was 4 in /")
    assert (
        "start anew without it, or begin from its weights by --model.initialisation.checkpoint="
        in text
    )
    assert hashes(Path("runs/student/0")) == before


def test_what_may_change_is_said(metakd, folder, caplog):
    words = ["--trainer.max_epochs=3", "--data.n_episodes=5", "--trainer.limit_val_batches=4"]
    words += [callbacks(), "--data.num_workers=0"]
    run = metakd("fit", "--resume", "--config=student.yaml", *words)
    assert run.trainer.global_step == 9
    (line,) = [text for text in caplog.messages if text.startswith("goes on with ")]
    assert line == (
        "goes on with data.n_episodes=5 (was 7), trainer.limit_val_batches=4 (was 1.0), "
        "trainer.max_epochs=3 (was 2), other trainer.callbacks"
    )


def test_weights_without_a_training_do_not_go_on(metakd, folder):
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6", "global_step": 0}, "w.ckpt")
    with pytest.raises(
        ValueError, match=r"w\.ckpt holds weights and no training that could go on; begin"
    ):
        metakd("fit", "--config=student.yaml", "--ckpt_path=w.ckpt")


def test_two_ways_to_say_where_to_go_on_are_one_too_many(metakd, folder):
    with pytest.raises(
        ValueError, match=r"resume=true and ckpt_path=x\.ckpt both say where to go on"
    ):
        metakd("fit", "--config=student.yaml", "--resume", "--ckpt_path=x.ckpt")


def test_the_configuration_that_is_kept_repeats_the_run_and_does_not_resume_it(metakd, tmp_path):
    written(tmp_path, maml=MAML)
    metakd("fit", "--resume", "--config=maml.yaml", "--trainer.max_epochs=1")
    assert yaml.safe_load(Path("runs/maml/0/config.fit.yaml").read_text())["resume"] is False


def test_a_run_that_is_still_written_is_not_resumed(metakd, folder, monkeypatch):
    monkeypatch.setattr(run_logger, "hold_folder", partial(atomic_files.hold_folder, patience=0.1))
    lock = atomic_files.hold_folder(Path("runs/student/0"))
    with pytest.raises(
        OSError, match="another process writes in runs/student/0; wait until it has"
    ):
        metakd("fit", "--config=student.yaml", "--resume")
    os.close(lock)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"val_fraction": 0.0},
            "a test of it as it is configured would fail: val_fraction=0 and test_fraction=0",
        ),
        ({}, "tests it"),
    ],
)
def test_the_test_that_is_recommended_is_one_that_works(change, line, metakd, tmp_path, capsys):
    arguments = {**TEACHER["data"]["init_args"], **change}
    written(tmp_path, teacher={**TEACHER, "data": {**TEACHER["data"], "init_args": arguments}})
    metakd("fit", "--config=teacher.yaml")
    text = capsys.readouterr().err
    assert line in text
    assert ("metakd test --ckpt_path" in text) is (not change)


@pytest.mark.parametrize(
    "words",
    [
        ["--config=often.yaml"],
        ["--trainer.callbacks=Checkpoints", "--trainer.callbacks.every_minutes=0.5"],
        ["--trainer.callbacks+=Checkpoints", "--trainer.callbacks.every_minutes=0.5"],
    ],
)
def test_how_often_a_run_is_saved_is_a_setting(words, metakd, tmp_path):
    often = {"class_path": "Checkpoints", "init_args": {"every_minutes": 0.5}}
    written(tmp_path, maml=MAML, often={"trainer": {"callbacks": [often]}})
    run = metakd("fit", "--config=maml.yaml", *words, "--trainer.max_steps=0")
    (saving,) = (c for c in run.trainer.callbacks if isinstance(c, Checkpoints))
    assert saving.every_minutes == 0.5
