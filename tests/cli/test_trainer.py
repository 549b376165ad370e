"""A run from Python leaves what one of the command leaves, in the same place."""

import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.cli.trainer import Trainer, built_in
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.reporting.result_rows import read_results, rows_of
from tests.tiny import Blobs


def train_and_test(lr):
    recipe = MetaKD(
        Conv4(width=4, in_channels=1, image_size=16, pooling="average"),
        ProtoNet(),
        optimisation=Optimisation(lr),
    )
    data = EpisodicData(Blobs(), 3, k_shot=1, n_query=2, n_episodes=2, meta_batch_size=1)
    trainer = Trainer("first", max_steps=1, accelerator="cpu", limit_val_batches=0)
    trainer.fit(recipe, data)
    trainer.test(recipe, data, verbose=False)


def test_results_and_checkpoints_lie_where_those_of_the_command_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    for lr in (0.1, 0.1, 0.2):
        train_and_test(lr)
    run = tmp_path / "runs" / "first" / "latest"
    assert sorted(p.name for p in run.iterdir()) == [
        *("answers.test.npz", "checkpoints", "episodes.test.csv", "hparams.yaml", "metrics.csv"),
        "results.jsonl",
    ]
    assert "; written to runs/first/0/results.jsonl" in capsys.readouterr().out
    assert not (tmp_path / "lightning_logs").exists()
    rows = rows_of(read_results(tmp_path))
    assert [row.name for row in rows] == ["first, lr 0.1", "first, lr 0.2"]


class Seldom(Checkpoints):
    """A user's own way of saving."""


@pytest.mark.parametrize("kind", [Checkpoints, Seldom])
def test_callbacks_stand_beside_those_of_every_run_or_in_their_place(kind):
    present = kind(every_minutes=9.0)
    callbacks = Trainer(callbacks=present, accelerator="cpu").callbacks
    assert [c for c in callbacks if isinstance(c, Checkpoints)] == [present]
    assert len(callbacks) == len(built_in())
    for settings in ({"enable_progress_bar": False}, {"callbacks": [TQDMProgressBar()]}):
        bars = [c for c in Trainer(**settings).callbacks if isinstance(c, ProgressBar)]
        assert len(bars) == len(settings.get("callbacks", []))


@pytest.mark.parametrize("logger", [None, False])
def test_its_logger_is_the_directory_of_the_run_or_none(logger, tmp_path):
    loggers = Trainer("first", str(tmp_path), logger=logger, accelerator="cpu").loggers
    assert [type(one) for one in loggers] == ([] if logger is False else [RunLogger])
    assert not list(tmp_path.iterdir())
