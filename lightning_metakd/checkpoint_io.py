"""Checkpoints that are whole or not there, and say so when they are not."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

GIB = 2**30


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill leaves the old checkpoint.

    Lightning's own writer goes through the directory for temporary files, from which a rename is not
    one step. Addresses with a scheme (`s3://...`) are left to it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write all of it or nothing.

        Raises:
            OSError: if it cannot be written; names the path, the free space and the way out.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            cause = os_error(error)
            if cause is None:
                raise
            raise OSError(
                cause.errno,
                f"checkpoint {target} could not be written ({cause.strerror}; {free(target)}); free some "
                "space, lower save_top_k of ModelCheckpoint, or choose another save_dir of RunLogger. "
                "Earlier checkpoints are unchanged; resume with --ckpt_path.",
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read it.

        Raises:
            ValueError: if the file is truncated; names it and the way out.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            damaged = Path(path).is_file() and not zipfile.is_zipfile(path)
            if not damaged:
                raise
            raise ValueError(
                f"checkpoint {path} is truncated or damaged ({Path(path).stat().st_size} bytes: "
                f"{str(error)[:80]}); take another file of {Path(path).parent}, or train again."
            ) from error


def os_error(error: BaseException | None) -> OSError | None:
    """The failure of the operating system that an exception stems from."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def free(path: Path) -> str:
    """How much space there is, for a message."""
    place = next((p for p in path.parents if p.exists()), Path.cwd())
    return f"{shutil.disk_usage(place).free / GIB:.2f} GiB free in {place}"
