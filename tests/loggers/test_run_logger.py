from pathlib import Path

import pytest
import torch

from lightning_metakd.loggers.run_logger import RunLogger, new_version
from tests.processes import run_on


def test_versions_count_up_and_latest_points_to_the_newest(tmp_path):
    runs = [RunLogger("a", str(tmp_path)) for _ in range(3)]
    assert [run.version for run in runs] == ["0", "1", "2"]
    assert runs[1].log_dir == str(tmp_path / "a" / "1")
    assert not (
        tmp_path / "a" / "latest"
    ).exists()  # a run that fails before its first number is not it
    for run in runs[:2]:
        run.log_metrics({"x": 1.0}, 0)
        assert (tmp_path / "a" / "latest").readlink() == Path(run.version)
    (tmp_path / "a" / "11").mkdir()
    assert RunLogger("a", str(tmp_path)).version == "12"
    assert RunLogger("b", str(tmp_path)).version == "0"


def test_a_directory_that_another_start_took_in_between_is_left_alone(tmp_path, monkeypatch):
    make, taken = Path.mkdir, []

    def rival(self, *args, **kwargs):
        if self.name == "0" and not taken:
            taken.append(make(self))
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", rival)
    assert new_version(tmp_path) == "1"


def reserve(rank, world, folder):
    torch.distributed.barrier()
    return [new_version(folder) for _ in range(20)]


@pytest.mark.thorough
@pytest.mark.ddp
def test_two_starts_at_once_never_share_a_directory(tmp_path):
    one, other = run_on(2, tmp_path, reserve, tmp_path / "runs")
    assert sorted(map(int, one + other)) == list(range(40))


def agree(rank, world, folder):
    return RunLogger("a", str(folder)).log_dir


@pytest.mark.thorough
@pytest.mark.ddp
def test_all_processes_agree_on_one_directory(tmp_path):
    (tmp_path / "runs" / "a" / "4").mkdir(parents=True)
    result = run_on(2, tmp_path, agree, tmp_path / "runs")
    assert result == [str(tmp_path / "runs" / "a" / "5")] * 2


def test_latest_that_cannot_be_set_is_a_warning(tmp_path):
    (tmp_path / "a" / "latest" / "full").mkdir(parents=True)
    with pytest.warns(UserWarning, match="latest could not be set .*read "):
        RunLogger("a", str(tmp_path)).log_metrics({"x": 1.0}, 0)
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["a/b", "..", "latest", "-x", " "])
def test_a_name_that_is_no_directory_is_refused(name):
    with pytest.raises(ValueError, match="names a directory; use letters, digits"):
        RunLogger(name)


def test_hyper_parameters_are_kept_without_secrets(tmp_path):
    run = RunLogger("a", str(tmp_path))
    run.log_hyperparams({"lr": 0.5, "api_key": "abc"})
    run.log_metrics({"x": 1.0}, 0)
    run.save()
    text = (tmp_path / "a" / "0" / "hparams.yaml").read_text()
    assert "abc" not in text
    assert "lr: 0.5" in text


def test_hyper_parameters_come_with_the_first_numbers_and_grow_afterwards(tmp_path):
    run, file = RunLogger("a", str(tmp_path)), tmp_path / "a" / "0" / "hparams.yaml"
    run.log_hyperparams({"lr": 0.5})
    assert not file.exists()
    run.log_metrics({"x": 1.0}, 0)
    run.save()
    run.log_hyperparams({"width": 4})
    assert file.read_text() == "lr: 0.5\nwidth: 4\n"


def test_a_run_that_wrote_nothing_leaves_no_directory_and_no_other_run_is_touched(tmp_path):
    one, other = (RunLogger("a", str(tmp_path)) for _ in range(2))
    assert (one.version, other.version) == ("0", "1")
    one.log_hyperparams({"lr": 0.5})
    one.finalize("failed")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]
    other.finalize("failed")
    assert not list(tmp_path.iterdir())
