"""Several processes are one run of W&B."""

import pytest
import wandb

from tests.commands import CONFIGS, MAML, written
from tests.loggers.nobody import without_account
from tests.loggers.offline_file import offline_run
from tests.processes import run_on
from tests.test_distributed import command


def offline_command(rank, world, folder, words):
    """The command, without an account, and the end of its process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_account(monkeypatch, folder)
        _, steps = command(rank, world, str(folder), words)
        wandb.teardown()
    return steps


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_are_one_run_in_training_and_in_a_test(tmp_path):
    written(tmp_path, maml=MAML)
    logger = f"--config={CONFIGS / 'logger' / 'wandb.yaml'}"
    final = "runs/maml/latest/checkpoints/final.ckpt"
    for words in (["fit"], ["test", f"--ckpt_path={final}"]):
        words += ["--config=maml.yaml", logger]
        one, other = run_on(2, tmp_path, offline_command, tmp_path, words)
        assert one == other, one
    assert len([*(tmp_path / "runs").rglob("*.wandb")]) == 2
    fit, test = (offline_run(tmp_path / "runs" / name / "0") for name in ("maml", "maml.test"))
    (student,) = [a for a in fit.artifacts["network"] if "final" in a.aliases]
    (judge,) = test.artifacts["network"]
    assert (judge.name, judge.use_after_commit) == (student.name, True)
    assert any(name.startswith("test/pareto") for name in test.history[-1])
