"""A student in a few lines of Python."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_metakd import EpisodicData, MetaKD, SupervisedData, Trainer, distil, load
from lightning_metakd.cli.checkpoint_student import CheckpointStudent
from lightning_metakd.cli.front_door import main
from lightning_metakd.cli.student import Student
from lightning_metakd.data.sources import Synthetic
from lightning_metakd.data.sources.text_rows import trained_vocabulary
from lightning_metakd.learners import MAML, ProtoNet
from lightning_metakd.models import BagOfEmbeddings, Conv4
from tests.commands import MAML as MAML_CONFIG
from tests.commands import STUDENT, TEACHER, results, work_in, written

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "log_every_n_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of a teacher, a student that is taught, and one of MAML."""
    folder = tmp_path_factory.mktemp("runs")
    written(folder, teacher=TEACHER, student=STUDENT, maml=MAML_CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        for name in ("teacher", "student", "maml"):
            main(["fit", "--config", f"{name}.yaml"])
        for name in ("student", "maml"):
            checkpoint = f"runs/{name}/latest/checkpoints/final.ckpt"
            main(["test", "--ckpt_path", checkpoint, "--model.teachers=null"])
    return folder


def episodes(data):
    data.prepare_data()
    data.setup("test")
    yield from data.test_dataloader()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["student", "maml"])
def test_a_loaded_student_is_as_good_as_its_test_says(name, folder, monkeypatch):
    work_in(folder, monkeypatch)
    student = load(f"runs/{name}/latest/checkpoints/final.ckpt")
    data = EpisodicData(Synthetic(per_class=8), k_shot=2, n_query=4, n_episodes=7)
    scores = []
    for episode in episodes(data):
        student.fit(episode.support.x, episode.support.y.tolist())
        scores.append(student.score(episode.query.x, episode.query.y.tolist()))
    assert len(scores) == 7
    assert np.mean(scores) == pytest.approx(results(f"{name}.test")[-1]["accuracy"], abs=1e-9)


@pytest.mark.thorough
def test_loading_says_nothing_and_draws_nothing(folder, monkeypatch, capsys, caplog):
    work_in(folder, monkeypatch)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with caplog.at_level("INFO", "lightning"):
        load("runs/student/latest/checkpoints/final.ckpt")
    assert torch.equal(torch.rand(3), expected)
    assert "PL_GLOBAL_SEED" not in os.environ
    assert not caplog.records
    assert capsys.readouterr().out == ""


@pytest.mark.thorough
def test_a_student_of_a_single_task_adapts_by_class_means(folder, monkeypatch):
    work_in(folder, monkeypatch)
    student = load("runs/teacher/latest/checkpoints/final.ckpt")
    x, y, *_ = Synthetic(per_class=8).all_rows()
    names = ["a" if label == 0 else "b" for label in y[:16].tolist()]
    probabilities = student.fit(x[:16], names).predict_proba(x)
    assert student.classes_ == ["a", "b"]
    with torch.no_grad():
        e = student.network(student.inputs(x)).embedding
    means = torch.stack([e[:8].mean(0), e[8:16].mean(0)])
    cosines = torch.nn.functional.cosine_similarity(e[:, None], means[None], dim=-1)
    expected = (10 * cosines).softmax(-1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert student.predict(x[:3]).tolist() == ["ab"[i] for i in expected[:3].argmax(1)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["student", "maml"])
def test_photographs_are_classified_by_a_checkpoint(name, folder, tmp_path, monkeypatch, capsys):
    work_in(folder, monkeypatch)
    x, y, *_ = Synthetic(per_class=8).all_rows()
    pictures = {k: x[y == k] for k in range(5)}
    for k, of_class in pictures.items():
        for i, picture in enumerate(of_class.permute(0, 2, 3, 1).numpy()):
            place = tmp_path / ("support" if i < 2 else "query") / f"class {k}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{i}.png")
    checkpoint = f"runs/{name}/latest/checkpoints/final.ckpt"
    words = (f"--{what}={tmp_path / what}" for what in ("support", "query", "output"))
    main(["classify", f"--model={checkpoint}", f"--teacher={checkpoint}", *words])
    student = load(checkpoint).fit(
        torch.cat([p[:2] for p in pictures.values()]), np.repeat(np.arange(5), 2).tolist()
    )
    expected = student.predict(torch.cat([p[2:] for p in pictures.values()]))
    with (tmp_path / "output/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [f"class {k}" for k in expected]
    assert all(row["agreement"] == "1" for row in rows)
    rows = x[:3].numpy()
    with torch.no_grad():
        embedding = student.network(student.inputs(x[:3])).embedding
    np.testing.assert_array_equal(CheckpointStudent(Path(checkpoint)).embed(rows), embedding)
    right = np.mean(expected == np.repeat(np.arange(5), 6))
    assert f"accuracy {100 * right:.2f} % of 30 with a label" in capsys.readouterr().out


def test_texts_and_their_tokens_are_the_same_rows():
    vocabulary = trained_vocabulary(["how are you", "fine", "who"], 50, 6)
    recipe = MetaKD(BagOfEmbeddings(n_tokens=vocabulary.size), ProtoNet())
    recipe.student.read_as(vocabulary, "student")
    student, texts = Student(recipe), ["how are you", "fine"]
    tokens = student.inputs(texts)
    assert torch.equal(student.inputs(tokens), tokens)


def untrained(learner, **settings):
    recipe = MetaKD(
        Conv4(width=4, **settings), learner, norm="running" if settings == {} else "support"
    )
    recipe.student.read_as(Synthetic(per_class=8).reading(None), "student")
    return Student(recipe)


def test_pictures_arrays_and_tensors_are_the_same_images(tmp_path):
    x = Synthetic(per_class=8).all_rows().x[:8]
    arrays = x.permute(0, 2, 3, 1).numpy()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))
    student = untrained(ProtoNet()).fit(x, list("aabbccdd"))
    expected = student.predict_proba(x)
    for same in (arrays, list(arrays), paths, [Image.open(path) for path in paths], list(x)):
        np.testing.assert_array_equal(student.predict_proba(same), expected)


def test_what_cannot_be_adapted_to_is_refused():
    x = Synthetic(per_class=8).all_rows().x[:4]
    student = untrained(ProtoNet())
    with pytest.raises(
        RuntimeError, match=r"adapted to nothing; call fit\(examples, labels\) first"
    ):
        student.predict(x)
    with pytest.raises(ValueError, match="4 examples have 3 labels; give each one"):
        student.fit(x, "abc")
    with pytest.raises(ValueError, match="are one class; give examples of two at least"):
        student.fit(x, "aaaa")
    with pytest.raises(ValueError, match="examples are empty; give one at least"):
        student.fit(x, "aabb").predict(x[:0])
    with pytest.raises(ValueError, match=r"of 2 classes, and MAML tells 5 apart; give these many"):
        untrained(MAML(), n_classes=5).fit(x, "aabb")


def test_a_student_that_asks_a_teacher_is_refused():
    recipe = MetaKD(Conv4(width=4, n_classes=5), MAML(), teacher_at_test=False)
    recipe.teacher_at_test = True
    with pytest.raises(ValueError, match="asks a teacher while it adapts, and there is none here"):
        Student(recipe)


@pytest.mark.parametrize("single", [False, True])
def test_distil_trains_tests_and_keeps_what_the_command_does(single, tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    source, n = Synthetic(per_class=8), 64 if single else 0
    data = (
        SupervisedData(source, split="train", val_fraction=0.25)
        if single
        else EpisodicData(source, k_shot=2, n_query=4, n_episodes=3, steps_per_epoch=2)
    )
    teacher = Conv4(width=4, n_classes=n)
    teacher.read_as(source.reading(None), "teacher")
    student = distil(Conv4(width=4, n_classes=n), teacher, data, max_steps=2, **QUIET)
    (row,) = results("distil")
    assert row["recipe"] == ("SingleTask" if single else "MetaKD")
    assert row["loss"] == "MatchGate"
    assert row["train_steps"] == 2
    x = source.all_rows().x[:16]
    assert torch.tensor(student.fit(x, [0] * 8 + [1] * 8).predict_proba(x)).isfinite().all()


def test_a_single_task_has_no_learner():
    data = SupervisedData(Synthetic(per_class=8))
    with pytest.raises(
        ValueError, match="learner=ProtoNet adapts to episodes, and data=Supervised"
    ):
        distil(Conv4(n_classes=64), Conv4(n_classes=64), data, ProtoNet())


def test_the_student_is_that_of_a_trainer_of_ones_own(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    recipe = MetaKD(Conv4(width=4), ProtoNet())
    data = EpisodicData(Synthetic(per_class=8), k_shot=2, n_query=4, n_episodes=3)
    Trainer("own", max_steps=1, **QUIET).fit(recipe, data)
    x = Synthetic(per_class=8).all_rows().x[:4]
    assert set(Student(recipe).fit(x, [3, 3, 7, 7]).predict(x)) <= {3, 7}
