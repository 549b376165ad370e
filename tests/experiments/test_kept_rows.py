"""Rows that are kept are those that runs have left, and lie where plans look for them."""

import json

import pytest

from experiments import kept_rows
from experiments.gate_runs import result, validated_by
from experiments.kept_rows import all_tests, kept, pack, unpack
from experiments.plan import in_order

LINE = {"accuracy": 0.1 + 0.2, "wall_s": 7.25, "git": "ab12", "device": "cpu, of two", "threads": 1}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory, and a file of rows beside it."""
    monkeypatch.setattr(kept_rows, "FILE", tmp_path / "rows.csv")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def complete(run, line, chosen_by):
    """What a test and its training leave."""
    (training,) = run.needs
    for mark, text in ((run.mark, json.dumps(line)), (training.mark, "")):
        mark.parent.mkdir(parents=True)
        mark.write_text(text)
    chosen = f"step,val/student_accuracy\n1,{chosen_by}\n2,\n"
    training.mark.parents[1].joinpath("metrics.csv").write_text(chosen)


def two():
    """Two tests of the plans."""
    return list(all_tests().values())[:2]


def test_rows_are_the_same_on_another_machine(work, monkeypatch):
    run, other = two()
    complete(run, LINE, 1 / 3)
    assert pack() == 1
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    assert unpack() == 1
    assert run.complete
    assert not other.complete
    assert result(run) == LINE
    (training,) = run.needs
    assert validated_by(training) == 1 / 3
    assert run not in in_order([run, other], skip=lambda run: run.complete)


def test_rows_of_several_machines_are_gathered(work, monkeypatch):
    run, other = two()
    complete(run, LINE, 0.5)
    pack()
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    complete(other, LINE | {"accuracy": 0.75}, 0.25)
    assert pack() == 2
    assert {row["accuracy"] for row in kept().values()} == {str(LINE["accuracy"]), "0.75"}


@pytest.mark.usefixtures("work")
def test_what_was_run_here_stays():
    run = two()[0]
    complete(run, LINE, 0.5)
    pack()
    run.mark.write_text(json.dumps(LINE | {"accuracy": 0.9}))
    assert unpack() == 0
    assert result(run)["accuracy"] == 0.9
