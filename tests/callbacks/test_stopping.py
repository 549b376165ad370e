"""A signal ends the run where nothing is lost; the handlers of before come back."""

import os
import signal
import stat

import pytest
import torch
from lightning.pytorch import Callback

from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.stopping import SIGNALS, StopOnSignal, Stopped
from tests.callbacks.test_checkpoints import fit, rows, states
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.commands import same


class Send(Callback):
    """Sends a signal to this process.

    Args:
        number: of the signal.
        step: outer steps before.
        hook: where in the step after, or in what follows.
        times: how often it is sent.
    """

    def __init__(self, number, step, hook, times=1):
        self.number, self.step, self.times = number, step, times
        setattr(self, hook, self.send)

    def send(self, run, *args):
        if run.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
            self.times = 0


@pytest.fixture(autouse=True)
def handlers():
    """None is left behind."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


PLACES = [  # of two epochs of three steps, validated after each; and the step that is saved
    ("on_train_batch_start", 1, 2),
    ("on_train_batch_end", 2, 2),
    ("on_train_batch_end", 3, 3),
    ("on_validation_batch_start", 3, 3),
    ("on_validation_end", 3, 3),
    ("on_train_epoch_start", 3, 4),
]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("hook", "step", "saved"), PLACES)
def test_the_step_in_hand_ends_and_the_run_goes_on_from_it(
    number, hook, step, saved, tmp_path, capsys
):
    whole = fit(tmp_path / "whole")
    stop = [Send(number, step, hook), StopOnSignal()]
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "cut", *stop, every_minutes=60.0)
    assert stopped.value.code == 128 + number
    name, last = signal.Signals(number).name, tmp_path / "cut/tiny/0/checkpoints/last.ckpt"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped by {name} at step {saved}; {last} of step {saved} is there: the same command with "
        "--resume goes on from it."
    )
    cut = fit(tmp_path / "cut", StopOnSignal(), version="0")
    assert rows(cut) == rows(whole)
    assert same(states(cut), states(whole))


def test_a_second_interrupt_ends_the_run_at_once(tmp_path, capfd):
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, Send(signal.SIGINT, 4, "on_train_batch_start", 2), StopOnSignal())
    assert stopped.value.code == 130
    text = capfd.readouterr().err
    assert "Ctrl-C again stops at once" in text
    assert "stopped by SIGINT at step 4; " in text
    assert "last.ckpt of step 3 is there" in text


def test_before_training_the_run_ends_at_once_and_leaves_nothing(tmp_path, capsys):
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, StopOnSignal(), Send(signal.SIGTERM, 0, "on_fit_start"))
    assert stopped.value.code == 143
    assert capsys.readouterr().err == (
        "stopped by SIGTERM before training began; nothing was saved.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_evaluation_ends_at_once(command, tmp_path):
    hooks = {"validate": "on_validation_batch_end", "test": "on_test_batch_end"}
    run = trainer(tmp_path, StopOnSignal(), Send(signal.SIGTERM, 0, hooks[command]))
    with pytest.raises(Stopped) as stopped:
        getattr(run, command)(Tiny(), batches(), verbose=False)
    assert stopped.value.code == 143


def test_a_signal_in_the_last_step_leaves_a_run_that_is_completed_by_going_on(tmp_path):
    whole = fit(tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(tmp_path / "cut", StopOnSignal(), Send(signal.SIGTERM, 6, "on_validation_start"))
    cut = fit(tmp_path / "cut", version="0")
    assert rows(cut) == rows(whole)
    assert same(states(cut), states(whole))


@pytest.mark.parametrize("array", [False, True])
def test_slurm_queues_the_job_again_and_the_exit_code_is_zero(array, tmp_path, monkeypatch):
    for name, value in {
        "NTASKS": 1,
        "JOB_NAME": "x",
        "JOB_ID": 17,
        "PROCID": 0,
        "LOCALID": 0,
        "NODEID": 0,
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "18")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    control = tmp_path / "bin" / "scontrol"
    control.parent.mkdir()
    control.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    control.chmod(control.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{control.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, Send(signal.SIGUSR1, 2, "on_train_batch_end"), StopOnSignal())
    assert stopped.value.code == 0
    assert (tmp_path / "asked").read_text() == f"requeue {'18_3' if array else 17}\n"
    assert (
        torch.load(tmp_path / "tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    )
    control.write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    with pytest.raises(
        OSError, match=r"could not be queued again \(no such job\); submit it once more"
    ):
        fit(tmp_path, Send(signal.SIGUSR1, 2, "on_train_batch_end"), StopOnSignal())


def test_nothing_is_promised_where_nothing_is_written(tmp_path, capsys):
    run = trainer(
        tmp_path, Send(signal.SIGTERM, 2, "on_train_batch_end"), StopOnSignal(), Checkpoints(),
        logger=False, enable_checkpointing=True,
    )  # fmt: skip
    with pytest.raises(Stopped):
        run.fit(Tiny(), batches())
    assert capsys.readouterr().err == "stopped by SIGTERM at step 2; nothing was saved.\n"
