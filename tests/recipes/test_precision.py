"""Double precision: how gradients are checked, from the pixels to the result."""

import pytest
import torch

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.mlp import MLP
from lightning_metakd.teachers.heads import PrototypeHead
from tests.recipes.runs import batches, episodes, helper, meta_kd, sgd, single_task, state
from tests.tiny import N_WAY, Blobs, SmoothConv4, trainer

PAIR = {"embedding": "embedding"}


FEW = {"meta_batch_size": 1, "steps_per_epoch": 1, "n_episodes": 1}


def few(**settings) -> EpisodicData:
    return episodes(**FEW, **settings)


def vectors() -> EpisodicData:
    source = Embedded(Blobs(), SmoothConv4(0), views=1)
    return EpisodicData(source, N_WAY, k_shot=2, n_query=4, views=1, **FEW)


RUNS = {
    "MAML": (lambda: meta_kd(MAML(0.05, 2)), few),
    "ProtoNet, a learned gate": (
        lambda: meta_kd(ProtoNet(), loss=MatchGate(LearnedPerSample())),
        few,
    ),
    "one shot, a scale to find": (
        lambda: meta_kd(ProtoNet(), teachers=[helper(head=PrototypeHead())]),
        lambda: few(k_shot=1),
    ),
    "stored answers": (
        lambda: meta_kd(ProtoNet(), teachers=[helper(cache=True)]),
        lambda: few(views=1),
    ),
    "vectors": (lambda: meta_kd(ProtoNet(), MLP(3), teachers=[helper(cache=True)]), vectors),
    "SingleTask, an average": (
        lambda: single_task(optimisation=sgd(ema_decay=0.9)),
        lambda: batches(val_fraction=0.25),
    ),
}


@pytest.fixture(autouse=True)
def answers_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))


@pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)
def test_all_of_a_run_is_in_double(make, data):
    settings = {}
    for precision in ("32-true", "64-true"):
        torch.manual_seed(0)
        recipe = make()
        run = trainer(max_steps=1, precision=precision)
        run.fit(recipe, datamodule=data())
        run.test(recipe, datamodule=data(), verbose=False)
        settings[precision] = state(recipe.student)
        assert 0 <= recipe.record.result["accuracy"] <= 1
    assert {p.dtype for p in recipe.parameters()} == {torch.float64}
    for name, single in settings["32-true"].items():
        torch.testing.assert_close(
            settings["64-true"][name].to(single.dtype), single, rtol=1e-3, atol=1e-4
        )
    differs = [not torch.equal(settings["64-true"][n], p) for n, p in settings["32-true"].items()]
    assert any(differs)


def test_what_was_trained_in_double_goes_on_under_another_trainer():
    recipe = meta_kd(ProtoNet(), loss=FitNets(PAIR), strategy_lr=0.0)
    trainer(max_steps=1, precision="64-true").fit(recipe, datamodule=few())
    trainer(max_steps=1).fit(recipe, datamodule=few())
    assert trainer().test(recipe, datamodule=few(), verbose=False)
