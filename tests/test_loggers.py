import csv
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from wandb.sdk.lib import wbauth

from lightning_metakd.loggers import (
    RunLogger,
    WandbOrOffline,
    logged_in,
    new_version,
    scrubbed,
    with_run_logger,
)
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.processes import run_on


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """An account-less home."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


def test_versions_count_up_and_latest_points_to_the_newest(tmp_path):
    runs = [RunLogger("a", str(tmp_path)) for _ in range(3)]
    assert [run.version for run in runs] == ["0", "1", "2"]
    assert runs[1].log_dir == str(tmp_path / "a" / "1")
    assert not (
        tmp_path / "a" / "latest"
    ).exists()  # a run that fails before its first number is not it
    for run in runs[:2]:
        run.log_metrics({"x": 1.0}, 0)
        assert (tmp_path / "a" / "latest").readlink() == Path(run.version)
    (tmp_path / "a" / "11").mkdir()
    assert RunLogger("a", str(tmp_path)).version == "12"
    assert RunLogger("b", str(tmp_path)).version == "0"


def test_a_directory_that_another_start_took_in_between_is_left_alone(tmp_path, monkeypatch):
    make, taken = Path.mkdir, []

    def rival(self, *args, **kwargs):
        if self.name == "0" and not taken:
            taken.append(make(self))
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", rival)
    assert new_version(tmp_path) == "1"


def reserve(rank, world, folder):
    torch.distributed.barrier()
    return [new_version(folder) for _ in range(20)]


@pytest.mark.ddp
def test_two_starts_at_once_never_share_a_directory(tmp_path):
    one, other = run_on(2, tmp_path, reserve, tmp_path / "runs")
    assert sorted(map(int, one + other)) == list(range(40))


def agree(rank, world, folder):
    return RunLogger("a", str(folder)).log_dir


@pytest.mark.ddp
def test_all_processes_agree_on_one_directory(tmp_path):
    (tmp_path / "runs" / "a" / "4").mkdir(parents=True)
    told = run_on(2, tmp_path, agree, tmp_path / "runs")
    assert told == [str(tmp_path / "runs" / "a" / "5")] * 2


def test_latest_that_cannot_be_set_is_a_warning(tmp_path):
    (tmp_path / "a" / "latest" / "full").mkdir(parents=True)
    with pytest.warns(UserWarning, match="latest could not be set .*read "):
        RunLogger("a", str(tmp_path)).log_metrics({"x": 1.0}, 0)
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["a/b", "..", "latest", "-x", " "])
def test_a_name_that_is_no_directory_is_refused(name):
    with pytest.raises(ValueError, match="names a directory; use letters, digits"):
        RunLogger(name)


def test_secrets_are_hidden_and_numbers_and_words_are_not():
    told = {
        "api_key": "abc",
        "hf_token": "abc",
        "model": {"n_tokens": 32, "tokenizer": "bpe", "keys": ["abc"], "password": None},
        "url": "https://me:abc@host/x",
        "list": [{"client.secret": "abc"}],
    }
    assert scrubbed(told) == {
        "api_key": "***",
        "hf_token": "***",
        "model": {"n_tokens": 32, "tokenizer": "bpe", "keys": ["***"], "password": None},
        "url": "https://***@host/x",
        "list": [{"client.secret": "***"}],
    }


def test_hyper_parameters_are_kept_without_secrets(tmp_path):
    run = RunLogger("a", str(tmp_path))
    run.log_hyperparams({"lr": 0.5, "api_key": "abc"})
    run.log_metrics({"x": 1.0}, 0)
    run.save()
    said = (tmp_path / "a" / "0" / "hparams.yaml").read_text()
    assert "abc" not in said
    assert "lr: 0.5" in said


def test_the_run_directory_comes_first_whatever_else_is_asked_for(tmp_path):
    other = CSVLogger(str(tmp_path))
    (run,) = with_run_logger(None, "a", str(tmp_path))
    assert isinstance(run, RunLogger)
    assert run.name == "a"
    assert with_run_logger(True, "a")[0].name == "a"
    assert with_run_logger(False, "a") == []
    assert with_run_logger([other, run], "b") == [run, other]
    (unnamed,) = with_run_logger(RunLogger(save_dir=str(tmp_path)), "c")
    assert unnamed.log_dir == str(tmp_path / "c" / "0")
    first, second = with_run_logger(other, "b", str(tmp_path))
    assert (first.name, second) == ("b", other)


KEY = "0123456789" * 4


def test_who_is_logged_in_is_what_wandb_itself_would_find(tmp_path, monkeypatch):
    def wandb_finds():
        wbauth.unauthenticate_session(update_settings=False)
        arguments = {"host": "https://api.wandb.ai", "source": "test", "prompt": False}
        return wbauth.authenticate_session(**arguments, update_session=False) is not None

    assert logged_in() == wandb_finds() == False  # noqa: E712
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert logged_in() == wandb_finds() == True  # noqa: E712
    assert not logged_in("https://wandb.example.org")
    (tmp_path / "netrc").write_text("machine elsewhere.org login user password x\n")
    assert logged_in() == wandb_finds() == False  # noqa: E712
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert logged_in() == wandb_finds() == True  # noqa: E712


def test_a_damaged_netrc_means_offline(tmp_path):
    (tmp_path / "netrc").write_text("machine\n")
    with pytest.warns(UserWarning, match="netrc cannot be read .* the W&B run is offline"):
        assert not logged_in()


def test_wandb_is_online_only_when_logged_in_and_not_told_otherwise(monkeypatch):
    assert WandbOrOffline()._wandb_init["mode"] == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    online = WandbOrOffline()
    assert "mode" not in online._wandb_init
    assert online._log_model is True
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandbOrOffline()._wandb_init["mode"] == "offline"
    assert WandbOrOffline()._log_model is False
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbOrOffline()._wandb_init["mode"] == "disabled"


def test_an_offline_run_lies_in_the_run_directory_beside_the_numbers(tmp_path):
    import wandb

    loggers = with_run_logger(WandbOrOffline(), "a", str(tmp_path / "runs"))
    runner = trainer(tmp_path, logger=loggers)
    runner.fit(Tiny(), batches())
    run = tmp_path / "runs" / "a" / "0"
    assert runner.log_dir == str(run)
    assert len(list((run / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert loggers[1].experiment.name == "a/0"
    with (run / "metrics.csv").open() as file:
        assert {r["train/outer_loss"] for r in csv.DictReader(file)} == {"0.5"}
    loggers[1].keep_file(run / "metrics.csv", "results")
    wandb.finish()
    assert "WANDB_MODE" not in os.environ
