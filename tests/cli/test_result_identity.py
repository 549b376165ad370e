"""Which results are seeds of one another, as the command leaves them and the report shows them."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.cli import trainer
from lightning_metakd.reporting.report import tables
from lightning_metakd.reporting.result_rows import read_results, rows_of
from tests.commands import MAML, results, written
from tests.left_results import cell

SHORT = ("--config=maml.yaml", "--data.n_episodes=2", "--data.meta_batch_size=1")
TRAINING = ("--trainer.max_steps=2", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0")


@pytest.fixture
def train(metakd, tmp_path):
    """Train a tiny student under a seed."""
    written(tmp_path, maml=MAML)
    return lambda seed=0, *words: metakd(
        *("fit", *SHORT, *TRAINING, f"--seed_everything={seed}", f"--data.seed={seed}", *words)
    )


@pytest.mark.thorough
def test_a_sweep_of_the_learning_rate_is_a_row_for_each_and_its_seeds_are_joined(train):
    for seed, lr in ((0, 1e-3), (0, 1e-4), (0, 1e-2), (1, 1e-3)):
        run = train(seed, f"--model.optimisation.lr={lr}")
        run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    actual = read_results(Path("runs"))
    rows = {row.name: row.seeds for row in rows_of(actual)}
    names = [f"maml, lr {lr}" for lr in ("0.001", "0.0001", "0.01")]
    assert rows == {names[0]: [0, 1], names[1]: [0], names[2]: [0]}
    table = tables(actual)
    assert cell(table, "maml, lr 0.001", "seeds") == "2"
    assert cell(table, "maml, lr 0.01", "seeds") == "1"


@pytest.mark.slow
def test_a_run_that_was_cut_moved_and_tested_elsewhere_is_the_same_row(train, metakd, monkeypatch):
    train()
    metakd("test", "--ckpt_path=runs/maml/latest/checkpoints/final.ckpt")
    (whole,) = results("maml.test")
    monkeypatch.setattr(trainer, "Checkpoints", partial(Checkpoints, every_minutes=1e-9))
    cut = '[{"class_path": "tests.commands.PowerCut", "init_args": {"step": 1}}]'
    with pytest.raises(RuntimeError, match="power cut"):
        metakd("fit", *SHORT, *TRAINING, f"--trainer.callbacks={cut}")
    shutil.copytree("runs", "elsewhere", symlinks=True)
    metakd("fit", *SHORT, *TRAINING, "--resume", "--runs=elsewhere", "--data.num_workers=1")
    path = "elsewhere/maml/latest/checkpoints/final.ckpt"
    by_file = (
        "--runs=elsewhere",
        f"--model.initialisation.checkpoint={path}",
        "--trainer.accelerator=auto",
    )
    metakd("test", *SHORT, "--experiment=maml.test", *by_file)
    actual = [result.row for result in read_results(Path("elsewhere"))]
    assert len(actual) == 2
    assert actual[0]["settings"] == actual[1]["settings"] == whole["settings"]
    assert len(rows_of(read_results(Path("elsewhere")))) == 1
