"""Where one of several processes is lost, one line names it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer

from lightning_metakd.cli import processes
from lightning_metakd.cli.processes import check_others
from tests.commands import MAML, written
from tests.processes import ROOT

RESET = RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")


class Several(Trainer):
    """One of three processes, as far as it says."""

    world_size, local_rank, global_rank = 3, 0, 0

    def __init__(self, rank=0, children=()):
        self.global_rank = self.local_rank = rank
        self.strategy = SimpleNamespace(launcher=SimpleNamespace(procs=list(children)))

    strategy = None


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (
            "kill -9 $$",
            r"process 2 of 3 was lost \(killed by SIGKILL\), and the others ended with it",
        ),
        (
            "exit 3",
            r"process 2 of 3 was lost \(exit code 3\), .* Start again, a training with --resume\.",
        ),
        ("exit 0", "another process of 3 was lost, and"),
    ],
)
def test_the_process_that_started_the_others_names_the_lost_one(end, line):
    commands = ("exit 0", end)
    children = [subprocess.Popen(["sh", "-c", command]) for command in commands]
    for child in children:
        child.wait()
    with pytest.raises(ConnectionError, match=line):
        check_others(Several(children=children), RESET)


def test_a_started_process_names_the_first_one_or_is_silent(monkeypatch):
    with pytest.raises(SystemExit) as silent:
        check_others(Several(rank=2), RESET)
    assert silent.value.code == 1
    monkeypatch.setattr(processes, "PARENT", 0)
    with pytest.raises(ConnectionError, match="process 0 of 3 was lost, and"):
        check_others(Several(rank=2), RESET)


def test_another_error_is_left_alone():
    check_others(Several(), RuntimeError("shapes do not match"))
    check_others(Several(), ValueError("gloo"))
    check_others(Trainer(logger=False, accelerator="cpu"), RESET)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("lost", [0, 1])
def test_the_command_says_in_one_line_which_process_was_killed(lost, tmp_path):
    written(tmp_path, maml=MAML)
    words = ["fit", "--config=maml.yaml", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    words += ["--trainer.devices=2", "--data.steps_per_epoch=10000"]
    with (tmp_path / "messages").open("w") as messages:
        run = subprocess.Popen(
            [sys.executable, "-m", "lightning_metakd", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=messages,
            stderr=messages,
        )
    while not (tmp_path / "runs/maml/0/config.fit.yaml").exists():
        assert run.poll() is None, (tmp_path / "messages").read_text()
        time.sleep(0.1)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    other = next(int(pid) for pid in children if b"LOCAL_RANK=1" in environment(pid))
    os.kill((run.pid, other)[lost], signal.SIGKILL)
    assert run.wait(timeout=60) != 0
    deadline = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = (tmp_path / "messages").read_text().splitlines()
    how = " (killed by SIGKILL)" if lost else ""
    (last,) = [line for line in lines if line.startswith("metakd: ")]
    assert last.startswith(f"metakd: process {lost} of 2 was lost{how}, and the others")
    assert len(lines) < 6


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()
