"""Texts in files, from a table to a table."""

import csv

import numpy as np
import pytest
import torch

pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")

from lightning_metakd.classify.texts import TextFiles
from lightning_metakd.cli.classify_command import classify
from lightning_metakd.data.sources.text_rows import encode, tokens, trained_vocabulary
from lightning_metakd.export.onnx_file import network_graph, student_graph
from lightning_metakd.export.plan import Plan
from lightning_metakd.learners import ProtoNet
from lightning_metakd.models import BagOfEmbeddings

TEXTS = {
    "weather": ["will it rain today", "is it sunny outside", "rain or sunny tomorrow"],
    "music": ["play a song", "next song please", "play my music louder"],
}
ALL = [text for texts in TEXTS.values() for text in texts]
VOCABULARY = trained_vocabulary(ALL, 400, 12)
ABOUT = {"tokeniser": VOCABULARY.tokeniser, "pad": VOCABULARY.pad, "size": VOCABULARY.max_tokens}


def write_table(path, delimiter=",", texts=TEXTS, columns=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(text, name) for name, of_class in texts.items() for text in of_class]
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    return path


def test_tokens_are_those_of_the_training():
    reader = TextFiles(ABOUT)
    ours = np.stack([reader.tokens(text) for text in ALL])
    theirs = tokens(encode(ALL, VOCABULARY.max_tokens), VOCABULARY)
    width = theirs.shape[1]
    assert np.array_equal(ours[:, :width], theirs.numpy())
    assert (ours[:, width:] == VOCABULARY.pad).all()


def test_a_table_and_a_text_file_are_read(tmp_path):
    reader = TextFiles(ABOUT)
    for name, delimiter in (("it.csv", ","), ("it.tsv", "\t")):
        examples = reader.support(write_table(tmp_path / name, delimiter))
        assert {name: len(rows) for name, rows in examples.items()} == {"music": 3, "weather": 3}
    (tmp_path / "it.txt").write_text("play it\n\n rain \n")
    assert [row.name for row in reader.query(tmp_path / "it.txt", [])] == ["play it", "rain"]


def test_what_has_no_text_or_no_label_is_named(tmp_path):
    reader = TextFiles(ABOUT)
    (tmp_path / "it.csv").write_text("text,label\nplay,music\n,music\nrain,\n")
    assert list(reader.support(tmp_path / "it.csv")) == ["music"]
    assert "line 3 has no text" in reader.left_out[0]
    assert "'rain' has no label" in reader.left_out[1]
    with pytest.raises(ValueError, match="has the columns a, b; call that of the texts `text`"):
        reader.support(write_table(tmp_path / "other.csv", columns=("a", "b")))
    with pytest.raises(FileNotFoundError, match=r"query=.*nowhere.csv is no file"):
        list(reader.query(tmp_path / "nowhere.csv", []))


@pytest.mark.thorough
def test_a_student_of_texts_is_exported_and_classifies(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    student = BagOfEmbeddings(width=64, hidden=0, n_tokens=400).eval()
    torch.nn.init.normal_(student.tokens.weight)
    plan = Plan("adaptable", student, ProtoNet("cosine", 10.0), VOCABULARY, 12, 0, ())
    student.read_as(VOCABULARY, "it")
    graph = student_graph(plan, network_graph(plan), {})
    (tmp_path / "student.onnx").write_bytes(graph.SerializeToString())
    model, table = tmp_path / "student.onnx", write_table(tmp_path / "support.csv")
    classify(model, table, table, tmp_path / "out", teacher=model)
    text = capsys.readouterr().out
    assert "6 texts of 2 classes (music, weather) after 6 support texts" in text
    assert "both say the same of 6 of 6 texts" in text
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ALL
    assert all(row["class"] == row["label"] == row["teacher"] for row in rows)
