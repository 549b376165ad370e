"""Optional packages that an export needs, and the command that installs one which is missing."""

from importlib import import_module
from typing import Any

INSTALL = {
    "onnx": "pip install 'lightning_metakd[export]'",
    "onnxruntime": "pip install 'lightning_metakd[export]'",
    "onnxscript": "pip install 'lightning_metakd[export]'",
    "executorch": "pip install executorch",
}
NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "onnx-int8": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
    "safetensors": (),
    "executorch": ("executorch",),
}
"""Packages of each format; its keys are the formats."""


def check_packages(format: str) -> None:
    """Raise where a package that a format needs is not installed.

    Raises:
        ImportError: says how it is installed.
    """
    for name in NEEDED[format]:
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"format={format} needs the package {name}, which is not installed; {INSTALL[name]}"
            ) from error


def package(name: str) -> Any:
    """A module of an optional package."""
    return import_module(name)
