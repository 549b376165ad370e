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
    assert run.datamodule.k_shot == chosen["data.k_shot"]
    assert sweep["metric"] == {"name": "val/student_accuracy", "goal": "maximize"}
