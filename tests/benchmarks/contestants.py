"""Other libraries, where they implement the same, find the same meta-gradients in double precision.

A library that is imported brings classes of the same names as ours, which a configuration could then mean: so
these tests run in a process of their own, see test_contestants.py.
"""

import importlib.util
import json

import pytest
import torch

from benchmarks import data
from benchmarks.contestants import LEARNERS, Setting, episodes, ours
from benchmarks.peers import PEERS
from benchmarks.plain_conv4 import its_name
from lightning_metakd.functional.bind import bind
from lightning_metakd.functional.params import with_prefix

PAIRS = [(algorithm, peer) for algorithm in PEERS for peer in PEERS[algorithm]]
NOT_SQUARED = ("protonet", "easyfsl")


def needs(peer: str) -> None:
    if peer != "plain PyTorch" and importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed; `make peers` installs what can be")


def gradient(contestant, tasks):
    contestant.step(tasks)
    return {name: p.grad for name, p in contestant.net.named_parameters()}


@pytest.mark.filterwarnings("ignore")  # of libraries that are no longer maintained
@pytest.mark.parametrize(("algorithm", "peer"), [p for p in PAIRS if p != NOT_SQUARED])
def test_other_libraries_find_the_same_meta_gradient(algorithm, peer):
    needs(peer)
    setting = Setting(algorithm, 4, 3, k_shot=2, n_query=2, dtype=torch.float64)
    tasks = episodes(setting, 2)
    expected = gradient(PEERS[algorithm][peer](setting), tasks)
    actual = gradient(ours(setting), tasks)
    for name, g in expected.items():
        torch.testing.assert_close(actual[its_name(name)], g, rtol=1e-6, atol=1e-9, msg=name)
    assert max(g.abs().max() for g in expected.values()) > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_distance_that_is_not_squared_is_the_root_of_ours():
    needs("easyfsl")
    from easyfsl.methods import PrototypicalNetworks

    setting = Setting("protonet", 4, k_shot=2, n_query=2, dtype=torch.float64)
    (task,) = episodes(setting, 1)
    theirs = PrototypicalNetworks(PEERS["protonet"]["easyfsl"](setting).net)
    theirs.process_support_set(task.support.x, task.support.y)
    net = ours(setting).net
    meta = with_prefix("student", dict(net.named_parameters()))
    adapted = LEARNERS["protonet"](0).double().adapt(bind(net), meta, None, task.support, 5)
    logits = adapted.predict(task.query.x).logits
    torch.testing.assert_close(-(theirs(task.query.x) ** 2), logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_all_tasks_at_once_find_it_too(algorithm):
    setting = Setting(algorithm, 4, 2, k_shot=2, n_query=2, dtype=torch.float64)
    tasks = episodes(setting, 2)
    one, other = (gradient(ours(setting, at_once=n), tasks) for n in (1, None))
    for name, g in one.items():
        torch.testing.assert_close(other[name], g, rtol=1e-6, atol=1e-9)


def test_the_memory_saving_mode_finds_it_too():
    setting = Setting("second order", 4, 3, k_shot=2, n_query=2, dtype=torch.float64)
    tasks = episodes(setting, 2)
    one, other = (gradient(ours(setting, recompute=again), tasks) for again in (False, True))
    for name, g in one.items():
        torch.testing.assert_close(other[name], g, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_data_path_and_test_are_measured_and_written(tmp_path):
    result, page = tmp_path / "data.json", tmp_path / "page.md"
    page.write_text("<!-- results:begin data -->\n<!-- results:end -->\n")
    options = ["--source", "synthetic", "--rounds", "1", "--tests", "1", "--episodes", "3"]
    data.main([*options, f"--result={result}", f"--output={page}", f"--steps={tmp_path / 'no'}"])
    actual = json.loads(result.read_text())
    assert actual["rates"]["lightning_metakd"][0] > 0
    assert actual["test"]["seconds"]["lightning_metakd"][0] > 0
    assert "| lightning_metakd |" in page.read_text()
