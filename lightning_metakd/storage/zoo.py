"""Networks and strategies that come with the package: `zoo:NAME` where the path of a file may stand.

Each is a safetensors file of at most 8 MB, weights in half precision, beside a card in JSON that says what it
is, how it was trained, what it reached, and the SHA-256 of the file, which is compared whenever it is opened.
"""

import json
import re
from pathlib import Path
from typing import Any

from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.shipped import shipped

PREFIX = "zoo:"


def folder() -> Path:
    """Where the files lie."""
    return shipped("zoo")


def names() -> list[str]:
    """Of all files."""
    return sorted(path.stem for path in folder().glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """What is known of a file.

    Raises:
        FileNotFoundError: if there is none of this name.
    """
    if name not in names():
        raise FileNotFoundError(
            f"{PREFIX}{name} is not in the zoo; it has {', '.join(names()) or 'nothing'}."
        )
    return dict(json.loads((folder() / f"{name}.json").read_text()))


def located(path: str | Path) -> Path:
    """The path of a file, which may be one of the zoo.

    Raises:
        FileNotFoundError: if the zoo has none of the name.
        ValueError: if its file is not the one of its card.
    """
    if not (match := re.fullmatch(rf"{PREFIX}(.*)", str(path))):
        return Path(path)
    name = match[1]
    expected, file = card(name)["sha256"], folder() / f"{name}.safetensors"
    if not file.is_file() or file_sha256(file) != expected:
        raise ValueError(
            f"{path} is damaged: {file} is not the file whose SHA-256 begins with {expected[:12]}, as its "
            "card says; install the package anew."
        )
    return file


def refuse_as_run(path: str) -> None:
    """Raise where a file of the zoo is named as the checkpoint of a run.

    Raises:
        ValueError: says how it is used.
    """
    if path.startswith(PREFIX):
        raise ValueError(
            f"ckpt_path={path} holds weights and no settings of a run; give those by --config, and the "
            f"weights as --model.initialisation.checkpoint={path}."
        )
