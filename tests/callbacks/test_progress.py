import sys

from lightning_metakd.callbacks.progress import Progress
from tests.callbacks.tiny import Tiny, batches, trainer


def test_without_a_terminal_there_is_one_line_per_validation(tmp_path, capsys):
    runner = trainer(tmp_path, Progress(), enable_progress_bar=True, max_epochs=2)
    runner.fit(Tiny(), batches(), batches())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert said == ["step 6: loss 0.5, val 0.625", "step 12: loss 0.5, val 0.625"]


def test_on_a_terminal_the_bar_shows_what_matters(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Progress(refresh_rate=1)
    runner = trainer(tmp_path, bar, enable_progress_bar=True)
    module = Tiny()
    runner.fit(module, batches(), batches())
    told = bar.get_metrics(runner, module)
    assert told == {"loss": 0.5, "val": 0.625, "gate": module.describe_strategy()["gate_mean"]}
    printed = capsys.readouterr()
    assert "gate=" in printed.out + printed.err


def test_a_bar_that_is_switched_off_says_nothing(tmp_path, capsys):
    runner = trainer(tmp_path, Progress(refresh_rate=0), enable_progress_bar=True)
    runner.fit(Tiny(), batches(), batches())
    assert "step 6" not in capsys.readouterr().err
