"""A stream of tasks, and its memory."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from lightning_metakd.data import StreamData
from lightning_metakd.data.memory import herd, reservoir
from lightning_metakd.data.sources import Mixture
from tests.data.sources.test_mixture import Others
from tests.tiny import Blobs

SETTINGS = {"tasks": 3, "test_fraction": 0.25, "memory_size": 20, "batch_size": 8}


def stream(source=None, **settings):
    return StreamData(source or Blobs(), **{**SETTINGS, **settings})


def test_classes_arrive_group_after_group():
    tasks = [stream(task=k) for k in range(3)]
    new = [data.stream[data.task].tolist() for data in tasks]
    assert new == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [len(data.train_classes()) for data in tasks] == [4, 8, 12]
    y = Blobs().all.y
    for data, classes in zip(tasks, new, strict=True):
        assert y[data.parts["train"]].unique().tolist() == classes
        assert y[data.parts["test"]].unique().tolist() == data.train_classes().tolist()
        assert list(data.groups()) == [f"task {k}" for k in range(data.task + 1)]
    shuffled = stream(class_seed=1).stream
    assert sorted(torch.cat(shuffled).tolist()) == list(range(12))
    assert [group.tolist() for group in shuffled] != new


@pytest.mark.parametrize("task", [0, 1, 2])
def test_nothing_that_is_trained_on_is_tested_on_and_the_memory_keeps_its_bound(task):
    data, y = stream(task=task, quiz_fraction=0.25), Blobs().all.y
    parts = data.parts
    rows = torch.cat(list(parts.values()))
    assert len(rows.unique()) == len(rows)
    assert len(parts["memory"]) + len(parts["quiz"]) == (20 if task else 0)
    old = torch.cat(data.stream[:task]) if task else torch.tensor([])
    assert torch.isin(y[torch.cat([parts["memory"], parts["quiz"]])], old).all()
    assert data.has_quiz == (task > 0)


def test_a_row_that_was_forgotten_does_not_come_back():
    one, two = (set(stream(task=k).parts["memory"].tolist()) for k in (1, 2))
    earlier = set(stream(task=1).parts["train"].tolist())
    assert two <= one | earlier
    assert two & one
    assert two & earlier


def test_a_reservoir_is_a_sample_of_all_rows_so_far():
    counts = torch.zeros(100)
    for seed in range(400):
        counts[reservoir(torch.arange(100), 25, seed)] += 1
    assert (counts / 400 - 0.25).abs().max() < 0.1
    assert reservoir(torch.arange(100), None, 0).equal(torch.arange(100))


def test_without_bound_all_rows_are_kept_as_joint_training_has_them():
    data = stream(task=2, memory_size=None)
    everything = [stream(task=k, memory_size=0).parts["train"] for k in range(2)]
    assert data.parts["memory"].equal(torch.cat(everything).sort().values)
    assert len(stream(task=2, memory_size=0).parts["memory"]) == 0


def test_a_batch_has_rows_of_the_task_and_behind_them_of_the_memory():
    data = stream(task=1, memory_batch_size=5)
    data.trainer = None
    batch = next(iter(data.train_dataloader())).train
    y = Blobs().all.y[batch.index]
    assert len(batch.y) == 8 + 5
    assert torch.isin(y[:8], data.stream[1]).all()
    assert torch.isin(y[8:], data.stream[0]).all()
    assert data.train_classes()[batch.y].equal(y)
    again = next(iter(stream(task=1, memory_batch_size=5).train_dataloader())).train
    assert again.x.equal(batch.x)
    assert again.view.equal(batch.view)


def test_alone_a_task_has_its_own_classes_and_no_memory():
    data = stream(task=2, alone=True)
    assert data.train_classes().equal(data.stream[2])
    assert not len(data.parts["memory"])
    assert list(data.groups()) == ["task 2"]


def test_domains_come_in_turn():
    data = stream(Mixture({"blobs": Blobs(), "others": Others()}), tasks="domains", task=1)
    assert [len(group) for group in data.stream] == [12, 12]
    assert data.stream[1].min() > data.stream[0].max()


def naive_herd(e, most):
    e = normalize(e, dim=1)
    rows = []
    while len(rows) < most:
        costs = {
            i: float((e.mean(0) - e[[*rows, i]].mean(0)).norm())
            for i in range(len(e))
            if i not in rows
        }
        rows.append(min(costs, key=costs.get))
    return rows


def test_herding_follows_the_mean_row_by_row():
    e = torch.randn(12, 4, dtype=torch.float64)
    assert herd(e, 5).tolist() == naive_herd(e, 5)
    assert sorted(herd(e, 99).tolist()) == list(range(12))


def test_a_memory_that_was_chosen_is_read_and_checked(tmp_path):
    file = tmp_path / "memory.json"
    past = stream(task=0).parts["train"][:6].tolist()
    file.write_text(json.dumps({"rows": past}))
    data = stream(task=1, memory_file=str(file))
    assert data.parts["memory"].tolist() == past
    file.write_text(json.dumps({"rows": [239]}))
    with pytest.raises(ValueError, match="keeps rows that are not of earlier tasks"):
        _ = stream(task=1, memory_file=str(file)).parts
    file.write_text(json.dumps({"rows": stream().parts["train"].tolist()}))
    with pytest.raises(ValueError, match="keeps 36 rows, more than memory_size=20"):
        _ = stream(task=1, memory_file=str(file)).parts
    file.write_text("{")
    with pytest.raises(ValueError, match="is no memory"):
        _ = stream(task=1, memory_file=str(file)).parts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 13}, "tasks=13 exceeds the 12 classes of split 'train' in Blobs"),
        ({"task": 3}, "task=3 is not in a stream of 3 tasks"),
        ({"tasks": [["blob 1"], ["nobody"]]}, "tasks names 'nobody', which is no class of split"),
        ({"tasks": [["blob 1"], ["blob 1"]]}, "tasks lists a class twice"),
        ({"test_fraction": 0.0}, "task 0 of Blobs has no test rows: .* set data.test_fraction"),
        (
            {"task": 2, "memory_size": 5},
            "memory_size=5 has no room for a row of each of the 8 classes",
        ),
    ],
)
def test_a_stream_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        _ = stream(**settings).parts
