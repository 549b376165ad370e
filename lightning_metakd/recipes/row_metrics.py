"""How a student of one task is judged: over all rows, and for each group of classes where there are some."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, SumMetric


class GroupCounts(Metric):
    """Rows, and rows rightly answered, of each group of classes.

    Args:
        group: of each class [c].
    """

    full_state_update = False
    rows: Tensor
    correct: Tensor
    within: Tensor

    def __init__(self, group: Int[Tensor, " c"]) -> None:
        super().__init__()
        self.register_buffer("group", group, persistent=False)
        for name in ("rows", "correct", "within"):
            n = int(group.max()) + 1
            self.add_state(name, torch.zeros(n, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> None:
        """Count rows, among all classes and among those of their group."""
        group: Any = self.group
        of_row = group[y]
        others = of_row[:, None] != group[None]
        right = {
            "rows": torch.ones_like(of_row, dtype=torch.bool),
            "correct": logits.argmax(-1) == y,
            "within": logits.masked_fill(others, -math.inf).argmax(-1) == y,
        }
        for name, rows in right.items():
            getattr(self, name).index_add_(0, of_row, rows.double())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, correct among all classes, correct among those of the group) of each group."""
        return self.rows.cpu(), self.correct.cpu(), self.within.cpu()


class RowMetrics(nn.Module):
    """Accuracy and likelihood over rows; the interval is that of a proportion."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: Any = nn.ModuleDict({name: SumMetric() for name in ("rows", "correct", "nll")})
        self.names: list[str] = []
        self.counts: GroupCounts | None = None

    def set_groups(
        self, groups: Mapping[str, Int[Tensor, " _"]], classes: Int[Tensor, " c"]
    ) -> None:
        """Judge groups of classes too.

        Args:
            groups: name -> dataset classes.
            classes: dataset class of each label.
        """
        self.names = list(groups)
        if self.names:
            group = torch.empty_like(classes)
            for k, of_group in enumerate(groups.values()):
                group[torch.isin(classes, of_group)] = k
            self.counts = GroupCounts(group).to(self.sums["rows"].device)

    def update(self, logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> None:
        """Add rows."""
        nll = cross_entropy(logits.double(), y, reduction="sum")
        correct = (logits.argmax(-1) == y).sum()
        for name, value in {"rows": len(y), "correct": correct, "nll": nll}.items():
            self.sums[name].update(value)
        if self.counts is not None:
            self.counts.update(logits, y)

    def compute(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(fields of the result, fields of each group's); starts anew."""
        rows, correct, nll = (
            float(self.sums[name].compute()) for name in ("rows", "correct", "nll")
        )
        for metric in self.sums.values():
            metric.reset()
        fields = {"accuracy": correct / rows, "ci95": half_width(correct / rows, rows)}
        return {**fields, "nll": nll / rows}, self.of_groups()

    def of_groups(self) -> list[dict[str, Any]]:
        """Fields of the result of each group."""
        if self.counts is None:
            return []
        columns = [column.reshape(-1).tolist() for column in self.counts.compute()]
        self.counts.reset()
        return [
            {
                "domain": name,
                "accuracy": correct / rows,
                "ci95": half_width(correct / rows, rows),
                "accuracy_within": within / rows,
            }
            for name, rows, correct, within in zip(self.names, *columns, strict=True)
            if rows
        ]


def half_width(accuracy: float, rows: float) -> float:
    """Of the 95 % interval of a proportion."""
    return 1.96 * math.sqrt(accuracy * (1 - accuracy) / rows)
