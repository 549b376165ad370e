"""The benchmark compares two implementations of one computation: in float64 they are equal."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._pytree import tree_map

pytest.importorskip("higher", reason="the rival needs the extra `benchmarks` (pip install higher)")

from benchmarks.plain_conv4 import PlainConv4, its_name
from experiments.maml_against_higher import first_student, main, ours, table, train_ours
from experiments.maml_by_higher import META_BATCH, N_QUERY, N_WAY, Pace, train_rival
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.cifar import CIFARFS, locate
from lightning_metakd.data.sources.source import Source
from lightning_metakd.data.sources.synthetic import Synthetic

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("METAKD_DATA") or ROOT.parent / "shared" / "data")


class Double(EpisodicData):
    """The episodes in double precision."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        finished = super().on_after_batch_transfer(batch, dataloader_idx)
        return tree_map(
            lambda t: t.double() if t is not None and t.is_floating_point() else t, finished
        )


REAL_DATA = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(params=["synthetic", pytest.param("real", marks=REAL_DATA)])
def source(request) -> Source:
    if request.param == "synthetic":
        return Synthetic(per_class=12)
    if not locate(REAL):
        pytest.skip(f"CIFAR-100 is not in {REAL}; name its directory in METAKD_DATA")
    return CIFARFS(str(REAL))


def trained(source, steps, folder, every=100):
    """Students of both implementations in double precision after some steps from one start."""

    def data():
        return Double(source, n_way=N_WAY, k_shot=1, n_query=2, meta_batch_size=2, augment=False)

    student = first_student(seed=0).double()
    rival, recipe = PlainConv4(student).double(), ours(student)
    train_ours(recipe, data(), Pace("ours", steps), folder, every)
    train_rival(rival, data(), Pace("higher", steps), folder, every)
    return recipe.student, rival


def test_meta_gradients_of_a_batch_agree(source, tmp_path):
    student, rival = trained(source, 1, tmp_path)
    for name, p in rival.named_parameters():
        its = student.get_parameter(its_name(name))
        torch.testing.assert_close(p.grad, its.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.thorough
def test_weights_after_three_steps_agree(tmp_path):
    start = PlainConv4(first_student(seed=0).double()).state_dict()
    student, rival = trained(Synthetic(per_class=12), 3, tmp_path)
    for name, p in rival.named_parameters():
        torch.testing.assert_close(p, student.get_parameter(its_name(name)), rtol=1e-8, atol=1e-8)
    assert (rival.head.weight - start["head.weight"]).abs().max() > 1e-3


@pytest.mark.thorough
def test_an_interrupted_run_ends_like_a_whole_one(tmp_path):
    source = Synthetic(per_class=12)
    whole = trained(source, 2, tmp_path / "whole")
    trained(source, 1, tmp_path / "interrupted", every=1)
    resumed = trained(source, 2, tmp_path / "interrupted", every=1)
    for one, other in zip(whole, resumed, strict=True):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.thorough
def test_the_result_holds_both_sides_and_their_paired_difference(tmp_path):
    result = tmp_path / "result.json"
    options = "--source synthetic --steps 1 --k_shot 1 --episodes 2 --save_every 1"
    page = tmp_path / "page.md"
    page.write_text("<!-- results:begin maml -->\n<!-- results:end -->\n")
    main([*options.split(), f"--out={tmp_path}", f"--result={result}", f"--output={page}"])
    actual = json.loads(result.read_text())
    gap = actual["ours"]["accuracy"] - actual["higher"]["accuracy"]
    assert actual["paired_difference"] == pytest.approx(gap)
    assert actual["within_2_points"] == (abs(gap) <= 0.02)
    assert actual["largest_gradient_norm"] > 0
    assert actual["command"].startswith("python -m experiments.maml_against_higher --steps 1 ")
    assert f"| higher           | {100 * actual['higher']['accuracy']:.2f}" in page.read_text()


def test_the_page_shows_the_result_that_is_kept():
    result = json.loads((ROOT / "experiments" / "results" / "maml_against_higher.json").read_text())
    page = (ROOT / "docs" / "results" / "maml.md").read_text()
    assert f"begin maml -->\n\n{table(result)}\n\n<!-- results:end" in page


def test_the_full_length_experiment_has_the_hyper_parameters_of_the_benchmark():
    experiment = ROOT / "configs" / "experiment" / "meta_kd_cifar_fs_5w5s_maml.yaml"
    config = yaml.safe_load(experiment.read_text())
    model, data = (config[part]["init_args"] for part in ("model", "data"))
    learner = yaml.safe_load((experiment.parent / model["learner"]).read_text())["init_args"]
    recipe = ours(first_student(seed=0))
    assert learner == {
        name: getattr(recipe.learner, name) for name in ("inner_lr", "inner_steps", "test_steps")
    }
    assert model["student"]["init_args"] == {"width": recipe.student.width, "n_classes": N_WAY}
    assert model["optimisation"] == {
        name: getattr(recipe.optimisation, name) for name in model["optimisation"]
    }
    assert (model["norm"], data["augment"]) == ("batch", False)
    assert (data["meta_batch_size"], data["n_query"]) == (META_BATCH, N_QUERY)
