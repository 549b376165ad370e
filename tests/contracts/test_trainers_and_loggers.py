"""Every trainer and logger config builds what it names, and trains."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lightning_metakd.checkpoint_io import AtomicCheckpointIO
from lightning_metakd.loggers import RunLogger, WandbOrOffline, with_run_logger
from tests.callbacks.tiny import Tiny, batches

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINERS = sorted((CONFIGS / "trainer").rglob("*.yaml"))
LOGGERS = sorted((CONFIGS / "logger").rglob("*.yaml"))


def built(*args):
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_argument("--config", action="config")
    return Trainer(
        **vars(parser.instantiate(parser.parse_args([str(arg) for arg in args])).trainer)
    )


def test_there_is_something_to_test():
    assert [path.stem for path in TRAINERS] == ["cpu", "ddp_cpu", "default", "gpu"]
    assert [path.stem for path in LOGGERS] == ["csv", "wandb"]


@pytest.mark.parametrize("path", TRAINERS, ids=lambda path: path.stem)
def test_a_trainer_config_trains_and_tests(path, tmp_path):
    one_cpu = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
    if path.stem == "gpu" and not torch.cuda.is_available():
        with pytest.raises(Exception, match=r"No supported gpu backend found|gpu"):
            built("--trainer", path)
    runner = built(
        "--trainer",
        path,
        *one_cpu,
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
        "--trainer.logger=false",
    )
    runner.loggers = with_run_logger(None, "tiny", str(tmp_path))
    assert isinstance(runner.strategy.checkpoint_io, AtomicCheckpointIO)
    module = Tiny()
    runner.fit(module, batches(), batches())
    runner.test(module, batches(), verbose=False)
    found = {p.name for p in (tmp_path / "tiny" / "0").iterdir()}
    assert found >= {
        *(
            "metrics.csv",
            "strategy.safetensors",
            "results.jsonl",
            "episodes.test.csv",
            "checkpoints",
        ),
    }
    assert {p.name for p in (tmp_path / "tiny" / "0" / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "final.ckpt"),
    }


@pytest.mark.parametrize(("name", "kind"), [("csv", RunLogger), ("wandb", WandbOrOffline)])
def test_a_logger_config_stands_over_any_trainer(name, kind, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    config = CONFIGS / "logger" / f"{name}.yaml"
    runner = built("--trainer", CONFIGS / "trainer" / "cpu.yaml", "--config", config)
    (logger,) = runner.loggers
    assert isinstance(logger, kind)
    assert [type(found) for found in with_run_logger(logger, "a")] == (
        [RunLogger] if kind is RunLogger else [RunLogger, WandbOrOffline]
    )
