"""Checkpoints that are whole or not there, and say so when they are not."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.plugins import AsyncCheckpointIO
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils._pytree import tree_map
from torch.utils.serialization import config

from lightning_metakd.storage.archives import check_readable
from lightning_metakd.storage.atomic_files import DamagedFileError, replaced
from lightning_metakd.storage.read_checkpoint import open_checkpoint

GIB = 2**30


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill leaves the old checkpoint.

    Lightning's own writer goes through the directory for temporary files, from which a rename is not
    one step. To addresses with a scheme (`s3://...`) it writes; nothing is read from them.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write all of it or nothing; numbers of NumPy as those of Python, which alone are read back.

        The state of a callback that could not be read back is left out, with a warning.

        Raises:
            OSError: if it cannot be written; names the path, the free space and the way out.
        """
        checkpoint = {
            name: part if name == "state_dict" else tree_map(of_python, part)
            for name, part in checkpoint.items()
        }
        if "callbacks" in checkpoint:
            checkpoint["callbacks"] = readable(checkpoint["callbacks"])
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        torch_config: Any = config
        checksums = torch_config.patch("save.compute_crc32", True)
        try:
            with replaced(target) as part, part.open("wb") as file, checksums:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            cause = os_error(error)
            if cause is None:
                raise
            raise OSError(
                cause.errno,
                f"checkpoint {target} could not be written ({cause.strerror}; {free(target)}); free some "
                "space, or choose another save_dir of RunLogger. "
                "Earlier checkpoints are unchanged; resume with --ckpt_path.",
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The state of a run, on the CPU.

        Args:
            weights_only: true whether it is given or not.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is an address, damaged, no state of a run, or `weights_only` is false.
        """
        if weights_only is False:
            raise ValueError(
                "weights_only=false would run the code that a checkpoint may hold, and is never done; leave "
                "the setting out."
            )
        checkpoint = open_checkpoint(path)
        if not isinstance(checkpoint.get("pytorch-lightning_version"), str):
            raise ValueError(
                f"checkpoint={str(path)!r} holds weights, and not the state of a run; name it as "
                "model.initialisation.checkpoint to start from its weights."
            )
        return checkpoint


def of_python(value: Any) -> Any:
    """A scalar of NumPy as Python's, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def readable(states: Mapping[str, Any]) -> dict[str, Any]:
    """The states of those callbacks that have tensors and plain values alone; others are named."""
    kept = {}
    for callback, state in states.items():
        try:
            check_readable(state)
        except DamagedFileError as error:
            rank_zero_warn(
                f"the state of the callback {callback} could not be read back ({error}) and is in no "
                "checkpoint; have its state_dict return tensors and plain values."
            )
        else:
            kept[callback] = state
    return kept


def read_safely(strategy: Strategy) -> None:
    """Let a Trainer that somebody else built read checkpoints as `AtomicCheckpointIO` does.

    Raises:
        ValueError: if it has a plugin of Lightning's that reads in its own way.
    """
    plugin = strategy.checkpoint_io
    if isinstance(plugin, AsyncCheckpointIO):
        raise ValueError(
            "plugins=[AsyncCheckpointIO] reads checkpoints without comparing sizes and checksums; leave it "
            "out."
        )
    if type(plugin) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()


def os_error(error: BaseException | None) -> OSError | None:
    """The failure of the operating system that an exception stems from."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def free(path: Path) -> str:
    """How much space there is, for a message."""
    place = next((p for p in path.parents if p.exists()), Path.cwd())
    return f"{shutil.disk_usage(place).free / GIB:.2f} GiB free in {place}"
