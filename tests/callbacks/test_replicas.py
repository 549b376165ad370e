import warnings

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from lightning_metakd.callbacks.replicas import FrozenParameterCheck, ReplicaConsistency, checksum
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.conftest import ADVICE
from tests.processes import run_on


def test_a_checksum_sees_every_bit_and_the_order():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool):
        x = torch.tensor([1, 0, 1, 1, 0]).to(dtype)
        assert checksum(x) == checksum(x.clone())
        assert checksum(x) != checksum(x.flip(0))
        changed = x.clone()
        changed[3] = 0
        assert checksum(x) != checksum(changed)
    x = torch.ones(3)
    assert checksum(x) != checksum(torch.nextafter(x, x + 1))
    assert checksum(torch.zeros(2)) != checksum(torch.zeros(3))


class Wrong(Tiny):
    """Assigns gradients by hand, so that DDP averages nothing."""

    def training_step(self, batch, _):
        x, y = batch
        optimiser = self.optimizers()
        parameters = list(self.student.parameters())
        grads = torch.autograd.grad(self.batch_loss((x + self.global_rank, y)), parameters)
        for p, g in zip(parameters, grads, strict=True):
            p.grad = g
        optimiser.step()


class Right(Tiny):
    def training_step(self, batch, index):
        super().training_step((batch[0] + self.global_rank, batch[1]), index)


class Met(LightningEnvironment):
    """Processes that have already met."""

    def __init__(self, rank, world):
        super().__init__()
        self.rank = rank, world

    @property
    def creates_processes_externally(self):
        return True

    def global_rank(self):
        return self.rank[0]

    def local_rank(self):
        return self.rank[0]

    def world_size(self):
        return self.rank[1]

    def set_global_rank(self, rank):
        pass

    def set_world_size(self, size):
        pass


def fit(rank, world, kind, folder):
    torch.manual_seed(0)
    module = kind()
    environment = DDPStrategy(cluster_environment=Met(rank, world), process_group_backend="gloo")
    runner = trainer(folder, ReplicaConsistency(3), devices=world, strategy=environment)
    for text in ADVICE:
        warnings.filterwarnings(*text.split(":", 1))
    runner.fit(module, batches())
    return runner.global_step, runner.loggers[0].log_dir


@pytest.mark.thorough
@pytest.mark.ddp
def test_replicas_that_drift_are_refused_after_the_first_step(tmp_path):
    for result in run_on(2, tmp_path, fit, Wrong, tmp_path):
        assert (
            "parameter 'student.weight.weight' differs between the 2 processes after step 1"
            in result
        )
        assert (
            "let the outer gradient reach the parameters through self.manual_backward"
            in result.lower()
        )


@pytest.mark.thorough
@pytest.mark.ddp
def test_replicas_that_agree_train_to_the_end_in_one_directory(tmp_path):
    result = run_on(2, tmp_path, fit, Right, tmp_path)
    assert result == [(6, str(tmp_path / "tiny" / "0"))] * 2
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == ["0", "latest"]


def test_a_frozen_parameter_that_moves_is_named(tmp_path):
    class Leaky(Tiny):
        def training_step(self, batch, index):
            super().training_step(batch, index)
            self.teachers[0].model.head.bias.data.add_(1e-6)

    with pytest.raises(
        RuntimeError, match=r"frozen parameter 'teachers\.0\.model\.head\.bias' has moved"
    ):
        trainer(tmp_path, FrozenParameterCheck()).fit(Leaky(), batches())
    trainer(tmp_path, FrozenParameterCheck(("teachers.",))).fit(Leaky(), batches())


def test_frozen_parameters_that_stay_are_fine(tmp_path):
    callback = FrozenParameterCheck()
    trainer(tmp_path, callback).fit(Tiny(), batches())
    assert len(callback.before) == 3


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0 must be 1 or more"):
        ReplicaConsistency(0)
