"""What is kept of a training beside its weights: its settings, its cost, and what its result row says."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from lightning_metakd.arguments.configured import as_config
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.metrics.episode_metrics import EpisodeTable
from lightning_metakd.models.model import Model
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.settings.resuming import check_resumable
from lightning_metakd.settings.row_names import Settings
from lightning_metakd.settings.run_settings import (
    digest,
    flat_settings,
    result_settings,
    resumed_from,
    trained_with,
    trainer_settings,
    training_settings,
    with_origins,
)
from lightning_metakd.storage.read_checkpoint import class_names
from lightning_metakd.storage.redaction import redact

log = logging.getLogger(__name__)

OF_ALL_ROWS = ("nll", "ece")
"""Fields that a domain has only where it says them."""


class TrainingRecord:
    """What a recipe keeps of a training beside weights; checkpoints carry it on.

    Attributes:
        result: fields of the result row.
        episode_rows: a column of numbers each, by name, in the order of episodes.
        domains: fields of the result row that differ in each domain of the data, and its rows of episodes.
        has_begun: whether the recipe has trained or taken over a checkpoint; it then does not begin anew.
        is_resuming: set by the command: a checkpoint follows `setup`, and files of other runs may be gone.
        configured: set by the command: the parsed configuration; empty stands for how objects were built.
        settings: those of the present run, from `setup` on.
        trained: what trained the weights; None where that is not on record.
        initial_classes: names of the classes on which the student of the initial checkpoint was trained.
        gradient_evaluations: gradients with respect to the student that this process has computed.
        compiled: whether steps are compiled; None until that is decided.
        previous_cost: what the training took before it was resumed.
    """

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.episode_rows: dict[str, Tensor] = {}
        self.domains: list[tuple[dict[str, Any], EpisodeTable]] = []
        self.has_begun = self.is_resuming = False
        self.configured: Settings = {}
        self.settings: Settings = {}
        self.trained: Settings | None = None
        self.initial_classes: tuple[str, ...] = ()
        self.gradient_evaluations = 0
        self.compiled: bool | None = None
        self.previous_cost: dict[str, Any] = {"teacher_forwards": 0, "gradient_evaluations": 0}

    def configure(self, config: Mapping[str, Any]) -> None:
        """Keep the parsed configuration of the command."""
        self.configured = flat_settings(config)

    @property
    def begins(self) -> bool:
        """Whether the recipe starts from what its configuration names."""
        return not self.is_resuming and not self.has_begun

    def load_initial(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Keep what trained the checkpoint that the recipe starts from, and on which classes."""
        self.trained = trained_with(checkpoint, path)
        self.initial_classes = class_names(checkpoint)

    def load_initial_result(self, checkpoint: Mapping[str, Any]) -> None:
        """Let the result row of a test speak of the training of the checkpoint."""
        recorded = checkpoint.get("callbacks", {}).get("Results", {})
        self.result.update(recorded, train_steps=checkpoint.get("global_step"))
        self.result.update(checkpoint.get("training_cost", {}))
        self.result["train_classes"] = len(self.initial_classes) or None

    def set_settings(self, recipe: object, data: SourceData, trainer: Trainer) -> None:
        """Keep the settings under dotted names; files and images by what they are."""
        built = {"model": as_config(recipe), "data": as_config(data)}
        settings = self.configured or flat_settings(redact(built))
        content = {"data.source.content": data.source.content}
        self.settings = with_origins(settings | trainer_settings(trainer) | content)

    def begin(self, n_classes: int, weights: str | None) -> str:
        """Keep that training begins, and return the digest of what trains.

        Args:
            n_classes: on which the student is trained; 0 is not on record.
            weights: hash of weights that were trained before, without a checkpoint; None if they were not.
        """
        self.result["train_classes"] = n_classes or None
        if weights is not None:
            self.settings["resumed"] = digest(self.trained or {"weights": weights})
        self.trained, self.has_begun = None, True
        return self.digest()

    def digest(self) -> str:
        """Digest of the settings that train."""
        return digest(training_settings(self.settings))

    def end(self, cost: Mapping[str, Any]) -> None:
        """Let a test that follows say what the training took, and by what it trained."""
        self.result.update(cost)
        self.trained = training_settings(self.settings)

    def cost(self, forwards: int, world_size: int) -> dict[str, Any]:
        """What training has taken so far, over all processes.

        Args:
            forwards: inputs that teachers of this process have computed.
        """
        before = self.previous_cost
        return {
            "teacher_forwards": before["teacher_forwards"] + world_size * forwards,
            "gradient_evaluations": before["gradient_evaluations"]
            + world_size * self.gradient_evaluations,
            "compiled": self.compiled,
        }

    def load(self, checkpoint: Mapping[str, Any], trainer: Trainer) -> None:
        """Take over what a checkpoint says of its training.

        Raises:
            ValueError: if the training goes on with settings that make it another.
        """
        path = Path(str(trainer.ckpt_path))
        if trainer.state.fn == "fit":
            changed = check_resumable(checkpoint, path, self.settings)
            if changed and trainer.is_global_zero:
                log.warning(f"goes on with {changed}")
            self.settings = resumed_from(self.settings, checkpoint.get("settings", {}))
        self.trained = trained_with(checkpoint, path)
        self.result["train_classes"] = len(class_names(checkpoint)) or None
        cost = checkpoint.get("training_cost", {})
        self.previous_cost |= cost
        self.compiled = cost.get("compiled")
        self.result.update(cost)
        self.has_begun = True

    def evaluations(self) -> Iterator[tuple[dict[str, Any], EpisodeTable]]:
        """(fields of the result row, rows of episodes): for each domain, where the data have domains."""
        if not self.domains:
            yield self.result, self.episode_rows
        for fields, rows in self.domains:
            whole = {name: value for name, value in self.result.items() if name not in OF_ALL_ROWS}
            yield whole | fields, rows

    def settings_fields(self, student: Model) -> dict[str, Any]:
        """The settings on which a result of these weights depends, and their digest."""
        trained = self.trained or {"weights": weights_hash(student)[:16]}
        settings = result_settings(trained, self.settings)
        return {"settings_sha256": digest(settings), "settings": settings}
