"""Reading checkpoints: only tensors and plain values, never code.

Every file of weights (`ckpt_path`, `model.initialisation.checkpoint`, a teacher's, an embedded source's)
is opened by `open_checkpoint`. Sizes are compared with a limit before anything is read, and contents with
their checksums before anything is used. What a file says is data: nothing is imported, called or built by
its names.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_metakd.storage.archives import read_archive
from lightning_metakd.storage.atomic_files import DamagedFileError
from lightning_metakd.storage.limits import check_size
from lightning_metakd.storage.redaction import redact
from lightning_metakd.storage.shipped import shipped
from lightning_metakd.storage.tensor_file import read_sealed
from lightning_metakd.storage.zoo import located

ADDRESS = re.compile(r"[\w+.:-]{2,}:/")
"""How an address begins, as text or as what `Path` makes of it."""
SECTIONS: Mapping[str, type] = {
    **dict.fromkeys(
        ("settings", "training_cost", "coefficient_values", "callbacks", "loops"), dict
    ),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **dict.fromkeys(("global_step", "epoch"), int),
}
"""What a run keeps beside its tensors."""
RECORD = "metakd_record"
"""Under which the metadata of a safetensors file have, as JSON, what a checkpoint has beside its weights."""
RECORDED = ("classes", "reading", "external_data")


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `torch.save` or safetensors wrote, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is an address, too large, damaged, or holds something else than tensors and plain
            values.
    """
    file = local_file(path)
    try:
        if file.suffix == ".safetensors":
            check_size(file.stat().st_size, f"checkpoint={str(path)!r}")
            return from_safetensors(*read_sealed(file, must=False))
        checkpoint = read_archive(file)
    except DamagedFileError as error:
        raise ValueError(
            f"checkpoint={str(path)!r} cannot be read: {error}. It is truncated, damaged, or not a "
            "checkpoint of tensors alone; take an earlier file of the run, or train again."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"checkpoint={str(path)!r} holds a {type(checkpoint).__name__}, not a state dict."
        )
    if "state_dict" in checkpoint:
        check_sections(checkpoint, path)
    return checkpoint


def from_safetensors(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Weights in single precision at least, with what their file says of their training.

    Raises:
        DamagedFileError: if that is no record.
    """
    try:
        record = json.loads(metadata.get(RECORD, "{}"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"its record is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise DamagedFileError("its record is no object")
    halves = (torch.float16, torch.bfloat16)
    state = {name: t.float() if t.dtype in halves else t for name, t in tensors.items()}
    return {**{name: record[name] for name in RECORDED if name in record}, "state_dict": state}


def check_sections(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Raise where something that a run keeps beside its tensors is of another kind.

    Raises:
        ValueError: names it.
    """
    for name in SECTIONS.keys() & checkpoint.keys():
        section, kind = checkpoint[name], SECTIONS[name]
        right = isinstance(section, kind)
        if right and kind is dict:
            right = all(isinstance(key, str) for key in section)
        if right and name in ("callbacks", "loops", "optimizer_states"):
            parts = section.values() if kind is dict else section
            right = all(isinstance(part, dict) for part in parts)
        if not right:
            raise ValueError(
                f"checkpoint={str(path)!r} has {name}={section!r:.40}, which no run writes; take an "
                "earlier file of the run, or train again."
            )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this project or a plain state dict, under `state_dict` in either case.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `open_checkpoint`, or if what it calls its state dict is none.
    """
    checkpoint = open_checkpoint(path)
    checkpoint = checkpoint if "state_dict" in checkpoint else {"state_dict": checkpoint}
    state = checkpoint["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(
            f"checkpoint={str(path)!r} holds no tensors by name; give a file of a network's state dict."
        )
    return checkpoint


def check_address(path: str | Path, argument: str = "checkpoint") -> None:
    """Refuse an address: what comes from one may be another file each time.

    Raises:
        ValueError: says what to do.
    """
    if ADDRESS.match(str(path)):
        raise ValueError(
            f"{argument}={redact(str(path))!r} is an address, and none is opened; download the file, "
            "compare its checksum with the one that its author gives, and name the file."
        )


def local_file(path: str | Path, argument: str = "checkpoint", instead: str = "") -> Path:
    """The path of a file that is there.

    Args:
        argument: that names it, for the message.
        instead: what else can be done where it is not, for the message.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is an address.
    """
    check_address(path, argument)
    file = located(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{argument}={str(path)!r} does not exist; train it first{command_for(file)}, or name the file "
            f"that a run wrote (runs/<experiment>/latest/checkpoints/last.ckpt){instead}."
        )
    return file


def command_for(file: Path) -> str:
    """How the checkpoint of an experiment that comes with the package is trained; empty for others."""
    name = file.parent.parent.parent.name  # runs/<experiment>/<version>/checkpoints/<file>
    is_known = (shipped("configs") / "experiment" / f"{name}.yaml").is_file()
    return f" by metakd fit --config experiment/{name}" if is_known else ""


def class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes that a network was trained on, in the order of its logits; () without a record."""
    classes = checkpoint.get("classes")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    return ()


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
