"""Output caches that the command `metakd precompute` makes, and what it says."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from lightning_metakd.cli import command
from lightning_metakd.data.sources.synthetic import Synthetic
from tests.commands import MAML, STUDENT, TEACHER, fresh, work_in, written

SAID = (
    r"Conv4: 288 images as they are and 512 images in 2 views, "
    r"kept in (\S+) \(0\.\d MiB, \d+\.\d s\)"
)
DATA = {**STUDENT["data"]["init_args"], "views": 2}
TWO_VIEWS = {**STUDENT, "data": {"class_path": "EpisodicData", "init_args": DATA}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained teacher, and no cache."""
    folder = tmp_path_factory.mktemp("trained")
    written(folder, teacher=TEACHER, student=TWO_VIEWS, maml=MAML)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        command.main(["fit", "--config", "teacher.yaml", "--trainer.limit_train_batches=1"])
    return folder


@pytest.fixture
def folder(trained, tmp_path, as_users_run_it):
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.thorough
def test_fit_and_test_find_all_that_they_ask(metakd, folder, capsys):
    metakd("precompute", "--config", "student.yaml")
    (place,) = re.fullmatch(SAID, capsys.readouterr().out.strip()).groups()
    stored = {path: path.stat().st_mtime_ns for path in Path(place).glob("*.safetensors")}
    names = ["view-1.safetensors", "view0.safetensors", "view1.safetensors"]
    assert sorted(path.name for path in stored) == names
    assert not Path("runs/student").exists()
    run = metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    metakd("test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    assert run.model.teachers[0].output_cache.folder == Path(place)
    assert {path: path.stat().st_mtime_ns for path in Path(place).glob("*.safetensors")} == stored


@pytest.mark.thorough
def test_a_user_reads_one_sentence_of_each_teacher(folder):
    process = fresh(
        folder, "precompute", "--config", "student.yaml", METAKD_CACHE=str(folder / "cache")
    )
    assert process.returncode == 0, process.stderr
    assert re.fullmatch(SAID, process.stdout.strip())
    (line,) = process.stderr.splitlines()
    assert "the head was not loaded" in line


@pytest.mark.thorough
def test_an_embedded_source_is_embedded_too(metakd, folder, capsys):
    inner = {"class_path": "Conv4", "init_args": {"width": 4, "pooling": "average"}}
    source = {
        "class_path": "Embedded",
        "init_args": {"source": {"class_path": "Synthetic", "init_args": {"per_class": 8}}},
    }
    source["init_args"] |= {"model": inner, "views": 2}
    student = {
        "class_path": "lightning_metakd.models.mlp.MLP",  # torchvision has one too
        "init_args": {"width_in": 4, "widths": [8], "residual": True},
    }
    settings = {
        "trainer": STUDENT["trainer"],
        "model": {
            "class_path": "MetaKD",
            "init_args": {**STUDENT["model"]["init_args"], "student": student},
        },
        "data": {
            "class_path": "EpisodicData",
            "init_args": {**DATA, "source": source},
        },
    }
    written(folder, student=settings)
    metakd("precompute", "--config", "student.yaml")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Synthetic embedded by Conv4: 800 images in 3 views, kept in ")
    assert re.fullmatch(SAID, second)
    run = metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    assert run.model.teachers[0].output_cache.source is run.datamodule.source.image_source
    assert type(run.datamodule.source.image_source) is Synthetic
    x = run.datamodule.source.all_rows().x
    assert x.shape == (800, 3, 4)
    assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["maml.yaml"], "model.teachers is empty, .* name a teacher with cache: true"),
        (
            ["student.yaml", "--model.teachers.cache=false"],
            "cache=false for all 1 teachers, .* set",
        ),
        (["student.yaml", "--data.views=null"], "data.views=null draws a new view each time"),
    ],
)
def test_what_cannot_be_stored_is_told(words, message, metakd, folder):
    with pytest.raises(ValueError, match=message):
        metakd("precompute", "--config", *words)
    assert not (folder / "cache" / "outputs").exists()


def test_a_typo_is_named(metakd, folder, capsys):
    with pytest.raises(SystemExit):
        metakd("precompute", "--config", "student.yaml", "--data.n_wayy=3")
    text = capsys.readouterr().err
    assert "data.n_wayy is no setting of EpisodicData; the nearest is n_way." in text
