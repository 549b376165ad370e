"""How near an exported student is to the student itself: answers, classes, accuracy, calibration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lightning_metakd.export.cases import Case
from lightning_metakd.metrics.calibration_error import Calibration
from lightning_metakd.metrics.intervals import interval

Answer = Callable[[Case], np.ndarray]
"""What an exported student says of a case."""


class Tally:
    """Adds up what one student says of the cases.

    Attributes:
        accuracies: of each case.
    """

    def __init__(self) -> None:
        self.accuracies: list[float] = []
        self.sizes: list[int] = []
        self.calibration = Calibration()

    def update(self, logits: np.ndarray, y: np.ndarray) -> None:
        """Add a case."""
        self.accuracies.append(float((logits.argmax(-1) == y).mean()))
        self.sizes.append(len(y))
        probs = torch.from_numpy(logits).double().softmax(-1)
        self.calibration.update(probs, torch.from_numpy(y))

    def summary(self, by_case: bool) -> dict[str, float]:
        """Accuracy with its 95 % half-width, over cases or over rows, and calibration error."""
        if by_case:
            mean, half_width = interval(self.accuracies)
        else:
            mean, half_width = over_rows(self.accuracies, self.sizes)
        return {"accuracy": mean, "ci95": half_width, "ece": float(self.calibration.compute())}


def over_rows(accuracies: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """Accuracy over all rows of some batches, and its 95 % half-width."""
    n = sum(sizes)
    mean = sum(a * size for a, size in zip(accuracies, sizes, strict=True)) / n
    return mean, float(1.96 * (mean * (1 - mean) / n) ** 0.5)


def compare(cases: Iterable[Case], files: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
    """What files say of the same cases beside torch, each by its name, and torch itself under `torch`.

    Args:
        cases: with the student's own answers.
        files: what answers, by name.

    Returns:
        Of each: accuracy, ci95 and ece where there are labels; of files also the largest difference of an
        answer, and the share of rows of which the largest logit is the same (`agreement`).
    """
    tallies = {name: Tally() for name in ("torch", *files)}
    difference = dict.fromkeys(files, 0.0)
    same, rows, count, by_case = dict.fromkeys(files, 0), 0, 0, False
    for case in cases:
        count, rows, by_case = count + 1, rows + len(case.query_x), case.support_x is not None
        answers = {"torch": case.answer, **{name: ask(case) for name, ask in files.items()}}
        for name, answer in answers.items():
            if case.query_y is not None:
                tallies[name].update(answer, case.query_y)
            if name in files:
                difference[name] = max(difference[name], float(np.abs(answer - case.answer).max()))
                same[name] += int((answer.argmax(-1) == case.answer.argmax(-1)).sum())
    results: dict[str, dict[str, Any]] = {}
    for name, tally in tallies.items():
        results[name] = tally.summary(by_case) if tally.accuracies else {}
        results[name] |= {"cases": count, "rows": rows}
        if name in files:
            results[name]["largest_difference"] = difference[name]
            results[name]["agreement"] = same[name] / rows
    return results
