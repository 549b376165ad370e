import re
import sys
import time

import pytest

from lightning_metakd.callbacks.progress_bar import ProgressBar, seconds_left
from tests.callbacks.tiny import Tiny, batches, trainer


def test_without_a_terminal_there_is_one_line_per_validation(tmp_path, capsys):
    runner = trainer(tmp_path, ProgressBar(), enable_progress_bar=True, max_epochs=2)
    runner.fit(Tiny(), batches(), batches())
    text = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert text == ["step 6: loss 0.5, val 0.625", "step 12: loss 0.5, val 0.625"]


def test_on_a_terminal_the_bar_shows_what_matters(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = ProgressBar(refresh_rate=1)
    runner = trainer(tmp_path, bar, enable_progress_bar=True)
    module = Tiny()
    runner.fit(module, batches(), batches())
    result = bar.get_metrics(runner, module)
    assert result == {"loss": 0.5, "val": 0.625, "gate": module.coefficient_log.values["gate_mean"]}
    printed = capsys.readouterr()
    assert "gate=" in printed.out + printed.err


def test_a_bar_that_is_switched_off_says_nothing(tmp_path, capsys):
    runner = trainer(tmp_path, ProgressBar(refresh_rate=0), enable_progress_bar=True)
    runner.fit(Tiny(), batches(), batches())
    assert "step 6" not in capsys.readouterr().err


class Slow(Tiny):
    def training_step(self, batch, index):
        super().training_step(batch, index)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"max_epochs": 1}, r"0\.?\d* s left"),
        ({"max_epochs": -1, "max_time": {"seconds": 1}}, "1 s left"),
    ],
)
def test_without_a_terminal_there_is_a_line_now_and_then(options, left, tmp_path, capsys):
    bar = ProgressBar(every_seconds=0.03)
    trainer(tmp_path, bar, enable_progress_bar=True, limit_val_batches=0, **options).fit(
        Slow(), batches()
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert 2 <= len(lines) < trainer_steps(tmp_path)
    assert re.fullmatch(rf"step \d+: loss 0.5, {left}", lines[0])


def trainer_steps(folder):
    return len((folder / "tiny/0/metrics.csv").read_text().splitlines())


def test_time_left_is_that_of_the_pace_so_far(tmp_path):
    run = trainer(tmp_path, max_steps=6, max_epochs=-1)
    run.fit(Tiny(), batches())
    run.fit_loop.epoch_loop.max_steps = 12
    assert seconds_left(run, elapsed=3.0, first_step=0) == 3.0
    assert seconds_left(run, elapsed=3.0, first_step=3) == 6.0
