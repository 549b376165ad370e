"""Every command of every experiment can be typed as it stands in its plan."""

import re
from math import fsum

import pytest

from experiments import (
    continual,
    domains,
    efficientnet,
    intents,
    kinds_of_teachers,
    label_efficiency,
    learners,
    main_table,
    misled_gates,
    plain_conv4,
    published,
    regimes,
    specialists,
    teaching,
    three_stages,
    transfer,
    two_domains,
    wide_teachers,
    wrong_labels,
    wrong_support,
)
from experiments.gate_runs import CONV4, symmetric, training
from experiments.plan import ROOT, Run, in_order
from experiments.runner import main
from lightning_metakd.cli.command import build
from tests.commands import work_in

EXPERIMENTS = (
    *(main_table, learners, teaching, transfer, efficientnet, three_stages, kinds_of_teachers),
    *(intents, continual, label_efficiency, domains, wrong_labels, regimes),
    *(wrong_support, plain_conv4, wide_teachers, specialists, two_domains, misled_gates),
    published,
)
RUNS = in_order(run for experiment in EXPERIMENTS for run in experiment.plan("images"))
every = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda module: module.__name__)


def sample(runs):
    """Runs that together have every option of every command; files are tested one by one elsewhere."""
    covered, chosen = set(), []
    for run in runs:
        options = {(run.command, word.split("=")[0]) for word in run.options}
        if run.command != "report" and not options <= covered:
            chosen.append(run)
            covered |= options
    return chosen


@every
def test_its_plan_is_printed_with_minutes(experiment, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(experiment.plan, ["--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    runs = in_order(experiment.plan("data"))
    assert [line[24:] for line in lines[:-1]] == [run.name for run in runs]
    minutes = fsum(run.minutes for run in runs)
    assert lines[-1].split() == [
        *(f"{minutes:.1f}", "min", "for", "what", "is", "left:"),
        *(f"{len(runs)}", "of", f"{len(runs)}", "runs"),
    ]


def test_minutes_follow_the_steps_that_options_set():
    whole = Run("fit", "whole", "single_task_cifar_fs_distilled")
    third = Run("fit", "third", whole.config, ("--trainer.max_steps=5000",))
    assert whole.minutes > 0
    assert third.minutes == pytest.approx(whole.minutes / 3)
    tuned = "meta_kd_cifar_fs_5w5s_tuned"
    tests = [Run("test", "a", tuned, options) for options in ((), ("--trainer.max_steps=1",))]
    assert tests[0].minutes == tests[1].minutes


def test_a_gate_of_images_is_that_of_one_rate_wherever_it_goes():
    (file,) = {
        word
        for rate in (20, 40, 60)
        for word in training("test", symmetric(rate, CONV4), 0, "carried from images", "d").options
        if word.startswith("--model.initialisation.strategy_file=")
    }
    assert "/val/rate40/seed0/" in file


@every
def test_its_tables_have_a_section_in_their_pages(experiment):
    for run in in_order(experiment.plan("data")):
        if run.command == "report":
            settings = dict(word.split("=") for word in run.words if "=" in word)
            page = (ROOT / settings["--output"]).read_text()
            assert page.count(f"<!-- results:begin {settings['--section']} -->") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("run", sample(RUNS), ids=lambda run: run.name)
def test_a_command_is_understood(run, tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.chdir(ROOT)
    if "efficientnet" in run.config:
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `pretrained`")
    words = [word for word in run.words[1:] if not word.startswith(("--resume", "--ckpt_path"))]
    build([*words, "--trainer.accelerator=cpu"], run=False)


def test_files_and_controls_that_commands_name_exist():
    words = [word for run in RUNS for word in run.words]
    files = {match[0] for word in words for match in re.finditer(r"[\w./]*configs/\S+\.yaml", word)}
    assert len(files) > 30
    assert [file for file in files if not (ROOT / file).is_file()] == []
