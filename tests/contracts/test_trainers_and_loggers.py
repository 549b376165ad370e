"""Every trainer and logger config stands over any experiment."""

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.replicas import FrozenParameterCheck, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.cli.command import build
from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.loggers.wandb_logger import WandbOrOffline
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from tests.commands import MAML, written
from tests.contracts.walk import configs, content

HARDWARE = {"accelerator", "devices", "strategy", "precision"}
EXPERIMENT = {key: MAML[key] for key in ("model", "data")}


def under(path, tmp_path, *words):
    written(tmp_path, it=EXPERIMENT)
    return build(["--config", "it.yaml", "--config", str(path), *words], run=False).trainer


@pytest.mark.parametrize("path", configs("trainer"), ids=lambda path: path.stem)
def test_a_trainer_config_is_about_hardware_alone(path, metakd, tmp_path):
    config = content(path)
    assert set(config) == {"trainer"}
    assert set(config["trainer"]) <= HARDWARE
    if config["trainer"]["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ValueError, match="accelerator=gpu: No supported gpu backend found"):
            under(path, tmp_path)
        return
    trainer = under(path, tmp_path)
    devices = config["trainer"]["devices"]
    assert devices in (-1, trainer.num_devices)
    assert isinstance(trainer.strategy, DDPStrategy) == (
        "ddp" in config["trainer"].get("strategy", "")
    )


@pytest.mark.parametrize("words", [[], ["--trainer.callbacks=[{class_path: EarlyStopping, "]])
def test_what_a_run_needs_is_there_whatever_is_configured(words, metakd, tmp_path):
    if words:
        words = [f"{words[0]}init_args: {{monitor: val/student_accuracy}}}}]"]
    trainer = under(configs("trainer")[0], tmp_path, *words)
    actual = [type(callback) for callback in trainer.callbacks]
    for needed in (Checkpoints, ReplicaConsistency, FrozenParameterCheck, Results):
        assert actual.count(needed) == 1
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert [type(logger) for logger in trainer.loggers] == [RunLogger]
    assert trainer.loggers[0].name == "it"


@pytest.mark.parametrize("path", configs("logger"), ids=lambda path: path.stem)
def test_a_logger_config_keeps_the_run_directory(path, metakd, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    trainer = under(path, tmp_path, "--trainer.accelerator=cpu")
    kinds = [type(logger) for logger in trainer.loggers]
    assert kinds == ([RunLogger, WandbOrOffline] if path.stem == "wandb" else [RunLogger])
    assert trainer.loggers[0].name == "it"
    assert trainer.loggers[0].root_dir.endswith("runs/it") or "runs" in trainer.loggers[0].root_dir
