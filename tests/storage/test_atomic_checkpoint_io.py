import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.commands import same

STATE = {"pytorch-lightning_version": "2.6.6"}


def test_what_was_saved_is_loaded(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "new" / "a.ckpt"
    io.save_checkpoint(STATE | {"x": torch.arange(3)}, path)
    assert io.load_checkpoint(path, weights_only=True)["x"].tolist() == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]
    io.remove_checkpoint(path)
    assert not path.exists()


def full_disk_at_sync(monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def full_disk_while_writing(monkeypatch):
    begin = Path.open

    def limited(self, *args, **kwargs):
        file = begin(self, *args, **kwargs)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, _):
                raise OSError(28, "No space left on device")

            def flush(self):
                pass

        return Full()

    monkeypatch.setattr(Path, "open", limited)


@pytest.mark.parametrize("fail", [full_disk_at_sync, full_disk_while_writing])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(fail, tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint(STATE | {"step": 1}, path)
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(
            OSError,
            match=r"last\.ckpt could not be written \(No space left on device; \d+\.\d\d GiB free in .*free "
            "some space, or choose another save_dir",
        ) as caught:
            io.save_checkpoint({"step": 2, "x": torch.ones(1000)}, path)
    assert caught.value.errno == 28
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert io.load_checkpoint(path)["step"] == 1


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(keep, tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"x": torch.ones(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep >= 1 else int(keep * len(whole))])
    with pytest.raises(
        ValueError,
        match=r"last\.ckpt' cannot be read: .* It is truncated, damaged, .*take an earlier",
    ):
        io.load_checkpoint(path, weights_only=True)


def test_a_file_that_is_no_state_of_a_run_is_refused(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    with pytest.raises(FileNotFoundError, match=r"a\.ckpt' does not exist"):
        io.load_checkpoint(path)
    torch.save({"x": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="holds weights, and not the state of a run; name it as "):
        io.load_checkpoint(path)


def test_checkpoints_lie_in_the_run_directory_and_load_safely(tmp_path):
    saving = ModelCheckpoint(save_last=True, auto_insert_metric_name=False)
    runner = trainer(tmp_path, saving, enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
    runner.fit(Tiny(), batches())
    folder = tmp_path / "tiny" / "0" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["0-6.ckpt", "last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6


class Keeping(Callback):
    """Somebody's own, with a state."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return {"kept": self.state}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (Path("x"), "it names 'pathlib.PosixPath', which is code"),
        (lambda: 0, "Can't pickle|Can't get local"),
        (range(3), "it names '.*range', which is code"),
    ],
)
def test_a_state_of_a_callback_that_cannot_be_read_back_is_left_out_and_named(
    state, reason, tmp_path
):
    saving = ModelCheckpoint(save_last=True)
    plugins = [AtomicCheckpointIO()]
    runner = trainer(tmp_path, saving, Keeping(state), enable_checkpointing=True, plugins=plugins)
    with pytest.warns(UserWarning, match=f"state of the callback Keeping .*{reason}.*is in no"):
        runner.fit(Tiny(), batches())
    read = AtomicCheckpointIO().load_checkpoint(
        tmp_path / "tiny" / "0" / "checkpoints" / "last.ckpt"
    )
    assert "Keeping" not in read["callbacks"]
    assert read["global_step"] == 6


def test_a_state_of_tensors_and_plain_values_goes_on(tmp_path):
    state = {"rates": (0.5, None), "mean": torch.ones(2), "names": ["a", b"b"], "n": np.int64(3)}
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE | {"callbacks": {"Keeping": state}}, path)
    kept = AtomicCheckpointIO().load_checkpoint(path)["callbacks"]["Keeping"]
    assert same(kept, state | {"n": 3})
