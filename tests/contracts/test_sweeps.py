"""A sweep passes its parameters through the command, as the agent of Weights & Biases types it."""

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lightning_metakd.cli.command import build
from tests.commands import CONFIGS, work_in

SWEEPS = sorted((CONFIGS / "sweep").glob("*.yaml"))


def value_of(parameter, last):
    """The first or the last value that a parameter may take."""
    if "values" in parameter:
        return parameter["values"][-last]
    return parameter["max" if last else "min"]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_parameters_of_a_sweep_arrive(path, last, tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.chdir(CONFIGS.parent)
    sweep = yaml.safe_load(path.read_text())
    chosen = {name: value_of(p, last) for name, p in sweep["parameters"].items()}
    args = create_sweep_command_args({"args": {n: {"value": v} for n, v in chosen.items()}})
    at = sweep["command"].index("${args}")
    program, command, *words = [*sweep["command"][:at], *args["args"], *sweep["command"][at + 1 :]]
    assert (program, command) == (sweep["program"], "fit")
    words = [w for w in words if "logger" not in w]  # which would look for an account
    run = build([*words, "--trainer.accelerator=cpu"], run=False)
    loss, optimisation = run.model.loss, run.model.optimisation
    assert loss.gate.value == chosen["model.loss.gate"]
    assert loss.match.temperature.value == chosen["model.loss.match.temperature"]
    assert optimisation.lr == chosen["model.optimisation.lr"]


@pytest.mark.thorough
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_run_of_a_sweep_logs_what_the_sweep_compares(path, tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.chdir(CONFIGS.parent)
    sweep = yaml.safe_load(path.read_text())
    words = [w for w in sweep["command"][2:] if "logger" not in w and w != "${args}"]
    words += ["--model.teachers=[]", "--model.loss=configs/loss/cross_entropy.yaml"]
    words += ["--data.n_episodes=2", "--data.steps_per_epoch=1"]
    words += ["--trainer.max_steps=1", "--trainer.log_every_n_steps=1"]
    run = build([*words, f"--runs={tmp_path}/runs", "--trainer.accelerator=cpu"], run=False)
    run.trainer.fit(run.model, run.datamodule)
    assert sweep["metric"]["goal"] == "maximize"
    assert sweep["metric"]["name"] in run.trainer.logged_metrics
