"""Reading the file of a strategy: tensors with a head in JSON, and never code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_metakd.storage.limits import check_size
from lightning_metakd.storage.read_checkpoint import check_address
from lightning_metakd.storage.tensor_file import read_sealed
from lightning_metakd.storage.zoo import located


def check_strategy_exists(path: str | Path) -> Path:
    """The file of a strategy; refuse a path without one."""
    check_address(path, "strategy_file")
    file = located(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"strategy_file={str(path)!r} does not exist; name a strategy.safetensors that a run wrote."
        )
    return file


def read_strategy(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(the head of the file, its tensors).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or a number in it is none.
    """
    file = check_strategy_exists(path)
    check_size(file.stat().st_size, f"strategy_file={str(path)!r}")
    try:
        metadata, tensors = read_sealed(file)
        head = json.loads(metadata["strategy"])
        check_head(head)
    except KeyError as error:
        raise ValueError(not_readable(path, f"its head has no {error}")) from error
    except RecursionError as error:
        raise ValueError(not_readable(path, "its head is nested too deeply")) from error
    except ValueError as error:
        raise ValueError(not_readable(path, str(error))) from error
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(
            f"strategy_file={str(path)!r} holds numbers that are none (NaN or infinite) in {', '.join(bad)}; "
            "the run that learned it has diverged. Take the strategy of another run, or lower "
            "strategy_training.lr there."
        )
    return head, tensors


def not_readable(path: str | Path, reason: str) -> str:
    """The message about a file that is no strategy."""
    return f"strategy_file={str(path)!r} is damaged or no strategy ({reason}); take another copy of it."


def check_head(head: object) -> None:
    """Refuse the head of a file that says less, or something else, than `save_strategy` writes."""
    kinds = {"loss": str, "coefficients": dict, "teacher_heads": list, "teacher_scales": list}
    if not isinstance(head, dict):
        raise ValueError(f"its head is a {type(head).__name__}")
    for name, kind in (kinds | {"coefficient_values": dict}).items():
        if not isinstance(head[name], kind):
            raise ValueError(f"{name} in its head is a {type(head[name]).__name__}")
