"""A teacher that knows classes by their names."""

import json
from pathlib import Path

import pytest
import torch

from lightning_metakd.data.sources.text_rows import trained_vocabulary
from lightning_metakd.models import BagOfEmbeddings
from lightning_metakd.teachers import NameHead, Teacher
from lightning_metakd.teachers.name_head import readable
from lightning_metakd.types import Batch
from tests.commands import written
from tests.tiny import Blobs, SmoothConv4

NAMES = ("grey cat", "grey dog", "red car", "red lorry")


class Reader(BagOfEmbeddings):
    """A network that reads texts, untrained."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(width=8, hidden=0, n_tokens=300)
        self.reading = trained_vocabulary(NAMES, 300, 8)


class Named(Blobs):
    """Blobs of twenty names."""

    def __init__(self):
        super().__init__()
        colours, kinds = ("red", "green", "blue", "grey"), ("cat", "dog", "car", "lorry", "house")
        names = tuple(f"{colour}_{kind}" for colour in colours for kind in kinds)
        self.all = self.all._replace(class_names=names)


def test_a_row_is_answered_by_how_its_class_stands_to_the_others():
    teacher, source = Teacher(Reader(), head=NameHead(scale=4.0)), Named()
    teacher.attach_source(source)
    classes = torch.tensor([7, 2, 19])
    embedding = torch.nn.functional.normalize(
        teacher.model(teacher.typical_inputs()[classes]).embedding
    )
    expected = 4.0 * embedding @ embedding.T
    rows = [torch.nonzero(source.all.y == c)[0] for c in classes]
    index = torch.cat(rows)
    batch = Batch(torch.rand(3, 1, 8, 8), torch.arange(3), index, torch.full((3,), -1))
    for output in teacher.predict_episode(batch, batch, classes):
        torch.testing.assert_close(output.logits, expected)
        assert output.logits.argmax(1).tolist() == [0, 1, 2]


def test_similar_names_are_similar_classes():
    teacher = Teacher(Reader(), head=NameHead())
    teacher.attach_source(Named())
    e = torch.nn.functional.normalize(teacher.head.embedding)
    cosine = dict(zip(Named().all.class_names, e @ e[0], strict=True))  # to the red cat
    assert cosine["red_dog"] > cosine["green_lorry"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["n01532829", "n01558993", "cat"], "of these 'n01532829' has no word; rename the classes"),
        (["class 1", "class 2"], "of these 2 are called 'class' but for numbers; rename"),
    ],
)
def test_names_that_say_nothing_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        readable(names, "Folder(pictures)")


def test_a_network_that_reads_no_texts_is_refused():
    teacher = Teacher(SmoothConv4(0), head=NameHead())
    with pytest.raises(
        ValueError, match="the teacher's model SmoothConv4 reads no texts; give it a"
    ):
        teacher.attach_source(Named())


def test_it_teaches_beside_another_and_is_not_judged(metakd, tmp_path):
    """The weights of both are learned; the accuracy of the teacher is that of the one that sees."""
    path = "tests.teachers.test_name_head"
    teachers = [
        {"model": {"class_path": f"{path}.Reader"}, "head": {"class_path": "NameHead"}},
        {"model": {"class_path": "tests.tiny.SmoothConv4", "init_args": {"n_classes": 0}}},
    ]
    teacher_class = "lightning_metakd.teachers.Teacher"
    weights = [{"class_path": "Learned"}] * 2
    both = {"loss": {"class_path": "Hinton"}, "weights": weights}
    match = {"class_path": "MultiTeacher", "init_args": both}
    model = {
        "student": {"class_path": "tests.tiny.SmoothConv4", "init_args": {"n_classes": 0}},
        "learner": {"class_path": "ProtoNet"},
        "loss": {"class_path": "MatchGate", "init_args": {"gate": 0.5, "match": match}},
        "teachers": [{"class_path": teacher_class, "init_args": args} for args in teachers],
        "strategy_training": {"lr": 0.1},
    }
    episodes = {"n_way": 3, "k_shot": 1, "n_query": 2, "n_episodes": 3, "meta_batch_size": 2}
    source = {"class_path": f"{path}.Named"}
    it = {
        "model": {"class_path": "MetaKD", "init_args": model},
        "data": {"class_path": "EpisodicData", "init_args": {"source": source, **episodes}},
        "trainer": {"max_steps": 2, "accelerator": "cpu"},
    }
    written(tmp_path, it=it)
    run = metakd("fit", "--config", "it.yaml")
    assert all(p.abs().max() > 0 for p in run.model.loss.match.parameters())  # they moved
    metakd("test", "--ckpt_path", "runs/it/latest/checkpoints/final.ckpt")
    (row,) = map(json.loads, Path("runs/it.test/latest/results.jsonl").read_text().splitlines())
    assert row["teacher_accuracy"] < 1
