"""An exported student, run by onnxruntime alone.

Its file says in its metadata what it is (`kind`), which pictures it reads (`size`, `mode`), and which classes
it tells apart where these are fixed. Pixels go in as uint8; the graph normalises them itself.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_metakd.storage.limits import check_size

KEY = "lightning_metakd"
"""Under which the metadata of a file have, as JSON, what the student is."""
KINDS = ("adaptable", "classifier", "features")
TEXT = "text"
MODES = ("RGB", "L", TEXT)
FIELDS: Mapping[str, type] = {"kind": str, "mode": str, "size": int, "classes": list}
"""What the metadata say at least."""
WEIGHTS = (".pt", ".pth")
"""Endings of files without the configuration of a run."""
INSTALL = "pip install onnxruntime"


class OnnxStudent:
    """A student in a file that `metakd export` wrote.

    Args:
        model: path of the file, or its content.
        threads: of onnxruntime; null leaves the choice to it.
        argument: that names the file, for messages.

    Attributes:
        about: what its metadata say.
        session: of onnxruntime.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if onnxruntime is not installed.
        ValueError: if it is no file of a student.
    """

    def __init__(
        self, model: Path | bytes, threads: int | None = None, argument: str = "model"
    ) -> None:
        name = f"{argument}={'bytes' if isinstance(model, bytes) else model}"
        content = model if isinstance(model, bytes) else read_file(model, name)
        self.session = session_of(content, name, threads)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.about = checked(metadata.get(KEY), name)

    @property
    def kind(self) -> str:
        """`adaptable` to the classes of a support set, `classifier` of fixed ones, or `features` alone."""
        return str(self.about["kind"])

    @property
    def inputs(self) -> str:
        """What its inputs are called."""
        return "tokens" if self.mode == TEXT else "images"

    @property
    def size(self) -> int:
        """Side of the pictures that it reads, in pixels; most tokens of a text."""
        return int(self.about["size"])

    @property
    def mode(self) -> str:
        """RGB, L for grey pictures, or text."""
        return str(self.about["mode"])

    @property
    def classes(self) -> list[str]:
        """The classes that a classifier tells apart."""
        return [str(name) for name in self.about["classes"]]

    def run(self, **inputs: np.ndarray) -> np.ndarray:
        """Its first output for named inputs."""
        output: np.ndarray = self.session.run(None, inputs)[0]
        return output

    def embed(self, rows: np.ndarray) -> np.ndarray:
        """Logits of a classifier, embeddings of features.

        Args:
            rows: pictures, uint8 `[n, ch, h, w]`, or tokens, int64 `[n, l]`.
        """
        return self.run(**{self.inputs: rows})

    def adapt_and_predict(
        self, support: np.ndarray, labels: np.ndarray, query: np.ndarray
    ) -> np.ndarray:
        """Logits `[q, c]` of query rows after adapting to a support set.

        Args:
            support: pictures, uint8 `[s, ch, h, w]`, or tokens, int64 `[s, l]`.
            labels: int64 `[s]`, each of 0 to c - 1 at least once.
            query: rows of the same kind, `[q, ...]`.
        """
        rows = {f"support_{self.inputs}": support, f"query_{self.inputs}": query}
        return self.run(support_labels=labels.astype(np.int64), **rows)


def read_file(path: Path, name: str) -> bytes:
    """The content of a student's file.

    Args:
        path: of the file.
        name: of it with its argument, for messages.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has weights alone.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} does not exist; write one by metakd export --ckpt_path FILE --format onnx."
        )
    if path.suffix in WEIGHTS:
        raise ValueError(
            f"{name} has weights alone, and classifying takes a file that metakd export wrote, or the .ckpt "
            "of a run; name one."
        )
    check_size(path.stat().st_size, name)
    return path.read_bytes()


def checked(text: str | None, name: str) -> dict[str, Any]:
    """What the metadata of a file say.

    Args:
        text: of the metadata; None where there are none.
        name: of the file with its argument, for messages.

    Raises:
        ValueError: if they do not say how it reads pictures.
    """
    try:
        about = json.loads(text or "null")
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or not all(
        isinstance(about.get(field), kind) for field, kind in FIELDS.items()
    ):
        raise ValueError(
            f"{name} does not say how it reads pictures; take a file that metakd export wrote."
        )
    if about["kind"] not in KINDS or about["mode"] not in MODES:
        raise ValueError(
            f"{name} is of the kind {about['kind']!r} and reads {about['mode']!r}, and this version "
            f"knows {', '.join(KINDS)} and {', '.join(MODES)}; export it anew."
        )
    return about


def session_of(content: bytes, name: str, threads: int | None) -> Any:
    """A session of onnxruntime on the CPU.

    Raises:
        ImportError: if it is not installed.
        ValueError: if the content is no graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"a student in ONNX is run by the package onnxruntime, which is not installed; {INSTALL}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime keeps to itself
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is no ONNX file that onnxruntime reads ({reason}); take a file that metakd export "
            "wrote."
        ) from error


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of each row."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
