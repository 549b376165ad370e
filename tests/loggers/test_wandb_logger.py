import csv
import os
import socket
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from lightning.pytorch.loggers import CSVLogger
from wandb.sdk.lib import wbauth

from lightning_metakd.loggers import wandb_logger
from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.loggers.wandb_logger import WandbOrOffline, logged_in, with_run_logger
from tests.callbacks.tiny import Tiny, batches, trainer


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
    import wandb

    monkeypatch.setattr(wandb_logger, "PATIENCE", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    secret = "--data.url=https://me:hush@example.org/a?b=1&sig=hush"
    monkeypatch.setattr(sys, "argv", ["metakd", secret, "--model.api_key", "hush"])
    message = r"W&B cannot begin a run \(.*\); it is offline, and `wandb sync` uploads it later"
    with place() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
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
    (kept,) = (run / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 60  # its process writes a little later
    while b"val/student_accuracy" not in kept.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (
        b"val/student_accuracy" in kept.read_bytes()
    )  # its best value is defined before there is one
    assert "WANDB_MODE" not in os.environ
