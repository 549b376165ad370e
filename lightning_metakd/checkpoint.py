"""Reading other runs' checkpoints: only tensors and plain values, never code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project or a plain state dict.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or holds something else than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint={str(path)!r} does not exist; train it first, or name the file that a run wrote "
            "(runs/<experiment>/latest/checkpoints/last.ckpt)."
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise ValueError(
            f"checkpoint={str(path)!r} cannot be read ({type(error).__name__}: {str(error)[:120]}); it is "
            "truncated, or not a checkpoint of tensors. Take an earlier file of the run, or train again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"checkpoint={str(path)!r} holds a {type(found).__name__}, not a state dict."
        )
    return found if "state_dict" in found else {"state_dict": found}


def class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes that a network was trained on, in the order of its logits; () without a record."""
    classes = checkpoint.get("classes")
    recorded = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if recorded else ()


def student_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The student in a checkpoint of a recipe (its average where one was kept), or the plain state dict."""
    state: dict[str, Tensor] = checkpoint["state_dict"]
    for prefix in ("ema.module.", "student."):
        chosen = {
            name.removeprefix(prefix): p for name, p in state.items() if name.startswith(prefix)
        }
        if chosen:
            return chosen
    return state
