import csv
import hashlib
import json
import os
import socket
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from wandb.sdk.lib import wbauth

from lightning_metakd.loggers import wandb_logger
from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.loggers.wandb_logger import (
    NETWORK,
    WandbOrOffline,
    artifact_of,
    logged_in,
    with_run_logger,
)
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.left_results import PIXEL
from tests.loggers.nobody import KEY, logged_in_at, without_account
from tests.loggers.offline_file import offline_run
from tests.loggers.stand_in_server import stand_in_server


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """An account-less home."""
    without_account(monkeypatch, tmp_path)


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


def test_who_is_logged_in_is_what_wandb_itself_would_find(tmp_path, monkeypatch):
    default = wandb.Settings().base_url  # which `wandb login` writes down

    def wandb_finds():
        wbauth.unauthenticate_session(update_settings=False)
        arguments = {"host": default, "source": "test", "prompt": False}
        return wbauth.authenticate_session(**arguments, update_session=False) is not None

    assert logged_in() == wandb_finds() == False  # noqa: E712
    for name in (urlsplit(default).netloc, "api.wandb.ai"):  # the latter of earlier versions
        (tmp_path / "netrc").write_text(f"machine {name} login user password {KEY}\n")
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


@contextmanager
def a_server(code):
    """A server on this machine that answers with this code, or not at all; its address."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            if code is None:
                over.wait()
            self.send_response(code or 503)
            self.end_headers()

        def log_message(self, *words):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    over.set()
    served.shutdown()
    served.server_close()


@contextmanager
def a_closed_port():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "place",
    [
        a_closed_port,
        pytest.param(lambda: a_server(None), marks=pytest.mark.slow, id="silent"),
        pytest.param(lambda: a_server(401), marks=pytest.mark.slow, id="a stranger"),
        pytest.param(lambda: a_server(503), marks=pytest.mark.slow, id="broken"),
    ],
)
def test_a_run_whose_server_is_away_goes_on_offline(place, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_logger, "PATIENCE", 1.0)
    secret = "--data.url=https://me:hush@example.org/a?b=1&sig=hush"
    monkeypatch.setattr(sys, "argv", ["metakd", secret, "--model.api_key", "hush"])
    message = r"W&B cannot begin a run \(.*\); it is offline, and `wandb sync` uploads it later"
    with place() as address, logged_in_at(address, monkeypatch):
        loggers = with_run_logger(WandbOrOffline(), "a", str(tmp_path / "runs"))
        with pytest.warns(UserWarning, match=message):
            run = loggers[1].experiment
        assert run.settings.mode == "offline"
        assert sys.argv[1] == secret
        run.log({"loss": 1.0})
        wandb.finish()
    (folder,) = (tmp_path / "runs" / "a" / "0" / "wandb").glob("offline-run-*")
    (kept,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 60  # its process writes a little later
    while b"sig=" not in kept.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"--data.url=https://***@example.org/a?b=1&sig=***" in kept.read_bytes()
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not any(b"hush" in path.read_bytes() for path in files)
    assert "WANDB_MODE" not in os.environ


def test_an_offline_run_lies_in_the_run_directory_beside_the_numbers(tmp_path):
    loggers = with_run_logger(WandbOrOffline(), "a", str(tmp_path / "runs"))
    runner = trainer(tmp_path, logger=loggers)
    runner.fit(Tiny(), batches())
    run = tmp_path / "runs" / "a" / "0"
    assert runner.log_dir == str(run)
    assert len(list((run / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert loggers[1].experiment.name == "a/0"
    with (run / "metrics.csv").open() as file:
        assert {r["train/outer_loss"] for r in csv.DictReader(file)} == {"0.5"}
    wandb.finish()
    offline = offline_run(run)
    assert offline.metrics["val/student_accuracy"].summary.max  # before there is a value
    assert offline.summary["train/outer_loss"] == {"min": 0.5, "last": 0.5}
    assert "WANDB_MODE" not in os.environ


@pytest.mark.parametrize(
    ("name", "group"), [("a", "a"), ("a.test", "a"), ("a.predict", "a"), ("a.b", "a.b")]
)
def test_what_judges_an_experiment_is_in_its_group(name, group, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = with_run_logger(WandbOrOffline(), name, str(tmp_path / "runs"))[1]
    _ = logger.experiment
    wandb.finish()
    assert logger._wandb_init["group"] == group


def test_an_artifact_has_the_name_of_its_content_and_holds_weights_only_where_wanted(tmp_path):
    weights, copy = tmp_path / "final.ckpt", tmp_path / "elsewhere" / "teacher.ckpt"
    copy.parent.mkdir()
    for path in (weights, copy):
        path.write_bytes(b"weights")
    first, second = (artifact_of(path, NETWORK, whole=True) for path in (weights, copy))
    assert (first.name, first.digest) == (second.name, second.digest)
    assert first.name == f"network-{hashlib.sha256(b'weights').hexdigest()[:12]}"
    assert [*first.manifest.entries] == ["network.ckpt"]
    without_weights = artifact_of(weights, NETWORK, whole=False)
    assert without_weights.name == first.name
    assert [*without_weights.manifest.entries] == ["sha256.txt"]
    weights.write_bytes(b"other weights")
    assert artifact_of(weights, NETWORK, whole=True).name != first.name


@pytest.mark.thorough
@pytest.mark.parametrize("log_model", [True, False])
def test_online_a_run_and_the_one_that_uses_its_network_arrive(log_model, tmp_path, monkeypatch):
    network, ids = tmp_path / "final.ckpt", []
    network.write_bytes(b"weights")
    monkeypatch.setattr(sys, "argv", ["metakd", "--model.api_key", "hush"])
    rows = [{"class": "ant", "picture": PIXEL, "teacher": None}, {"class": "bee", "picture": None}]
    with stand_in_server() as server, logged_in_at(server.address, monkeypatch):
        for name in ("a", "a.test"):
            logger = with_run_logger(
                WandbOrOffline(log_model=log_model), name, str(tmp_path / "runs")
            )[1]
            ids.append(logger.experiment.id)
            logger.add_tags(["fit"])
            logger.log_hyperparams({"lr": 0.5, "api_key": "hush"})
            for step, accuracy in enumerate((0.25, 0.75, 0.5)):
                logger.log_metrics({"val/student_accuracy": accuracy}, step)
            logger.keep_file(network, NETWORK, "student", is_input=name == "a.test")
            logger.log_tables({"test/classes": [row | {"teacher": None} for row in rows]})
            assert logger.experiment.settings.mode == "online"
            wandb.finish()
    fit, test = ids
    artifact = artifact_of(network, NETWORK, whole=log_model).name
    assert [run for run, name in server.made if name == artifact] == [fit]
    assert server.used == [(test, artifact)]
    assert server.runs[test]["groupName"] == "a"
    assert server.runs[test]["tags"] == ["fit"]
    assert json.loads(server.runs[fit]["config"])["lr"]["value"] == 0.5
    assert server.summaries[fit]["val/student_accuracy"] == {"max": 0.75, "last": 0.5}
    curve = [line["val/student_accuracy"] for line in server.streamed[fit][:3]]
    assert curve == [0.25, 0.75, 0.5]
    assert [line["trainer/global_step"] for line in server.streamed[fit][:3]] == [0, 1, 2]
    uploads = {path.partition("/")[2] for path in server.uploads}
    assert {"test/classes.table.json", "manifest"} <= uploads
    assert (b"weights" in server.uploads.values()) == log_model
    assert not any(b"hush" in upload for upload in server.uploads.values())
