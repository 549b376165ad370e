"""Reading other runs' checkpoints: only tensors and plain values, never code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_metakd.models.model import Model
from lightning_metakd.types import Normalisation


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


def origin(model: Model) -> dict[str, Any]:
    """What a checkpoint says of a network's training that the weights do not; see `Model`."""
    found = model.normalisation
    return {
        "normalisation": None
        if found is None
        else {"mean": list(found.mean), "std": list(found.std)},
        "external_data": list(model.external_data),
    }


def take_origin(model: Model, checkpoint: Mapping[str, Any], who: str) -> None:
    """Have a network that took over the weights of a checkpoint read images as they were trained to.

    Args:
        who: whose weights these are, for messages.
    """
    if (found := checkpoint.get("normalisation")) is not None:
        try:
            normalisation = Normalisation.checked(found["mean"], found["std"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{who}: what the checkpoint says of its normalisation, {str(found)[:80]}, is none "
                f"({error}); it is damaged. Take an earlier file of the run, or train again."
            ) from error
        model.read_as(normalisation, who)
    external = {*model.external_data, *checkpoint.get("external_data", ())}
    model.external_data = tuple(sorted(external))
