"""The runner does what is missing, in order, and nothing twice."""

import os
import sys
from pathlib import Path

import pytest

from experiments import runner
from experiments.plan import Run, fit, in_order, report
from experiments.runner import main
from tests.left_results import leave


def plan(data):
    """A start, a student from it, two tests and their table."""
    start = fit("single_task_cifar_fs_start", data)
    student = fit("single_task_cifar_fs_plain", data, start)
    evaluate, tests = "meta_kd_cifar_fs_5w5s_evaluate", []
    for shots in (1, 5):
        options = (f"--model.initialisation.checkpoint={student.mark}", f"--data.k_shot={shots}")
        tests.append(Run("test", f"table/{shots}shot/plain", evaluate, options, (student,)))
    return [report("table", "cifar-fs", "cifar-fs", tests)]


NAMES = [run.name for run in in_order(plan("data"))]


class FakeCommand:
    """Leaves the file of a complete run, and keeps what it was called with; stops at one of them."""

    def __init__(self):
        self.calls, self.stop_at = [], None
        self.data = Path("data").resolve()

    def __call__(self):
        words = sys.argv[1:]
        self.calls.append(words)
        run = self.run_of(words)
        if run.name == self.stop_at:
            touch(run.mark.with_name("last.ckpt"))
            raise KeyboardInterrupt
        if run.mark.suffix:
            touch(run.mark)

    def run_of(self, words):
        runs = in_order(plan(os.path.relpath(self.data)))
        (run,) = [run for run in runs if words[: len(run.words)] == run.words]
        return run

    @property
    def names(self):
        """The runs in their order."""
        return [self.run_of(words).name for words in self.calls]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    fake = FakeCommand()
    monkeypatch.setattr(runner, "metakd", fake)
    monkeypatch.setattr(sys, "argv", ["main_table"])
    monkeypatch.setattr(runner, "tidy_terminal", lambda: None)
    return fake


def test_all_runs_are_done_behind_what_they_need(command):
    main(plan, [])
    assert command.names == NAMES
    assert NAMES[:2] == ["fit single_task_cifar_fs_start", "fit single_task_cifar_fs_plain"]
    assert NAMES[-1] == "report table"


def test_what_is_complete_is_not_repeated(command):
    main(plan, [])
    command.calls.clear()
    main(plan, [])
    assert command.names == ["report table"]


def test_what_was_stopped_is_resumed_and_the_rest_follows(command, capsys):
    command.stop_at = NAMES[1]
    with pytest.raises(KeyboardInterrupt):
        main(plan, [])
    assert command.names == NAMES[:2]
    main(plan, ["--dry-run"])
    assert "   7.0 min  to resume   fit single_task_cifar_fs_plain\n" in capsys.readouterr().out
    command.calls.clear()
    command.stop_at = None
    main(plan, [])
    assert command.names == NAMES[1:]
    assert command.calls[0][:2] == ["fit", "--resume"]


def test_a_test_with_results_needs_no_training(command, capsys):
    main(plan, [])
    for run in in_order(plan("data"))[:2]:
        run.mark.unlink()
    main(plan, ["--dry-run"])
    assert "   7.0 min  not needed  fit single_task_cifar_fs_plain\n" in capsys.readouterr().out
    command.calls.clear()
    main(plan, [])
    assert command.names == ["report table"]


def test_further_options_go_to_every_training(command):
    main(plan, ["--trainer.max_time=00:00:14:00"])
    commands = [words[0] for words in command.calls if "--trainer.max_time=00:00:14:00" in words]
    assert commands == ["fit", "fit"]


def test_a_dry_run_prints_minutes_and_does_nothing(command, capsys):
    main(plan, ["--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert command.calls == []
    assert [line[24:] for line in lines[:-1]] == NAMES
    assert lines[0] == "   5.0 min  to do       fit single_task_cifar_fs_start"
    assert lines[-1] == "  15.0 min  for what is left: 5 of 5 runs"


def test_runs_of_a_pattern_are_done_with_what_they_need(command):
    main(plan, ["--only", "test table/1shot/*"])
    assert command.names == NAMES[:3]
    with pytest.raises(
        ValueError, match=r"--only=tets matches no run; --dry-run prints their names"
    ):
        main(plan, ["--only", "tets"])


def test_runs_may_lie_elsewhere(command, tmp_path, monkeypatch):
    main(plan, ["--runs", "disk/runs", "--only", NAMES[0]])
    assert Path.cwd() == tmp_path / "disk"
    assert Path("runs/single_task_cifar_fs_start/latest/checkpoints/final.ckpt").is_file()
    (words,) = command.calls
    assert Path(words[words.index("--config") + 1]).is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--runs", "disk"],
            "--runs=disk must end in runs, where experiments look for starts; add",
        ),
        (["--data", "nowhere"], "--data=nowhere is no folder; name the one that holds the images"),
    ],
)
def test_a_wrong_folder_is_refused_before_anything_runs(command, capsys, words, line):
    with pytest.raises(SystemExit):
        main(plan, words)
    assert line in capsys.readouterr().err
    assert command.calls == []


def test_a_report_is_a_command_like_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main_table"])
    Path("data").mkdir()
    page = Path("page.md")
    page.write_text("# Page\n\n<!-- results:begin table -->\n<!-- results:end -->\n")
    leave(Path("runs/table/maml/0"))
    assert main(
        lambda data: [Run("report", "table", "", (f"--output={page}", "--section=table"))], []
    )
    assert "| maml |" in page.read_text()
