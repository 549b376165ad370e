"""Mistakes that show on the way: nothing half-done looks whole, and how a run ends is said."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lightning.pytorch.strategies import FSDPStrategy

from lightning_metakd.recipes.outer_update import check_unsharded

MAML_FINAL = "runs/maml/0/checkpoints/final.ckpt"
MAML_FIT = ("fit", "--config", "maml.yaml")


def test_a_learned_strategy_may_be_frozen(metakd, folder):
    run = metakd(
        "fit",
        "--config",
        "student.yaml",
        "--model.strategy_training.lr=0",
        "--trainer.max_epochs=1",
    )
    assert all(not p.requires_grad for p in run.model.loss.parameters())
    assert Path("runs/student/0/strategy.safetensors").is_file()


def test_a_sharding_strategy_is_refused_in_python_too():
    with pytest.raises(ValueError, match=r"strategy=FSDPStrategy divides parameters .* use ddp"):
        check_unsharded(FSDPStrategy())


def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(metakd, folder):
    message = (
        r"the gradient is nan at step \d.*nothing was changed\. Start anew with a lower "
        r"model\.optimisation\.lr=1e\+30"
    )
    words = ("--model.optimisation.optimiser=sgd", "--model.optimisation.lr=1e30")
    content = (folder / MAML_FINAL).read_bytes()
    with pytest.raises(FloatingPointError, match=message):
        metakd(*MAML_FIT, *words)
    assert (folder / MAML_FINAL).read_bytes() == content
    assert not list(folder.glob("runs/maml/1/checkpoints/*.ckpt"))


@pytest.fixture
def full_disk(folder):
    """A disk of 300 kB."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here; only root may")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.thorough
def test_a_full_disk_is_told_and_leaves_what_was_there(metakd, full_disk):
    words = (*MAML_FIT, f"--runs={full_disk}")
    metakd(*words, "--trainer.max_epochs=1")
    kept = (full_disk / "maml" / "0" / "checkpoints" / "final.ckpt").read_bytes()
    (full_disk / "filler").write_bytes(bytes(1000 * free_kb(full_disk) - 20_000))
    message = r"could not be written \(No space left on device.* free some space"
    with pytest.raises(OSError, match=message):
        metakd(*words)
    assert (full_disk / "maml" / "0" / "checkpoints" / "final.ckpt").read_bytes() == kept
    later = list(full_disk.glob("maml/1/checkpoints/*"))
    assert not [path for path in later if path.name == "final.ckpt" or "part" in path.name]


def free_kb(place):
    return shutil.disk_usage(place).free // 1024
