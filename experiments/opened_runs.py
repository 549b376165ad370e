"""A training as it begins, to be asked: its recipe, its data, and rows that are kept from it."""

from typing import Any

import torch

from experiments.plan import Run
from lightning_metakd.cli.command import build
from lightning_metakd.types import Batch


def opened(run: Run) -> tuple[Any, Any]:
    """Recipe and data of a training, as it begins."""
    words = [word for word in run.words[1:] if word != "--resume"]
    command = build([*words, "--trainer.accelerator=cpu"], run=False)
    recipe, data = command.model, command.datamodule
    data.trainer = command.trainer
    data.setup("fit")
    command.trainer.datamodule = data
    recipe.trainer = command.trainer
    recipe.setup("fit")
    recipe.on_fit_start()
    return recipe, data


def held_out(recipe: Any, data: Any, part: str) -> Batch:
    """A part's rows as they are, as a student reads them, with right labels."""
    source = data.source
    at, all_rows = data.parts[part], source.all_rows()
    index = all_rows.index[at]
    view = torch.full_like(index, -1)
    x = source.inputs(all_rows.x[at], index, view, recipe.student.reading)
    y = torch.searchsorted(data.train_classes(), source.true_labels()[at])
    return Batch(x, y, index, view)
