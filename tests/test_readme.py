"""What the README promises can be typed as it stands there."""

import re
from pathlib import Path

import pytest

from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.teachers import preparation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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


def test_the_configurations_and_targets_it_names_exist():
    for path in set(re.findall(r"configs/[\w/]+\.yaml", README)):
        assert (ROOT / path).is_file(), path
    for name in set(re.findall(r"^\| \w \| `(\w+)` \|", README, flags=re.MULTILINE)):
        assert (ROOT / "configs" / "experiment" / f"{name}.yaml").is_file(), name
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE)) <= set(targets)
