"""What the README promises can be typed as it stands there."""

import importlib
import re
from math import fsum
from pathlib import Path

import pytest

from experiments.plan import in_order
from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.teachers import preparation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX`")
def test_the_lines_of_python_run(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for many in ("max_steps=100", "n_episodes=100"):
        assert many in block
        block = block.replace(many, many.replace("100", "1"))
    monkeypatch.setattr(preparation, "CALIBRATION_EPISODES", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    settings = {}
    exec(compile(block, "README.md", "exec"), settings)
    assert settings["trainer"].global_step == 1
    (result,) = read_results(tmp_path / "runs" / "first")
    assert result.row["accuracy"] == settings["recipe"].record.result["accuracy"]
    assert not (tmp_path / "lightning_logs").exists()


def test_its_four_rows_are_those_of_the_main_table():
    page = (ROOT / "docs" / "results" / "cifar-fs.md").read_text()
    accuracies = {
        shots: dict(re.findall(r"^\| (\w+) +\| +([\d.]+ ± [\d.]+) \|", section, re.MULTILINE))
        for shots, section in re.findall(
            r"^### CIFARFS, test, 5-way (\d)-shot, ProtoNet\n(.*?)(?=^###|^Accuracy)",
            page,
            flags=re.DOTALL | re.MULTILINE,
        )
    }
    rows = re.findall(
        r"^\| `(\w+)` +\| ([\d.]+ ± [\d.]+) \| ([\d.]+ ± [\d.]+) \|", README, re.MULTILINE
    )
    assert {row: one for row, one, _ in rows} == accuracies["1"]
    assert {row: five for row, _, five in rows} == accuracies["5"]
    assert len(rows) == 4


def test_the_minutes_of_its_experiments_are_those_of_their_plans():
    makefile = (ROOT / "Makefile").read_text()
    plans = re.findall(
        r"^([a-z0-9-]+): .*\n.*-m experiments\.(\w+) --data \$\(DATA\) ", makefile, re.M
    )
    assert len(plans) == 21
    for target, module in plans:
        runs = in_order(importlib.import_module(f"experiments.{module}").plan("data"))
        (minutes,) = re.findall(rf"\| `make {target}` \| (\d+)", README)
        assert int(minutes) == round(fsum(run.minutes for run in runs)), target
