"""A stream through the command: one training a task, each begun from the one before."""

import json
from pathlib import Path

import pytest
import torch

from lightning_metakd.data import StreamData
from lightning_metakd.losses import Hinton, KnownClasses, KnownLabel, LogitMatching
from lightning_metakd.metrics import backward_transfer, forgetting, forward_transfer
from lightning_metakd.models.weights import head_for
from lightning_metakd.types import Batch, Context, Output
from tests.commands import checkpoint, written
from tests.tiny import Blobs, SmoothConv4

DATA = {
    "source": {"class_path": "tests.tiny.Blobs"},
    **{
        "tasks": 3,
        "test_fraction": 0.25,
        "memory_size": 24,
        "batch_size": 8,
        "memory_batch_size": 8,
    },
}


def network(tasks):
    """With a head for the classes of so many tasks."""
    arguments = {"n_classes": 4 * tasks, "width": 8}
    return {"class_path": "tests.tiny.SmoothConv4", "init_args": arguments}


def settings(task):
    init = {"optimisation": {"lr": 0.01}, "student": network(task + 1)}
    if task:
        last = f"runs/task{task - 1}/latest/checkpoints/final.ckpt"
        init |= {"initialisation": {"checkpoint": last}}
        head = {"class_path": "SlicedHead", "init_args": {"unknown": "mark"}}
        previous = {"model": network(task), "checkpoint": last, "head": head}
        init |= {
            "teachers": [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": previous}]
        }
        init |= {
            "loss": {
                "class_path": "WeightedSum",
                "init_args": {
                    "terms": {
                        "labels": {"class_path": "CrossEntropy"},
                        "previous": {
                            "class_path": "KnownClasses",
                            "init_args": {"loss": {"class_path": "LogitMatching"}},
                        },
                    },
                    "weights": {
                        "previous": {"class_path": "KnownLabel", "init_args": {"inside": 0.5}}
                    },
                },
            }
        }
    return {
        "model": {"class_path": "SingleTask", "init_args": init},
        "data": {"class_path": "StreamData", "init_args": {**DATA, "task": task}},
        "trainer": {
            "max_steps": 12,
            "log_every_n_steps": 2,
            "accelerator": "cpu",
            "callbacks": [{"class_path": "lightning_metakd.callbacks.Herding"}],
        },
    }


@pytest.fixture
def results(metakd, tmp_path):
    """Rows of the results after each of three tasks."""
    rows = []
    for task in range(3):
        written(tmp_path, **{f"task{task}": settings(task)})
        metakd("fit", "--config", f"task{task}.yaml", "--seed_everything=1")
        metakd("test", "--ckpt_path", f"runs/task{task}/latest/checkpoints/final.ckpt")
        lines = Path(f"runs/task{task}.test/latest/results.jsonl").read_text().splitlines()
        rows.append([json.loads(line) for line in lines])
    return rows


def by_hand(task, within):
    """Accuracy on each task so far, from the checkpoint, without the package's evaluation."""

    saved = checkpoint(f"task{task}")
    net = SmoothConv4(4 * (task + 1), width=8).eval()
    weights = {
        name.removeprefix("student."): t
        for name, t in saved["state_dict"].items()
        if name.startswith("student.")
    }
    net.load_state_dict(weights)
    source = Blobs()
    data = StreamData(source, **{k: v for k, v in DATA.items() if k != "source"}, task=task)
    accuracies = []
    for k in range(task + 1):
        rows = data.divisions[k]["test"]
        mean, std = saved["reading"]["mean"][0], saved["reading"]["std"][0]
        x = (source.all.x[rows].float() / 255 - mean) / std
        with torch.no_grad():
            logits = net(x).logits
        y = source.all.y[rows]
        if within:
            logits = logits[:, 4 * k : 4 * (k + 1)]
            y = y - 4 * k
        accuracies.append(float((logits.argmax(1) == y).double().mean()))
    return accuracies


@pytest.mark.thorough
def test_the_matrix_of_accuracies_is_that_of_a_loop_by_hand(results):
    for task, rows in enumerate(results):
        assert [row["domain"] for row in rows] == [f"task {k}" for k in range(task + 1)]
        assert [row["accuracy"] for row in rows] == pytest.approx(by_hand(task, within=False))
        assert [row["accuracy_within"] for row in rows] == pytest.approx(by_hand(task, within=True))
        assert all(row["accuracy_within"] >= row["accuracy"] for row in rows)
    memory = json.loads(Path("runs/task1/latest/memory.json").read_text())["rows"]
    assert len(memory) == 24  # of eight classes three each


def test_a_head_grows_by_names():
    state = {
        "conv.weight": torch.ones(2),
        "head.weight": torch.rand(2, 3),
        "head.bias": torch.rand(2),
    }
    present = {"head.weight": torch.zeros(3, 3), "head.bias": torch.zeros(3)}
    grown, fault = head_for(state, ["dog", "ant"], ["ant", "bee", "dog"], present)
    assert not fault
    assert grown["head.weight"][[2, 0]].equal(state["head.weight"])
    assert grown["head.bias"].tolist() == [state["head.bias"][1], 0, state["head.bias"][0]]
    assert not present["head.weight"].any()
    assert head_for(state, ["dog", "ant"], ["ant", "bee", "dog"], {}) == (state, "")


def test_a_head_with_untrained_classes_is_not_judged(metakd, tmp_path):
    written(tmp_path, task0=settings(0), task1=settings(1))
    metakd("fit", "--config", "task0.yaml")
    alone = ("--model.teachers=null", "--model.loss=null")
    with pytest.raises(ValueError, match="judged with a head that nobody has trained"):
        metakd("test", "--config", "task1.yaml", *alone)


def rows(columns=(True, False, True)):
    student, teacher = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    teacher = teacher.masked_fill(~torch.tensor(columns), -torch.inf)
    y = torch.tensor([0, 1, 2, 0, 1])
    output = Output(student, student)
    batch = Batch(student, y, y, y, (Output(teacher, teacher),))
    return output, batch, Context(y, torch.ones(()), output)


@pytest.mark.parametrize("loss", [Hinton(2.0), LogitMatching()])
def test_among_known_classes_a_loss_is_that_of_the_columns(loss):
    student, batch, context = rows()
    actual = KnownClasses(loss)(student, batch, context)
    columns = [0, 2]
    teacher = Output(batch.teacher_outputs[0].logits[:, columns], student.embedding)
    few = Output(student.logits[:, columns], student.embedding)
    expected = loss(few, batch._replace(teacher_outputs=(teacher,)), context)
    torch.testing.assert_close(actual, expected)
    everything = rows(columns=(True, True, True))
    assert KnownClasses(loss)(*everything).equal(loss(*everything))


def test_a_rule_tells_rows_of_known_classes():
    _, batch, context = rows()
    assert KnownLabel(0.5, 2.0)(batch, context).tolist() == [0.5, 2.0, 0.5, 0.5, 2.0]


AFTER = torch.tensor([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.5, 0.9, 0.6]], dtype=torch.float64)


def test_what_is_kept_and_carried_over():
    assert forgetting(AFTER) == pytest.approx((0.4 - 0.1) / 2)
    assert backward_transfer(AFTER) == pytest.approx((-0.4 + 0.1) / 2)
    assert forward_transfer(
        AFTER, torch.tensor([0.9, 0.7, 0.7], dtype=torch.float64)
    ) == pytest.approx(0.0)
