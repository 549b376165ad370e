"""Where `last.ckpt` is written, a run goes on as if nothing had been, and its numbers with it."""

import csv
import math

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.strategy_monitor import StrategyMonitor
from lightning_metakd.data.distributed_sampling import Loader, TrainingSampler
from lightning_metakd.loggers.run_logger import RunLogger
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.commands import PowerCut, same

HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_validation_start"),
    *("on_validation_batch_start", "on_validation_epoch_end", "on_validation_end"),
    *("on_train_epoch_end", "on_train_epoch_start", "on_train_end"),
)
KINDS = {
    "validated after each epoch": {},
    "in the middle of it": {"val_check_interval": 2},
    "after every step": {"val_check_interval": 1},
    "after every second epoch": {"check_val_every_n_epoch": 2},
    "never": {"limit_val_batches": 0},
    "for a number of steps": {"max_epochs": -1, "max_steps": 6},
    "logged now and then": {"log_every_n_steps": 2},
}


class Moving(Tiny):
    """Its optimiser has a memory, and its accuracy rises and falls."""

    def configure_optimizers(self):
        return torch.optim.Adam([*self.student.parameters(), *self.loss.parameters()], lr=0.1)

    def on_validation_epoch_end(self):
        self.log("val/student_accuracy", 0.5 + 0.1 * math.sin(self.trainer.global_step))


def fit(folder, *callbacks, version=None, every_minutes=1e-9, **options):
    """Train for two epochs of three steps, or go on in the directory of a version."""
    torch.manual_seed(0)
    logger, module = RunLogger("tiny", str(folder)), Moving()
    if version is not None:
        logger.write_in(version)
    options = {"max_epochs": 2, "enable_checkpointing": True, **options}
    run = trainer(
        folder, *callbacks, StrategyMonitor(2), Checkpoints(every_minutes), logger=logger, **options
    )
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=generator), torch.arange(40) % 3
    loader = Loader(TensorDataset(x, y), batch_size=3, sampler=TrainingSampler(run, 3, 3))
    last = None if version is None else str(folder / "tiny" / version / "checkpoints" / "last.ckpt")
    run.fit(module, loader, batches(2), ckpt_path=last)
    return folder / "tiny" / "0"


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def states(run):
    paths = sorted((run / "checkpoints").iterdir())
    actual = {path.name: torch.load(path, weights_only=True) for path in paths}
    parts = ("state_dict", "optimizer_states", "global_step")
    return {name: [state[part] for part in parts] for name, state in actual.items()}


def stopped(folder, step, hook, version, options):
    """Whether there was anything to stop there."""
    try:
        fit(folder, PowerCut(step, hook), version=version, **options)
    except RuntimeError as error:
        if str(error) != "power cut":
            raise


@pytest.mark.parametrize(
    "hook", ["each once", *(pytest.param(h, marks=pytest.mark.slow) for h in HOOKS)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_cut_again_and_again_goes_on_to_the_very_same_end(kind, hook, tmp_path):
    whole = fit(tmp_path / "whole", **KINDS[kind])
    once = [(2 + k // 2, h) for k, h in enumerate(HOOKS)]
    version = None
    for step, where in once if hook == "each once" else [(step, hook) for step in range(2, 7)]:
        stopped(tmp_path / "cut", step, where, version, KINDS[kind])
        version = "0"
    cut = fit(tmp_path / "cut", version="0", **KINDS[kind])
    assert rows(cut) == rows(whole)
    assert same(states(cut), states(whole))


def test_a_training_of_nothing_says_so(tmp_path, capsys):
    """No checkpoint is promised that is not there, and an empty directory goes away."""
    for options in ({"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}):
        fit(tmp_path, **options)
        (line,) = capsys.readouterr().err.splitlines()
        name, value = next(iter(options.items()))
        assert line.startswith("nothing was trained (")
        assert f"{name}={value}" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_an_interval_that_never_comes_is_refused(minutes):
    with pytest.raises(ValueError, match=f"every_minutes={minutes} must be positive and finite"):
        Checkpoints(minutes)


def test_a_best_checkpoint_that_says_nothing_of_itself_is_no_measure(tmp_path):
    run = fit(tmp_path)
    best = run / "checkpoints" / "best.ckpt"
    state = torch.load(best, weights_only=True)
    for bare in (state | {"callbacks": {}}, state["state_dict"]):
        torch.save(bare, best)
        with pytest.warns(UserWarning, match=r"best\.ckpt does not say how good it is"):
            fit(tmp_path, version="0", max_epochs=3)
