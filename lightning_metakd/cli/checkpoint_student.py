"""A student that classifies straight from its checkpoint, by torch; what is exported does without."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_metakd.classify.onnx_student import TEXT
from lightning_metakd.cli.student import load
from lightning_metakd.export.plan import MODES
from lightning_metakd.models.reading import as_record
from lightning_metakd.types import Vocabulary


class CheckpointStudent:
    """The student of a run, as `metakd classify` asks one; it adapts by its own learner.

    Args:
        path: of the checkpoint, beside whose run its configuration lies.
        argument: that names the file, for messages.

    Attributes:
        kind: it adapts to the classes of a support set.
        classes: none is fixed.
        mode: RGB, L for grey pictures, or text.
        size: side of the pictures that it reads, in pixels; most tokens of a text.
        about: how it reads texts: tokeniser, pad and size.

    Raises:
        ValueError: if it reads neither pictures nor texts.
    """

    kind = "adaptable"

    def __init__(self, path: Path, argument: str = "model") -> None:
        self.student, self.classes = load(path), list[str]()
        reading = self.student.network.reading
        is_text = isinstance(reading, Vocabulary)
        mode = TEXT if is_text else MODES.get(self.channels())
        if reading is None or mode is None:
            raise ValueError(
                f"{argument}={path} reads neither pictures in colour or grey nor texts, and these are "
                "classified; name a student of these."
            )
        self.mode = mode
        self.size = reading.max_tokens if isinstance(reading, Vocabulary) else self.student.size
        self.about: dict[str, Any] = {**(as_record(reading) or {}), "size": self.size}

    def channels(self) -> int:
        """Of the pictures that its first convolution takes; 0 without one."""
        weights = (p for p in self.student.network.parameters() if p.dim() == 4)
        return next((p.shape[1] for p in weights), 0)

    def adapt_and_predict(
        self, support: np.ndarray, labels: np.ndarray, query: np.ndarray
    ) -> np.ndarray:
        """Logits `[q, c]` of query rows after adapting to a support set; see `OnnxStudent`."""
        self.student.fit(torch.from_numpy(support), labels.tolist())
        probabilities = self.student.predict_proba(torch.from_numpy(query))
        return np.log(probabilities.clip(np.finfo(probabilities.dtype).tiny))

    def embed(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings `[n, d]` of rows."""
        with torch.no_grad():
            output = self.student.network(self.student.inputs(torch.from_numpy(rows)))
        return np.asarray(output.embedding)
