"""Every component in configs/ is built as its file says, and trains for a step."""

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_metakd.cli.command import import_everything
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import Model
from tests.commands import MAML, STUDENT, TEACHER, written
from tests.contracts.walk import configs, content

ABSTRACT = {"learner": Learner, "loss": Loss, "source": Source, "data": SourceData, "model": Model}
AT_LEAST = {
    "learner": 14,
    "loss": 20,
    "source": 7,
    "data": 5,
    "model": 23,
    "trainer": 4,
    "logger": 2,
}
DEAR = {"wrn_28_10", "resnet12", "resnet12_512", "resnet32x4"}  # built by tests/models
COMPONENTS = [(kind, path) for kind in ABSTRACT for path in configs(kind) if path.stem not in DEAR]


def built(kind, path):
    import_everything()
    parser = ArgumentParser()
    parser.add_argument("--it", type=ABSTRACT[kind])
    return parser.instantiate(parser.parse_object({"it": content(path)})).it


def parametrized(kind):
    return pytest.mark.parametrize("path", configs(kind), ids=lambda path: path.stem)


@pytest.mark.parametrize("kind", AT_LEAST)
def test_none_is_overlooked(kind):
    assert len(configs(kind)) >= AT_LEAST[kind]


@pytest.mark.parametrize(("kind", "path"), COMPONENTS, ids=[p.stem for _, p in COMPONENTS])
def test_a_component_is_what_its_file_says(kind, path):
    assert type(built(kind, path)).__name__ == content(path)["class_path"].rpartition(".")[2]
    assert path.read_text().startswith("# ")  # a line that says what it is
    assert set(content(path)) <= {"class_path", "init_args"}


@pytest.mark.thorough
@parametrized("learner")
def test_a_learner_trains(path, metakd, tmp_path):
    written(tmp_path, it=MAML)
    n_classes = 5 if built("learner", path).needs_head else 0
    run = metakd(
        *("fit", "--config", "it.yaml", f"--model.learner={path}", "--trainer.fast_dev_run=1"),
        *(f"--model.student.n_classes={n_classes}", "--data.meta_batch_size=1"),
    )
    assert type(run.model.learner).__name__ == content(path)["class_path"]
    assert run.trainer.global_step == 1


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint of a teacher that was trained on the 48 classes of its split."""
    from lightning_metakd.cli.command import main  # late: it imports the whole package

    folder = tmp_path_factory.mktemp("teacher")
    written(folder, teacher=TEACHER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["metakd"])
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, "0")
        main(["fit", "--config", "teacher.yaml", "--trainer.limit_train_batches=1"])
    return folder / "runs" / "teacher" / "0" / "checkpoints" / "final.ckpt"


@pytest.mark.thorough
@parametrized("loss")
def test_a_loss_teaches(path, teacher, metakd, tmp_path):
    """Among new classes in episodes; on a single task where known classes or single batches are needed."""
    place = tmp_path / "runs" / "teacher" / "latest" / "checkpoints"
    place.mkdir(parents=True)
    shutil.copy(teacher, place)
    sliced = {
        "model": {"class_path": "Conv4", "init_args": {"width": 4, "n_classes": 48}},
        "checkpoint": "runs/teacher/latest/checkpoints/final.ckpt",
        "head": {"class_path": "SlicedHead"},
    }
    loss = tmp_path / path.name  # this teacher has four channels
    loss.write_text(path.read_text().replace("channels: 64", "channels: 4"))
    single = {
        **TEACHER["model"]["init_args"],
        "teachers": [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": sliced}],
        "loss": str(loss),
    }
    single_task = {
        "model": {"class_path": "SingleTask", "init_args": single},
        "data": {
            "class_path": "SupervisedData",
            "init_args": {**TEACHER["data"]["init_args"], "quiz_fraction": 0.125},
        },
    }
    student = deepcopy(STUDENT)
    if "two_teachers" in path.stem:
        student["model"]["init_args"]["teachers"] *= 2
    written(tmp_path, student=student, single=single_task)
    strategies = any("Learn" in line for line in path.read_text().splitlines() if "#" not in line)
    rate = f"--model.strategy_training.lr={0.01 if strategies else 0.0}"
    if "per_class" in path.stem or path.stem == "learning_to_reweight":
        words = ["--config", "single.yaml", rate, "--model.optimisation.strategy_optimiser=sgd"]
    else:
        words = ["--config", "student.yaml", rate, f"--model.loss={loss}", "--data.n_query=2"]
    run = metakd("fit", *words, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu")
    assert type(run.model.loss).__name__ == content(path)["class_path"].rpartition(".")[2]
    assert run.trainer.global_step == 1
    assert any(p.requires_grad for p in run.model.loss.parameters()) == strategies
    assert (run.model.coefficient_log.values != {}) == (path.stem != "cross_entropy")


@pytest.mark.thorough
@parametrized("data")
def test_data_trains_a_student(path, metakd, tmp_path):
    episodic = "Episodic" in content(path)["class_path"]
    classes = 48 if content(path)["init_args"].get("split") == "teacher" else 64
    written(tmp_path, it=MAML if episodic else TEACHER)
    words = [] if episodic else [f"--model.student.n_classes={classes}"]
    written(
        tmp_path, it={key: (MAML if episodic else TEACHER)[key] for key in ("model", "trainer")}
    )
    run = metakd(
        *("fit", "--config", "it.yaml", f"--data={path}", "--data.source.per_class=20", *words),
        "--trainer.fast_dev_run=1",
    )
    assert run.trainer.global_step == 1
    assert not Path("runs").exists()
