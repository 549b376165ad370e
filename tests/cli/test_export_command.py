"""`metakd export`, from a run to files and their card."""

import json
from pathlib import Path

import pytest
import torch

from lightning_metakd.cli.export_command import parted
from lightning_metakd.models import Conv4
from lightning_metakd.models.weights import load_weights
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from tests.commands import EPISODES, MAML, ONE_CPU, TEACHER, work_in, written

STUDENT = {
    "model": {
        "class_path": "MetaKD",
        "init_args": {
            "student": {"class_path": "Conv4", "init_args": {"width": 8, "pooling": "average"}},
            "learner": {
                "class_path": "ProtoNet",
                "init_args": {"metric": "cosine", "scale": 10.0, "learn_scale": True},
            },
            "norm": "tracked",
        },
    },
    "data": {"class_path": "EpisodicData", "init_args": EPISODES},
    "trainer": {**ONE_CPU, "max_epochs": 1, "limit_val_batches": 0},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A student, one that adapts by gradients, and a classifier, hardly trained."""
    from lightning_metakd.cli.command import main  # late: it imports the whole package

    folder = tmp_path_factory.mktemp("runs")
    written(folder, student=STUDENT, maml=MAML, teacher=TEACHER)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        main(["fit", "--config", "student.yaml"])
        main(["fit", "--config", "maml.yaml", "--trainer.max_epochs=1"])
        main(["fit", "--config", "teacher.yaml"])
    return folder


@pytest.fixture
def export(runs, monkeypatch, tmp_path):
    """The command on one of the runs; returns the folder of its files, and the card."""
    from lightning_metakd.cli.command import main  # late: it imports the whole package

    work_in(tmp_path, monkeypatch)

    def run(experiment, *words):
        checkpoint = runs / "runs" / experiment / "latest" / "checkpoints" / "final.ckpt"
        words = ["--ckpt_path", str(checkpoint), "--output", "it", "--episodes=20", *words]
        main(["export", *words])
        return Path("it"), json.loads(Path("it/student-card.json").read_text())

    return run


def test_words_of_the_experiment_are_told_from_those_of_the_command():
    words = ["--format", "onnx", "--data.k_shot=1", "--config", "a.yaml", "--head=none"]
    assert parted(words) == (
        ["--format", "onnx", "--head=none"],
        ["--data.k_shot=1", "--config", "a.yaml"],
    )


@pytest.mark.thorough
def test_a_student_is_exported_with_its_card(export, capsys):
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    folder, card = export("student", "--format", "onnx")
    results = card["results"]
    assert results["onnx"]["accuracy"] == pytest.approx(results["torch"]["accuracy"], abs=0.001)
    assert results["onnx"]["largest_difference"] < 1e-3
    assert results["onnx"]["cases"] == 20
    assert card["files"]["student.onnx"]["bytes"] == (folder / "student.onnx").stat().st_size
    assert card["cost"]["params"] > 1000
    assert {row["batch"] for row in card["latency"]} == {1, 64}
    assert (card["name"], card["training"]["seed"], card["training"]["steps"]) == ("student", 0, 3)
    page = (folder / "student-card.md").read_text()
    for words in ("# Student card: student", "onnxruntime, fp32", "Licences", "ProtoNet"):
        assert words in page
    assert str(Path.cwd()) not in page
    assert "onnx: accuracy" in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.thorough
def test_its_accuracy_is_that_of_the_test(export, metakd, runs):
    _, card = export("student", "--format", "safetensors")
    path = runs / "runs" / "student" / "latest" / "checkpoints" / "final.ckpt"
    run = metakd("test", "--ckpt_path", path, "--data.n_episodes=20")
    assert card["results"]["torch"]["accuracy"] == run.model.record.result["accuracy"]
    assert card["results"]["torch"]["ece"] == pytest.approx(run.model.record.result["ece"])


@pytest.mark.thorough
def test_weights_alone_are_what_another_training_begins_from(export):
    folder, card = export("student", "--format=safetensors")
    loaded = read_checkpoint(folder / "student.safetensors")
    student = Conv4(width=8, pooling="average")
    load_weights(student, loaded["state_dict"], "it")
    assert loaded["classes"]
    assert loaded["reading"]["mean"]
    assert list(card["files"]) == ["student.safetensors"]


@pytest.mark.thorough
@pytest.mark.parametrize("experiment", ["student", "teacher"])
def test_a_program_of_torch_says_what_the_student_says(export, experiment):
    folder, card = export(experiment, "--format=torch-export")
    assert card["results"]["torch-export"]["agreement"] > 0.99
    assert card["results"]["torch-export"]["largest_difference"] < 1e-3
    assert torch.export.load(folder / "student.pt2").module() is not None


@pytest.mark.thorough
def test_what_adapts_by_gradients_is_refused_and_goes_by_class_means(export):
    with pytest.raises(ValueError, match="learner=MAML adapts by gradients"):
        export("maml", "--format=safetensors")
    _, card = export("maml", "--format=safetensors", "--head=prototypes")
    assert card["head"] == "ProtoNet"
    assert 0 < card["results"]["torch"]["accuracy"] < 1


def test_a_student_must_be_named(monkeypatch, tmp_path):
    from lightning_metakd.cli.command import main  # late: it imports the whole package

    work_in(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="ckpt_path=null: name a checkpoint"):
        main(["export", "--format", "safetensors"])


@pytest.mark.thorough
def test_too_few_episodes_are_refused(export):
    with pytest.raises(ValueError, match=r"episodes=1 must be 2 or more"):
        export("student", "--episodes=1")
