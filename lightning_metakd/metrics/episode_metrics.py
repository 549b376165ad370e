"""Metrics over episodes with their uncertainty, bit for bit independent of the number of processes.

Every evaluated episode leaves one row (`EpisodeRows`). Rows are gathered, sorted by episode id and
only then reduced, on the CPU with exactly rounded sums. So one process and seven agree, and two runs
over the same episodes can be paired.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lightning_metakd.metrics.intervals import interval, paired_difference

EpisodeTable = Mapping[str, Tensor]
"""Columns by name, one entry per episode, sorted by `id`."""


def exact(x: Tensor) -> Tensor:
    """The values in float64, on the same device where the device has float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def accuracy(logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Fraction of rows whose largest logit is the label."""
    return exact(logits.argmax(-1) == y).mean()


def agreement(a: Float[Tensor, "n c"], b: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Fraction of rows on which two networks predict the same class."""
    return exact(a.argmax(-1) == b.argmax(-1)).mean()


def nll(logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the labels, in nats."""
    return cross_entropy(exact(logits), y.to(exact(logits[:0]).device))


def summary(table: EpisodeTable) -> dict[str, float]:
    """Means and 95 % half-widths over episodes, student and teacher, and their paired difference."""
    rows = {name: column.tolist() for name, column in table.items()}
    mean, ci95 = interval(rows["accuracy"])
    metrics = {"accuracy": mean, "ci95": ci95, "nll": interval(rows["nll"])[0]}
    if "teacher_accuracy" in rows:
        teacher, teacher_ci95 = interval(rows["teacher_accuracy"])
        difference, paired_ci95 = paired_difference(rows["accuracy"], rows["teacher_accuracy"])
        metrics |= {
            "teacher_accuracy": teacher,
            "teacher_ci95": teacher_ci95,
            "paired_difference": difference,
            "paired_ci95": paired_ci95,
            "agreement": interval(rows["agreement"])[0],
        }
    return metrics


class EpisodeRows(Metric):
    """One float64 row per episode, gathered over processes and sorted by episode id.

    Args:
        columns: names of the numbers of a row; the id comes on its own.
    """

    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(self, columns: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if "id" in columns or len(set(columns)) != len(columns):
            raise ValueError(
                f"columns={list(columns)} must be distinct and must not hold 'id', which is always "
                "the first column; drop it or rename."
            )
        self.columns = tuple(columns)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Always true, as a process may have no rows (more processes than episodes)."""
        return True

    def update(self, id: Tensor | int, **values: Tensor | float) -> None:
        """Add one row, or one per entry where all of them are vectors over episodes."""
        if set(values) != set(self.columns):
            raise ValueError(
                f"a row has the columns {sorted(values)}, expected {sorted(self.columns)}; "
                "name the same columns in EpisodeRows(columns)."
            )
        numbers = [torch.as_tensor(v).detach() for v in (id, *(values[c] for c in self.columns))]
        assert isinstance(self.rows, list)
        self.rows.append(torch.stack([self.place(v).flatten() for v in numbers], -1))  # [t, 1 + k]

    def place(self, value: Tensor) -> Tensor:
        """The value in float64 on the metric's device, from which the process group can send it."""
        return exact(value if self.device.type == "mps" else value.to(self.device))

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Undo what torchmetrics does to a table of one row: it makes each column a scalar."""
        wrapped = super()._wrap_compute(compute)
        return lambda: {name: column.reshape(-1) for name, column in wrapped().items()}

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather; a process without rows sends an empty table of the right width."""
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(self.place(torch.empty(0, 1 + len(self.columns))))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """The table `{"id": ..., column: ...}` over all processes, on the CPU.

        Raises:
            ValueError: if there is no row, or an episode was evaluated twice.
        """
        rows = torch.cat(self.rows) if isinstance(self.rows, list) and self.rows else self.rows
        if not isinstance(rows, Tensor) or len(rows) == 0:
            raise ValueError("no episode was evaluated; set data.n_episodes to at least 1.")
        rows = rows.cpu()
        rows = rows[rows[:, 0].argsort()]
        ids = rows[:, 0].long()
        if twice := ids[1:][ids[1:] == ids[:-1]].tolist():
            raise ValueError(
                f"episode {twice[0]} was evaluated twice ({len(twice)} such episodes), which "
                "changes the mean; set trainer.use_distributed_sampler=false, and reset() between epochs."
            )
        return {"id": ids, **dict(zip(self.columns, rows.T[1:].contiguous(), strict=True))}
