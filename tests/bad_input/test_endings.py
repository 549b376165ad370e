"""How a command ends: one line, an exit code that says whose fault it is, and a file with the rest."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar

from lightning_metakd.cli import command, front_door
from lightning_metakd.cli.console import where
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.functional.params import subtree
from tests.commands import MAML, written

MAML_FIT = ("fit", "--config", "maml.yaml")


def ended(main, monkeypatch, capsys, words=("fit",)):
    """Exit code, last line, and what stood before it, of a command that ends like this."""
    monkeypatch.setattr(front_door, "prepared", lambda args: main)
    monkeypatch.setattr(front_door, "tidy_terminal", lambda: None)
    monkeypatch.setattr(sys, "argv", ["metakd", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as done:
        front_door.console()
    *before, line = capsys.readouterr().err.splitlines() or [""]
    return done.value.code, line, "\n".join(before)


class Faulty(Callback):
    """A mistake of the program, in the middle of a run."""

    def on_train_batch_end(self, *args):
        raise RuntimeError("ftp://me:secret@host is away")


def test_a_fault_of_the_program_is_one_line_and_is_written_down_in_the_runs_directory(
    metakd, folder, monkeypatch, capsys
):
    words = [*MAML_FIT, f"--trainer.callbacks+={__name__}.Faulty"]
    code, line, before = ended(command.main, monkeypatch, capsys, words)
    assert code == 70
    assert re.match(
        r"metakd: a fault in test_endings\.py, line \d+, RuntimeError: ftp://\*\*\*@host is away",
        line,
    )
    assert "the full traceback is in runs/maml/1/error.log" in line
    assert "Traceback" not in before
    log = Path("runs/maml/1/error.log").read_text()
    assert "in on_train_batch_end" in log
    assert f"torch {torch.__version__.split('+')[0]}" in log
    assert "secret" not in log


class Away(Synthetic):
    """Images that cannot be told from others, by a mistake of the program."""

    content = property(lambda self: {}["content"])


def test_a_fault_before_anything_is_written_is_not_lost(metakd, folder, monkeypatch, capsys):
    words = [*MAML_FIT, f"--data.source={__name__}.Away", "--experiment=early"]
    code, line, _ = ended(command.main, monkeypatch, capsys, words)
    assert code == 70
    assert re.match(
        r"metakd: a fault in test_endings\.py, line \d+, KeyError: 'content' \(the full", line
    )
    assert "in <lambda>" in Path("runs/early/0/error.log").read_text()


@pytest.mark.usefixtures("as_users_run_it")
def test_a_fault_is_the_programs_where_no_file_of_a_user_is_in_its_traceback():
    with pytest.raises(AttributeError) as caught:
        subtree(None, "student")
    assert re.match(r"in test_endings\.py, line \d+$", where(caught.value))
    assert where(caught.value.with_traceback(caught.tb.tb_next)) == "of the program"


def test_a_fault_before_there_is_a_run_is_written_down_too(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail():
        raise RuntimeError("shapes do not match")

    words = ["fit", "--api_key=secret"]
    code, line, _ = ended(fail, monkeypatch, capsys, words)
    (log,) = tmp_path.iterdir()
    assert code == 70
    assert str(log) in line
    text = log.read_text()
    assert text.startswith("metakd fit --api_key=***\n")
    assert "RuntimeError: shapes do not match" in text


def test_an_interruption_ends_with_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert ended(interrupt, monkeypatch, capsys)[0] == 130


def test_no_memory_is_not_a_fault_of_the_program(monkeypatch, capsys):
    def fail():
        torch.empty(2**60)

    code, line, _ = ended(fail, monkeypatch, capsys)
    assert code == 1
    assert "lower data.meta_batch_size" in line


def test_the_command_alone_prints_its_help(metakd, capsys):
    with pytest.raises(SystemExit) as done:
        metakd()
    assert done.value.code == 0
    assert "commands:" in capsys.readouterr().out


def test_modules_of_the_working_directory_are_found(metakd, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_nets.py").write_text(
        "from lightning_metakd.models.mlp import MLP\nclass Net(MLP): pass\n"
    )
    written(tmp_path, maml=MAML)
    words = [*MAML_FIT, "--model.student=own_nets.Net", "--print_config"]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "argv", ["metakd", *words])
    monkeypatch.setattr(front_door, "tidy_terminal", lambda: None)
    with pytest.raises(SystemExit) as done:
        front_door.console()
    assert done.value.code == 0
    assert "class_path: own_nets.Net" in capsys.readouterr().out
    assert sys.path[-1] == str(tmp_path)  # behind all that is installed


@pytest.mark.parametrize(
    "bar", ["--trainer.enable_progress_bar=false", "--trainer.callbacks=TQDMProgressBar"]
)
def test_the_progress_bar_gives_way(bar, metakd, folder):
    run = metakd(*MAML_FIT, "--trainer.fast_dev_run=1", bar)
    bars = [type(c).__name__ for c in run.trainer.callbacks if isinstance(c, ProgressBar)]
    assert bars == ([] if "false" in bar else ["TQDMProgressBar"])


def test_the_console_says_it_in_one_line_and_ends_with_one(metakd, folder, monkeypatch, capsys):
    monkeypatch.setattr(front_door, "tidy_terminal", lambda: None)  # what it switches off stays off
    monkeypatch.setattr(
        sys, "argv", ["metakd", *MAML_FIT, "--data.n_way=17", "--model.student.n_classes=17"]
    )
    with pytest.raises(SystemExit) as done:
        front_door.console()
    assert done.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("metakd: n_way=17 exceeds the 16 classes of split 'val' in Synthetic;")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("n_way=17 is too much"), "metakd: n_way=17 is too much"),
        (OSError(28, "nothing could be written; free some space"), "metakd: nothing could be writ"),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), "file or directory: a.yaml"),
        (FloatingPointError("the gradient is nan"), "metakd: the gradient is nan"),
    ],
)
def test_an_error_is_said_without_a_trace_unless_asked_for(error, message, monkeypatch, capsys):
    def fail():
        raise error

    code, line, _ = ended(fail, monkeypatch, capsys)
    assert code == 1
    assert message in line
    monkeypatch.setenv("METAKD_TRACEBACK", "1")
    code, line, before = ended(fail, monkeypatch, capsys)
    assert message in line
    assert "Traceback (most recent call last)" in before
