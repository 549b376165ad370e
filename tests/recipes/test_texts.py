"""Students of texts through the command: trained, kept with their vocabulary, tested on other texts."""

import csv
from pathlib import Path

import pytest

from lightning_metakd.models.reading import from_record
from tests.commands import checkpoint, written
from tests.data.sources.test_texts import WORDS

FORMS = (
    "my {} is late",
    "the {} was lost",
    "why is this {} so high",
    "no {} today",
    "a {} please",
    "{}?",
)
STUDENT = {
    "class_path": "BagOfEmbeddings",
    "init_args": {"width": 16, "hidden": 0, "n_tokens": 320},
}
TEACHER = {
    "class_path": "TextTransformer",
    "init_args": {"width": 8, "n_heads": 2, "n_tokens": 320},
}


def table(name, topics=WORDS):
    rows = [(form.format(topic), topic) for topic in topics for form in FORMS]
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return rows


def settings(path="texts.csv", **model):
    source = {"class_path": "Texts", "init_args": {"path": path, "n_tokens": 320}}
    episodes = {"n_way": 2, "k_shot": 2, "n_query": 2, "meta_batch_size": 2, "n_episodes": 4}
    return {
        "model": {
            "class_path": "MetaKD",
            "init_args": {"student": STUDENT, "learner": {"class_path": "ProtoNet"}, **model},
        },
        "data": {
            "class_path": "EpisodicData",
            "init_args": {"source": source, **episodes, "views": 2},
        },
        "trainer": {"max_steps": 2, "accelerator": "cpu", "limit_val_batches": 1},
    }


@pytest.fixture
def student(metakd, tmp_path):
    """A run that trained a student alone, beside the table of its texts."""
    rows = table("texts.csv")
    written(tmp_path, student=settings())
    metakd("fit", "--config", "student.yaml")
    return rows


def test_a_student_keeps_the_vocabulary_of_its_training_for_other_texts(student, metakd):
    vocabulary = from_record(checkpoint("student")["reading"])
    assert vocabulary.size <= 320
    table("others.csv", [topic[::-1] for topic in WORDS])
    run = metakd(
        *("test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt"),
        "--data.source.path=others.csv",
    )
    assert run.model.student.reading == vocabulary
    assert run.datamodule.source.vocabulary != vocabulary


def test_predictions_show_the_texts(student, metakd):
    metakd("predict", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    with Path("runs/student.predict/latest/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    assert all(student[int(row["row"])] == (row["text"], row["class"]) for row in rows)


@pytest.mark.thorough
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("shots", [1, 2])
def test_a_teacher_of_the_same_texts_teaches_live_and_from_stored_answers(
    cached, shots, metakd, tmp_path
):
    table("texts.csv")
    teachers = [
        {
            "class_path": "lightning_metakd.teachers.Teacher",
            "init_args": {"model": TEACHER, "cache": cached},
        }
    ]
    written(tmp_path, student=settings(teachers=teachers, loss={"class_path": "MatchGate"}))
    run = metakd("fit", "--config", "student.yaml", f"--data.k_shot={shots}")
    assert run.trainer.global_step == 2
    assert all(p.isfinite().all() for p in run.model.student.parameters())


@pytest.mark.usefixtures("student")
def test_a_live_teacher_of_other_tokens_is_refused_and_a_cached_one_is_not(metakd, tmp_path):
    table("others.csv", [topic[::-1] for topic in WORDS])
    teacher = {"model": STUDENT, "checkpoint": "runs/student/latest/checkpoints/final.ckpt"}
    teachers = [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": teacher}]
    student = settings("others.csv", teachers=teachers, loss={"class_path": "MatchGate"})
    written(tmp_path, student=student)
    with pytest.raises(
        ValueError, match=r"reads other tokens of Texts\(others.csv\) than the student"
    ):
        metakd("fit", "--config", "student.yaml")
    teacher["cache"] = True
    written(tmp_path, student=student)
    assert metakd("fit", "--config", "student.yaml").trainer.global_step == 2


def test_a_network_of_images_is_refused_for_texts_and_the_reverse(metakd, tmp_path):
    table("texts.csv")
    images = settings()
    images["model"]["init_args"]["student"] = {"class_path": "Conv4", "init_args": {"width": 4}}
    texts = settings()
    texts["data"]["init_args"]["source"] = {
        "class_path": "Synthetic",
        "init_args": {"per_class": 8},
    }
    written(tmp_path, images=images, texts=texts)
    for name, message in {
        "images": "do not fit in_channels=3 of Conv4",
        "texts": "BagOfEmbeddings reads texts, and the rows have mean=",
    }.items():
        with pytest.raises(ValueError, match=message):
            metakd("fit", "--config", f"{name}.yaml")


@pytest.mark.thorough
@pytest.mark.parametrize("learner", ["MAML", "Reptile", "Ridge"])
def test_other_learners_adapt_to_texts(learner, metakd, tmp_path):
    table("texts.csv")
    other = settings(learner={"class_path": learner})
    needs_head = learner != "Ridge"
    other["model"]["init_args"]["student"] = {
        **STUDENT,
        "init_args": {**STUDENT["init_args"], "n_classes": 2 if needs_head else 0},
    }
    written(tmp_path, other=other)
    assert metakd("fit", "--config", "other.yaml").trainer.global_step == 2
