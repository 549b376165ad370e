import csv
import warnings

import pytest
import torch
from safetensors.torch import load_file

from lightning_metakd.callbacks.strategy_monitor import StrategyMonitor
from tests.callbacks.tiny import Tiny, batches, trainer


def test_the_strategy_is_logged_every_n_steps_and_kept_as_a_file(tmp_path):
    module = Tiny()
    trainer(tmp_path, StrategyMonitor(every_n_steps=3)).fit(module, batches(6))
    run = tmp_path / "tiny" / "0"
    with (run / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["strategy/gate_mean"]]
    assert [int(r["step"]) for r in rows] == [0, 2, 5]
    assert torch.equal(load_file(run / "strategy.safetensors")["raw"], module.loss.raw.detach())
    assert float(rows[-1]["strategy/gate_mean"]) == pytest.approx(
        module.coefficient_log.values["gate_mean"]
    )


def test_a_loss_without_coefficients_leaves_no_file(tmp_path):
    class Plain(Tiny):
        def __init__(self):
            super().__init__()
            self.loss = torch.nn.Identity()
            self.loss.register_buffer("raw", torch.zeros(()))

        def describe_strategy(self):
            return {}

    trainer(tmp_path, StrategyMonitor()).fit(Plain(), batches())
    assert not (tmp_path / "tiny" / "0" / "strategy.safetensors").exists()


class Judged(Tiny):
    """Logs a gain in every step."""

    def __init__(self, gains):
        super().__init__()
        self.gains = gains

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.log("strategy/pilot_gain", self.gains[batch_idx])


@pytest.mark.parametrize(
    ("gains", "warns"), [([-1.0] * 5, True), ([-1.0] * 4 + [1.0, -1.0], False)]
)
def test_pilot_steps_that_keep_leading_astray_are_warned_of(tmp_path, gains, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, StrategyMonitor(every_n_steps=1)).fit(Judged(gains), batches(len(gains)))
    message = [str(w.message) for w in caught if "pilot_gain" in str(w.message)]
    assert len(message) == warns
    assert all("lower model.strategy_training.pilot_lr" in text for text in message)


@pytest.mark.parametrize(("mean", "n", "warns"), [(0.0, 400, 1), (0.5, 400, 0), (0.0, 90, 0)])
def test_a_quiz_that_cannot_tell_is_warned_of(tmp_path, mean, n, warns):
    # each gain twice, as where the strategy moves in every other step
    values = mean + torch.linspace(-1, 1, n // 2).repeat_interleave(2)
    order = torch.randperm(n // 2, generator=torch.Generator().manual_seed(0))
    gains = values.view(-1, 2)[order].flatten()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, StrategyMonitor()).fit(Judged(gains), batches(n))
    message = [str(w.message) for w in caught if "not above" in str(w.message)]
    assert len(message) == warns
    assert all(f"in the last {n // 2 - n // 2 // 3} updates" in text for text in message)


@pytest.mark.parametrize(("first", "last", "warns"), [(1.0, 0.0, 0), (0.0, 0.0, 1)])
def test_that_gains_end_at_nothing_with_the_steps_is_no_fault(tmp_path, first, last, warns):
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0))
    lengths = torch.linspace(1, 0, 300)
    gains = lengths * (torch.linspace(first, last, 300) + noise)
    gains[:100] += 1.0  # the first steps help whatever the quiz says
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, StrategyMonitor()).fit(Judged(gains), batches(300))
    assert len([w for w in caught if "not above" in str(w.message)]) == warns


def test_another_training_is_judged_by_its_own_gains(tmp_path):
    monitor = StrategyMonitor()
    with pytest.warns(UserWarning, match="not above its noise"):
        trainer(tmp_path, monitor).fit(Judged(torch.linspace(1, -1, 100)), batches(100))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not above its noise")
        trainer(tmp_path, monitor).fit(Judged(torch.ones(4)), batches(4))


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0 must be 1 or more"):
        StrategyMonitor(0)
