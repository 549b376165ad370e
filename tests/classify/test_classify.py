"""Photographs of one's own, from folders to a table and pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_metakd.classify.onnx_student import KEY, OnnxStudent
from lightning_metakd.cli.classify_command import classify
from lightning_metakd.learners import Logistic, ProtoNet, Ridge
from tests.classify.photographs import COLOURS, class_folders, photograph, plant_oddities, table

pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnx", reason="the extra 'export' is not installed")

from tests.export.graphs import SIZE, write_colour_student

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return write_colour_student(tmp_path_factory.mktemp("student") / "student.onnx")


@pytest.fixture
def support(tmp_path):
    return class_folders(tmp_path / "support")


@pytest.mark.parametrize(
    "learner", [ProtoNet(), Ridge(), Logistic()], ids=lambda x: type(x).__name__
)
def test_pictures_go_to_the_class_of_their_colour(learner, support, tmp_path, capsys):
    model = write_colour_student(tmp_path / "student.onnx", learner=learner)
    class_folders(tmp_path / "query", per_class=3)
    classify(model, tmp_path / "query", support, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [row["file"] for row in rows[:2]] == ["blue/0.jpg", "blue/1.jpg"]
    assert all(row["class"] == row["label"] == row["file"].split("/")[0] for row in rows)
    assert all(row["runner_up"] != row["class"] for row in rows)
    assert all(float(row["probability"]) >= float(row["runner_up_probability"]) for row in rows)
    text = capsys.readouterr().out
    assert "9 pictures of 3 classes (blue, green, red) after 6 support pictures" in text
    assert "accuracy 100.00 % of 9 with a label (9 right)" in text
    for name in ("contact_sheet.png", "confusion.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size[0] > 100


def test_pictures_without_labels_are_classified_and_not_judged(student, support, tmp_path, capsys):
    (tmp_path / "query").mkdir()
    photograph(COLOURS["green"], 5).save(tmp_path / "query" / "a.png")
    (tmp_path / "query" / "holiday").mkdir()
    photograph(COLOURS["red"], 5).save(tmp_path / "query" / "holiday" / "b.webp")
    classify(student, tmp_path / "query", support, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [(row["file"], row["class"]) for row in rows] == [
        ("a.png", "green"),
        ("holiday/b.webp", "red"),
    ]
    assert "label" not in rows[0]
    assert "accuracy" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "confusion.png").exists()


def test_a_folder_of_odd_pictures_is_classified_but_for_what_is_none(
    student, support, tmp_path, capsys
):
    good, bad = plant_oddities(tmp_path / "query" / "red")
    (support / "empty class").mkdir()
    plant_oddities(support / "red")
    classify(student, tmp_path / "query", support, tmp_path / "out")
    rows = {row["file"].split("/")[1]: row["class"] for row in table(tmp_path / "out")}
    assert sorted(rows) == good
    assert {name: c for name, c in rows.items() if c != "red"}.keys() <= {
        "16 bit.png"
    }  # a grey one
    left_out = (tmp_path / "out" / "left_out.txt").read_text()
    for name in bad:
        assert left_out.count(f"/{name}: ") == 2  # of support and of query
    assert "class 'empty class' has no picture that can be read" in left_out
    assert capsys.readouterr().err.count("left out: ") == 9


def test_more_pictures_than_fit_at_once_are_classified_alike(
    student, support, tmp_path, monkeypatch
):
    class_folders(tmp_path / "query", per_class=4)
    classify(student, tmp_path / "query", support, tmp_path / "out")
    monkeypatch.setattr("lightning_metakd.classify.classify.CHUNK", 5)
    classify(student, tmp_path / "query", support, tmp_path / "again")
    assert table(tmp_path / "out") == table(tmp_path / "again")


def test_a_single_file_is_classified(student, support, tmp_path):
    photograph(COLOURS["blue"], 9).save(tmp_path / "it.png")
    classify(student, tmp_path / "it.png", support, tmp_path / "out")
    (row,) = table(tmp_path / "out")
    assert (row["file"], row["class"]) == ("it.png", "blue")


def test_one_class_alone_is_no_choice(student, tmp_path):
    class_folders(tmp_path / "support", classes={"red": COLOURS["red"]})
    with pytest.raises(ValueError, match=r"has the class 'red' alone .* a choice needs two"):
        classify(student, tmp_path / "support", tmp_path / "support", tmp_path / "out")


def test_an_empty_query_is_named(student, support, tmp_path):
    (tmp_path / "query").mkdir()
    with pytest.raises(ValueError, match=r"query=.* holds no picture"):
        classify(student, tmp_path / "query", support, tmp_path / "out")


def test_a_student_and_a_support_set_must_go_together(student, support, tmp_path):
    with pytest.raises(ValueError, match=r"support=null: .* adapts to classes of yours"):
        classify(student, support)
    features = write_colour_student(tmp_path / "features.onnx", kind="features")
    with pytest.raises(ValueError, match="feature extractor without classes"):
        classify(features, support)
    names = ["a", "b", "c"]
    fixed = write_colour_student(tmp_path / "fixed.onnx", kind="classifier", classes=names)
    with pytest.raises(ValueError, match="3 fixed classes apart"):
        classify(fixed, support, support)


def test_a_classifier_needs_no_support(support, tmp_path):
    names = ["reddish", "greenish", "bluish"]
    model = write_colour_student(tmp_path / "it.onnx", kind="classifier", classes=names)
    classify(model, support, output=tmp_path / "out")
    assert {row["class"] for row in table(tmp_path / "out")} <= set(names)


def test_a_file_that_is_no_student_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model=.*none.onnx does not exist"):
        OnnxStudent(tmp_path / "none.onnx")
    (tmp_path / "it.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="is no ONNX file that onnxruntime reads"):
        OnnxStudent(tmp_path / "it.onnx")


@pytest.mark.parametrize("about", [None, "{", "[1]", json.dumps({"kind": "adaptable"})])
def test_a_graph_of_somebody_else_is_named(about, student, tmp_path):
    import onnx  # optional

    graph = onnx.load(student)
    del graph.metadata_props[:]
    if about is not None:
        onnx.helper.set_model_props(graph, {KEY: about})
    onnx.save(graph, tmp_path / "it.onnx")
    with pytest.raises(ValueError, match="does not say how it reads pictures"):
        OnnxStudent(tmp_path / "it.onnx")


def test_a_student_of_a_later_kind_is_named(student, tmp_path):
    import onnx  # optional

    graph = onnx.load(student)
    about = {**OnnxStudent(student).about, "kind": "oracle"}
    onnx.helper.set_model_props(graph, {KEY: json.dumps(about)})
    onnx.save(graph, tmp_path / "it.onnx")
    with pytest.raises(ValueError, match=r"of the kind 'oracle' .* export it anew"):
        OnnxStudent(tmp_path / "it.onnx")


def test_a_student_says_what_it_reads(student):
    reader = OnnxStudent(student)
    assert (reader.kind, reader.size, reader.mode) == ("adaptable", SIZE, "RGB")
    images = np.zeros((3, 3, SIZE, SIZE), np.uint8)
    assert reader.adapt_and_predict(images, np.arange(3), images[:2]).shape == (2, 3)


ALONE = """
import sys

AWAY = ("torch", "lightning", "torchvision", "pytorch_lightning", "torchmetrics", "safetensors")
AWAY += ("jaxtyping", "wandb", "tqdm", "shtab", "onnx", "onnxscript", "scipy", "sklearn")

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in AWAY:  # docs/export.md says what has to be there
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from lightning_metakd.cli.front_door import console
console()
assert not {"torch", "lightning"} & {name.partition(".")[0] for name in sys.modules}
"""


def test_a_process_with_few_packages_classifies(student, support, tmp_path):
    options = {"model": student, "support": support, "query": support, "output": tmp_path / "out"}
    words = [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.run(
        [sys.executable, "-c", ALONE, "classify", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "accuracy 100.00 % of 6" in process.stdout
    assert len(table(tmp_path / "out")) == 6
