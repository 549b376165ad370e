"""A teacher whose answers stand beside those of a student."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnx", reason="the extra 'export' is not installed")

from lightning_metakd.classify.onnx_student import KEY, OnnxStudent
from lightning_metakd.cli.classify_command import classify
from lightning_metakd.learners import ProtoNet, Ridge
from tests.classify.photographs import class_folders, photograph, plant_oddities, table
from tests.export.graphs import write_colour_student

SWAPPED = ["green", "blue", "red"]
"""The class whose name a classifier gives to a picture that is red, green, blue."""


@pytest.fixture
def student(tmp_path):
    return write_colour_student(tmp_path / "student.onnx")


@pytest.fixture
def classifier(tmp_path):
    """One of fixed classes, which is right for none of the three colours."""
    return write_colour_student(tmp_path / "it.onnx", kind="classifier", classes=SWAPPED)


@pytest.fixture
def support(tmp_path):
    return class_folders(tmp_path / "support")


def test_its_answers_are_those_that_it_gives_alone(student, support, tmp_path, capsys):
    teacher = write_colour_student(tmp_path / "teacher.onnx", learner=ProtoNet("cosine", 0.01))
    class_folders(tmp_path / "query", per_class=3)
    photograph((90, 90, 90), 4).save(tmp_path / "query" / "it.png")
    classify(teacher, tmp_path / "query", support, tmp_path / "alone")
    capsys.readouterr()
    classify(student, tmp_path / "query", support, tmp_path / "out", teacher)
    for row, alone in zip(table(tmp_path / "out"), table(tmp_path / "alone"), strict=True):
        assert (row["teacher"], row["teacher_probability"]) == (
            alone["class"],
            alone["probability"],
        )
        assert row["agreement"] == str(int(row["class"] == row["teacher"]))
        assert row["probability"] != row["teacher_probability"]
    text = capsys.readouterr().out
    assert "accuracy 100.00 % of 9 with a label (9 right), the teacher's 100.00 % (9 right)" in text


def test_a_teacher_of_fixed_classes_may_disagree(student, classifier, support, tmp_path, capsys):
    classify(student, support, support, tmp_path / "out", classifier)
    names = dict(zip(["red", "green", "blue"], SWAPPED, strict=True))
    for row in table(tmp_path / "out"):
        assert (row["class"], row["teacher"]) == (row["label"], names[row["label"]])
        assert row["agreement"] == "0"
    text = capsys.readouterr().out
    assert "(6 right), the teacher's 0.00 % (0 right); both say the same of 0 of 6" in text


def test_what_it_says_without_labels_is_agreement_alone(student, support, tmp_path, capsys):
    (tmp_path / "query").mkdir()
    plant_oddities(tmp_path / "query")
    teacher = write_colour_student(tmp_path / "teacher.onnx", learner=Ridge())
    classify(student, tmp_path / "query", support, tmp_path / "out", teacher)
    captured = capsys.readouterr()
    assert "right" not in captured.out
    n = len(table(tmp_path / "out"))
    assert f"of {n} pictures\n" in captured.out
    assert captured.err.count("left out: ") == 4  # each file once
    assert "label" not in table(tmp_path / "out")[0]


def test_a_student_of_fixed_classes_has_an_adaptable_teacher(
    student, classifier, support, tmp_path
):
    classify(classifier, support, support, tmp_path / "out", student)
    assert all(row["teacher"] == row["label"] for row in table(tmp_path / "out"))


def test_pictures_are_those_of_the_student_alone(student, classifier, support, tmp_path):
    classify(student, support, support, tmp_path / "alone")
    classify(student, support, support, tmp_path / "out", classifier)
    for name in ("contact_sheet.png", "confusion.png"):
        a, b = (Image.open(tmp_path / folder / name) for folder in ("alone", "out"))
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_a_teacher_that_cannot_answer_is_named(student, support, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"teacher=.*none.onnx does not exist"):
        classify(student, support, support, out, tmp_path / "none.onnx")
    features = write_colour_student(tmp_path / "features.onnx", kind="features")
    with pytest.raises(ValueError, match=r"teacher=.*features.onnx is a feature extractor"):
        classify(student, support, support, out, features)
    two = write_colour_student(
        tmp_path / "two.onnx", kind="classifier", classes=["red", "x", "blue"]
    )
    with pytest.raises(ValueError, match=r"teacher=.*two.onnx does not know green, which"):
        classify(student, support, support, out, two)
    with pytest.raises(ValueError, match=r"support=null: teacher=.*student.onnx adapts"):
        classify(two, support, output=out, teacher=student)
    with pytest.raises(ValueError, match="3 fixed classes apart and adapts to no others"):
        classify(two, support, support, out, two)
    assert not out.exists()


def test_a_teacher_of_texts_does_not_judge_pictures(student, support, tmp_path):
    import onnx  # optional

    graph = onnx.load(student)
    about = json.dumps({**OnnxStudent(student).about, "mode": "text"})
    onnx.helper.set_model_props(graph, {KEY: about})
    onnx.save(graph, tmp_path / "texts.onnx")
    with pytest.raises(ValueError, match=r"teacher=.* reads texts, and model=.* pictures"):
        classify(student, support, support, tmp_path / "out", tmp_path / "texts.onnx")


def test_weights_alone_are_refused(student, support, tmp_path):
    (tmp_path / "final.pt").write_bytes(b"it")
    with pytest.raises(ValueError, match=r"model=.*final.pt has weights alone.*the .ckpt of a run"):
        classify(tmp_path / "final.pt", support, support)
    with pytest.raises(ValueError, match=r"teacher=.*final.pt has weights alone"):
        classify(student, support, support, teacher=tmp_path / "final.pt")
