"""A run with a strategy and its test, offline: what the files of W&B hold."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import wandb

from lightning_metakd.callbacks.wandb_report import WandbReport
from lightning_metakd.cli.trainer import Trainer
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.loggers.wandb_logger import WandbOrOffline
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.teachers.teacher import Teacher
from tests.loggers.nobody import KEY, without_account
from tests.loggers.offline_file import offline_run
from tests.loggers.stand_in_server import stand_in_server
from tests.tiny import Blobs, SmoothConv4

SETTINGS = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "log_every_n_steps": 1,
}


def recipe(teacher):
    return MetaKD(
        SmoothConv4(0),
        ProtoNet("cosine", 10.0),
        loss=MatchGate(Learned(0.5), Hinton(4.0)),
        teachers=[Teacher(SmoothConv4(0, width=4), checkpoint=str(teacher))],
        strategy_training=StrategyTraining(lr=0.01),
    )


def episodes():
    return EpisodicData(
        Blobs(), 3, k_shot=2, n_query=4, n_episodes=6, steps_per_epoch=2, meta_batch_size=1
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a fit and, as another process would, a test of it have been."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    teacher = folder / "teacher.pt"
    torch.save(SmoothConv4(0, width=4).state_dict(), teacher)
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_account(monkeypatch, folder)
        logger = WandbOrOffline(tags=["first try"])
        fit = Trainer("it", str(folder / "runs"), logger=logger, max_epochs=2, **SETTINGS)
        fit.fit(recipe(teacher), episodes())
        wandb.finish()
        test = Trainer("it.test", str(folder / "runs"), logger=WandbOrOffline(), **SETTINGS)
        final = folder / "runs" / "it" / "0" / "checkpoints" / "final.ckpt"
        test.test(recipe(teacher), episodes(), ckpt_path=str(final), verbose=False)
        wandb.finish()
    return folder


def name_of(path: Path, kind: str) -> str:
    return f"{kind}-{sha256(path.read_bytes()).hexdigest()[:12]}"


def artifacts(run):
    """(name, whether it is an input, aliases) of what the user would look for."""
    return {
        (a.name, a.use_after_commit): set(a.aliases)
        for kind in ("network", "strategy", "results")
        for a in run.artifacts.get(kind, [])
    }


def test_curves_have_the_step_as_axis_and_the_best_beside_the_last(folder):
    run = offline_run(folder / "runs" / "it" / "0")
    every, loss = run.metrics["*"], run.metrics["train/outer_loss"]
    assert every.step_metric == loss.step_metric == "trainer/global_step"
    assert (loss.summary.min, loss.summary.last) == (True, True)
    accuracy = run.metrics["val/student_accuracy"]
    assert (accuracy.summary.max, accuracy.summary.last) == (True, True)
    values = [
        line["val/student_accuracy"] for line in run.history if "val/student_accuracy" in line
    ]
    assert len(values) == 2
    assert run.summary["val/student_accuracy"] == {"max": max(values), "last": values[-1]}
    steps = [line["trainer/global_step"] for line in run.history]
    assert steps == sorted(steps)
    assert steps[-1] == 3


def test_a_fit_and_its_test_are_one_group_and_say_what_they_are(folder):
    fit, test = (offline_run(folder / "runs" / name / "0").run for name in ("it", "it.test"))
    assert fit.run_group == test.run_group == "it"
    assert [*fit.tags] == ["first try", "fit", "MetaKD", "MatchGate"]
    assert [*test.tags] == ["test", "MetaKD", "MatchGate"]
    assert (fit.display_name, test.display_name) == ("it/0", "it.test/0")


def test_a_fit_uses_its_teacher_and_makes_students_and_a_strategy(folder):
    run = folder / "runs" / "it" / "0"
    final, best = (run / "checkpoints" / f"{name}.ckpt" for name in ("final", "best"))
    assert artifacts(offline_run(run)) == {
        (name_of(folder / "teacher.pt", "network"), True): {"teacher", "latest"},
        (name_of(final, "network"), False): {"student", "final", "latest"},
        (name_of(best, "network"), False): {"student", "best", "latest"},
        (name_of(run / "strategy.safetensors", "strategy"), False): {"latest"},
    }


def test_a_test_uses_the_very_artifact_that_the_fit_has_made(folder):
    fit, test = (offline_run(folder / "runs" / name / "0") for name in ("it", "it.test"))
    name = name_of(folder / "runs" / "it" / "0" / "checkpoints" / "final.ckpt", "network")
    (made,) = [a for a in fit.artifacts["network"] if a.name == name]
    (student,) = [a for a in test.artifacts["network"] if "student" in a.aliases]
    assert (student.name, student.digest, student.use_after_commit) == (name, made.digest, True)
    results = folder / "runs" / "it.test" / "0" / "results.jsonl"
    assert (name_of(results, "results"), False) in artifacts(test)


def test_a_test_shows_classes_hardest_episodes_and_what_accuracy_costs(folder):
    run = offline_run(folder / "runs" / "it.test" / "0")
    shown = {name for name, value in run.history[-1].items() if name.startswith("test/")}
    tables = {name.split("/")[1] for name in shown}
    assert tables == {"classes", "hardest_episodes", "pareto"}
    contents = {
        entry.path: Path(entry.local_path)
        for artifact in run.artifacts["run_table"]
        for entry in artifact.manifest.contents
    }
    assert run.artifacts.keys() == {"network", "results", "run_table"}
    hardest = json.loads(contents["test/hardest_episodes.table.json"].read_text())
    picture = hardest["columns"].index("picture")
    images = {row[picture]["path"] for row in hardest["data"]}
    assert images <= contents.keys()
    assert all(contents[path].read_bytes().startswith(b"\x89PNG") for path in images)
    classes = json.loads(contents["test/classes.table.json"].read_text())
    assert {row[0] for row in classes["data"]} <= {f"blob {c}" for c in range(16, 20)}
    pareto = json.loads(contents["test/pareto.table.json"].read_text())
    rows = [dict(zip(pareto["columns"], row, strict=True)) for row in pareto["data"]]
    names = {row["name"]: row for row in rows}
    assert names.keys() == {"it.test", "teacher of it.test"}
    result = json.loads((folder / "runs" / "it.test" / "0" / "results.jsonl").read_text())
    assert names["it.test"]["MACs"] == result["student_macs"]
    assert names["it.test"]["accuracy (%)"] == pytest.approx(100 * result["accuracy"])


def test_all_that_is_uploaded_later_lies_in_the_directory_of_the_run(folder):
    for name in ("it", "it.test"):
        run = folder / "runs" / name / "0"
        kept = [a for several in offline_run(run).artifacts.values() for a in several]
        copies = [Path(entry.local_path) for a in kept for entry in a.manifest.contents]
        assert all(copy.is_relative_to(run) and copy.is_file() for copy in copies)
    assert "WANDB_DATA_DIR" not in os.environ
    assert not [path for path in (folder / "home").rglob("*") if path.is_file()]


def test_without_wandb_nothing_is_asked_or_written(folder, tmp_path):
    callback = WandbReport()
    trainer = Trainer("it", str(tmp_path), max_epochs=1, callbacks=callback, **SETTINGS)
    trainer.fit(recipe(folder / "teacher.pt"), episodes())
    assert callback.folder is None
    assert not [*tmp_path.rglob("*wandb*")]


def test_where_wandb_is_disabled_a_run_is_as_without(folder, tmp_path, monkeypatch):
    without_account(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbOrOffline()
    trainer = Trainer("it", str(tmp_path / "runs"), logger=logger, max_epochs=1, **SETTINGS)
    trainer.fit(recipe(folder / "teacher.pt"), episodes())
    trainer.test(recipe(folder / "teacher.pt"), episodes(), verbose=False)
    wandb.finish()
    assert (tmp_path / "runs" / "it" / "0" / "answers.test.npz").is_file()
    assert not [*tmp_path.rglob("*.wandb")]


@pytest.mark.thorough
def test_offline_runs_that_are_uploaded_later_have_the_same_lineage(folder, monkeypatch):
    without_account(monkeypatch, folder)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    fit, test = (folder / "runs" / name / "0" for name in ("it", "it.test"))
    with stand_in_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        for run in (fit, test):
            (offline,) = run.glob("wandb/offline-run-*")
            command = [sys.executable, "-m", "wandb", "sync", str(offline)]
            subprocess.run(command, check=True, capture_output=True, timeout=120, env=os.environ)
    of_fit, of_test = (offline_run(run).run.run_id for run in (fit, test))
    student = name_of(fit / "checkpoints" / "final.ckpt", "network")
    teacher = name_of(folder / "teacher.pt", "network")
    assert (of_fit, student) in server.made
    assert {run for run, name in server.made if name == student} == {of_fit}
    assert {*server.used} == {(of_fit, teacher), (of_test, teacher), (of_test, student)}
    number = next(n for (name, _), n in server.artifacts.items() if name == student)
    assert (
        server.uploads[f"{number}/network.ckpt"]
        == (fit / "checkpoints" / "final.ckpt").read_bytes()
    )
    assert server.runs[of_test]["groupName"] == "it"
    assert server.summaries[of_fit]["val/student_accuracy"].keys() == {"max", "last"}
