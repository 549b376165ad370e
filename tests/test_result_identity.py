"""Which results are seeds of one another, as the command leaves them and the report shows them."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from lightning_metakd import cli
from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.report import tables
from lightning_metakd.result_lines import read_results, rows_of
from tests.commands import MAML, results, written
from tests.left_results import cell

SHORT = ("--config=maml.yaml", "--data.n_episodes=2", "--data.meta_batch_size=1")
TRAINING = ("--trainer.max_steps=2", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0")


@pytest.fixture
def train_and_test(metakd, tmp_path):
    """Train a tiny student under one seed, and test it; returns what the result says of its settings."""
    written(tmp_path, maml=MAML)

    def run(seed=0, *words):
        seeds = (f"--seed_everything={seed}", f"--data.seed={seed}")
        metakd("fit", *SHORT, *TRAINING, *seeds, *words)
        metakd("test", "--ckpt_path=runs/maml/latest/checkpoints/final.ckpt")
        return results("maml.test")[-1]

    return run


def test_a_sweep_of_the_learning_rate_is_a_row_for_each_and_its_seeds_are_joined(train_and_test):
    for lr in (1e-3, 1e-4, 1e-2):
        train_and_test(0, f"--model.optimisation.lr={lr}")
    train_and_test(1, "--model.optimisation.lr=1e-3", "--trainer.callbacks+=DeviceStatsMonitor")
    found = read_results(Path("runs"))
    rows = {row.name: row.seeds for row in rows_of(found)}
    names = [f"maml.test, lr {lr}" for lr in ("0.001", "0.0001", "0.01")]
    assert rows == {names[0]: [0, 1], names[1]: [0], names[2]: [0]}
    table = tables(found)
    assert cell(table, "maml.test, lr 0.001", "seeds") == "2"
    assert cell(table, "maml.test, lr 0.01", "seeds") == "1"


def test_a_run_that_was_cut_moved_and_tested_elsewhere_is_the_same_row(
    train_and_test, metakd, monkeypatch
):
    whole = train_and_test()
    monkeypatch.setattr(cli, "Checkpoints", partial(Checkpoints, every_minutes=1e-9))
    cut = '[{"class_path": "tests.commands.PowerCut", "init_args": {"step": 1}}]'
    with pytest.raises(RuntimeError, match="power cut"):
        metakd("fit", *SHORT, *TRAINING, f"--trainer.callbacks={cut}")
    shutil.copytree("runs", "elsewhere", symlinks=True)
    metakd("fit", *SHORT, *TRAINING, "--resume", "--runs=elsewhere", "--data.num_workers=1")
    path = "elsewhere/maml/latest/checkpoints/final.ckpt"
    by_file = ("--runs=elsewhere", f"--model.init={path}", "--trainer.accelerator=auto")
    metakd("test", *SHORT, "--experiment=maml.test", *by_file)
    found = [result.row for result in read_results(Path("elsewhere"))]
    assert len(found) == 2
    assert found[0]["settings"] == found[1]["settings"] == whole["settings"]
    assert len(rows_of(read_results(Path("elsewhere")))) == 1
