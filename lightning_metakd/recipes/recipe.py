"""The order of events that all training procedures share.

A recipe fetches, calls and logs; the mathematics lies in pure functions. It is made of `OuterUpdate`
(optimisers and their step), `TeachingSetup` (loss, teachers, adapters, shared weights) and `TrainingRecord`
(settings, cost, result row). In the order in which Lightning calls it:

    setup                check settings and files, size the head, open teachers, load what is begun from
    on_load_checkpoint   where a training goes on, or a checkpoint is judged
    configure_optimizers one for student, learner and adapters, one for the strategy
    on_fit_start         of MetaKD and SingleTask: what has to be known of the data
    on_train_start       write down what the student is trained on
    training_step        of MetaKD and SingleTask: one outer update
    on_save_checkpoint   without the networks of frozen teachers
    on_train_end         write down what the training took

Nothing that has a body here is overridden further down.
"""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from lightning import LightningModule
from torch import nn

from lightning_metakd.arguments.configured import Configured, plain_arguments
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.losses.adapters import Adapters
from lightning_metakd.losses.loss import CrossEntropy, Loss
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import NormForm, make_episodic
from lightning_metakd.models.weights import check_weights, load_origin, origin, weights_hash
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.recipes.checkpoint_state import state_to_load
from lightning_metakd.recipes.coefficient_log import CoefficientLog
from lightning_metakd.recipes.head_size import size_heads
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.optimisation import Optimisation, averaged
from lightning_metakd.recipes.outer_update import (
    OuterUpdate,
    check_precision,
    check_unsharded,
    progress,
    total_steps,
)
from lightning_metakd.recipes.procedure import Procedure
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.recipes.teaching_setup import TeachingSetup
from lightning_metakd.recipes.training_record import TrainingRecord
from lightning_metakd.storage.atomic_checkpoint_io import read_safely
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from lightning_metakd.strategy.controls import controlled
from lightning_metakd.teachers import Teacher, TeacherPool


class Recipe(LightningModule, Procedure, Configured):
    """One training procedure around a student, a teaching loss and its teachers.

    It trains copies of its own: what is handed in stays as it is, and serves as often as it is wanted. What
    was trained is `recipe.student`, `recipe.loss` and `recipe.teachers`.

    Args:
        student: the network that is trained.
        loss: the teaching loss; the parameters of its coefficients are the strategy.
        teachers: the networks that help it.
        optimisation: how the outer loop descends.
        strategy_training: how the strategy is learned.
        initialisation: what is begun from.
        norm: null leaves the student's batch norms as they are; see models/norm.py for the others.
        teacher_at_test: whether the teaching loss acts in evaluation too.
    """

    def __init__(
        self,
        student: nn.Module,
        loss: Loss | None,
        teachers: list[Teacher] | None,
        optimisation: Optimisation,
        strategy_training: StrategyTraining,
        initialisation: Initialisation,
        norm: NormForm | None,
        teacher_at_test: bool,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student = as_model(student, "student")
        if norm is not None:
            make_episodic(self.student, norm)
        self.adapters = Adapters()
        decay = optimisation.ema_decay
        self.ema = None if decay is None else averaged(self.student, decay)
        self.loss = CrossEntropy() if loss is None else deepcopy(loss)
        self.teachers = TeacherPool(deepcopy(teachers or []))
        strategy_training = strategy_training.for_loss(self.loss, initialisation.strategy_file)
        self.optimisation, self.strategy_training = optimisation, strategy_training
        self.initialisation, self.teacher_at_test = initialisation, teacher_at_test
        strategy_training.check_loss(self.loss, initialisation.strategy_file)
        self.loss = controlled(self.loss, strategy_training.control, len(self.teachers))
        self.rates = strategy_training.rates(self.loss)
        if self.rates.coefficients == 0:
            self.loss.requires_grad_(False)
        self.outer_update = OuterUpdate(self, optimisation, self.student, self.ema)
        self.teaching = TeachingSetup(
            self.student,
            self.loss,
            self.teachers,
            self.adapters,
            initialisation,
            strategy_training.control,
            self.rates,
        )
        self.record = TrainingRecord()
        self.coefficient_log = CoefficientLog(self)
        # further copies of the student, called with its parameters and never with their own; in a list
        # because they are no part of what is trained, saved or moved
        self.virtual_students: list[Model] = []
        self.save_hyperparameters(plain_arguments(self))

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: Lightning would build what the file says."""
        raise TypeError(
            "load_from_checkpoint would build what a file says, and is not there; "
            f"build {cls.__name__} by its arguments, and name the file in its initialisation."
        )

    # --- set-up --------------------------------------------------------------------------------

    @property
    def data(self) -> SourceData:
        """The data module of this run."""
        return cast(SourceData, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def eval_student(self) -> Model:
        """The student that is evaluated: its average where one is kept."""
        return self.student if self.ema is None else cast(Model, self.ema.module)

    def students(self) -> list[Model]:
        """The student, its average, and copies for virtual steps."""
        average = [] if self.ema is None else [self.eval_student]
        return [self.student, *average, *self.virtual_students]

    def teaches_in(self, stage: str) -> bool:
        """Whether the teaching loss is computed in a stage of the Trainer."""
        return stage == "fit" or self.teacher_at_test

    def check_data(self, data: SourceData, stage: str) -> None:
        """Raise, before anything is read, where settings of the data or absent files make a run impossible.

        Raises:
            FileNotFoundError: if a file that is named does not exist.
            ValueError: if data of these settings are not what the recipe needs.
        """
        if self.teaches_in(stage):
            self.teaching.check_teachers(stage)
        if not self.record.is_resuming:
            self.initialisation.check_files()
        alone = ", or judge the student alone by --model.teachers=null"
        self.teaching.check_files("" if self.teaches_in(stage) else alone)
        data.source.check_files()
        if stage == "fit":
            data.source.check_views(data.views)
            self.teaching.check_views(data)
        self.check_procedure(data, stage)

    def setup(self, stage: str) -> None:
        """Open the files that the configuration names."""
        self.check_data(self.data, stage)
        check_unsharded(self.trainer.strategy)
        read_safely(self.trainer.strategy)
        check_precision(self.trainer.precision)
        if stage == "fit":
            self.train()
        if self.device.type == "cpu":
            keep_large_blocks()
        shared = self.teaching.shares_head
        if size_heads(self.students(), self.n_logits(), shared, self.classes_set_by):
            self.on_head_resized()
        self.teaching.open()
        self.teaching.record_layers(self.students(), self.data.source, self.teaches_in(stage))
        start, begins = self.initialisation.checkpoint, self.record.begins
        if start is not None and begins:
            self.load_initial_checkpoint(start, stage)
        if stage == "fit":
            self.teaching.apply_sharing(not self.record.has_begun, start if begins else None)
            self.student.read_as(self.data.source.reading(self.student.reading), "model.student")
        starts_elsewhere = start is not None or (stage == "fit" and self.teaching.sharing.pairs)
        if self.ema is not None and starts_elsewhere and begins:
            self.eval_student.load_state_dict(self.student.state_dict())
        if begins:
            self.teaching.load_strategy(
                self.teaching.class_numbers(self.data), self.teaches_in(stage)
            )
        self.record.set_settings(self, self.data, self.trainer)

    def load_initial_checkpoint(self, path: str, stage: str) -> None:
        """Take over what another run trained."""
        checkpoint, who = read_checkpoint(path), f"initialisation.checkpoint={path}"
        self.record.load_initial(checkpoint, Path(path))
        self.load_student(student_weights(checkpoint), checkpoint["state_dict"], who, stage)
        load_origin(self.student, checkpoint, who)
        needed = stage != "fit" and self.teaches_in(stage)
        self.teaching.load_adapters(checkpoint["state_dict"], path, needed)
        if stage == "test":  # what is judged is what that run trained
            self.record.load_initial_result(checkpoint)

    # --- training ------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for student, learner and adapters; one for a strategy that learns, at its own rates."""
        adapters = dict(self.adapters.named_parameters(prefix="adapters"))
        groups = self.strategy_training.groups(self.loss, self.teachers, self.rates)
        return self.outer_update.configure(self.trained_parameters(), adapters, groups)

    def on_train_start(self) -> None:
        """Write down what the student is trained on; a short run has a curve of ten points too."""
        trainer: Any = self.trainer
        if math.isfinite(total := total_steps(trainer)):
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, max(1, int(total) // 10))
        self.student.external_data = self.teaching.external_data(self.data.source)
        began_before = self.record.has_begun and trainer.ckpt_path is None
        weights = weights_hash(self.eval_student)[:16] if began_before else None
        trained_by = self.record.begin(len(self.data.train_class_names()), weights)
        self.student.constructor_arguments["trained_by"] = trained_by

    def on_train_end(self) -> None:
        """Let a test that follows say what the training took, and by what it trained."""
        self.record.end(self.training_cost())

    def train(self, mode: bool = True) -> "Recipe":
        """Teachers, frozen modules of the student and its average stay in evaluation mode."""
        super().train(mode)
        self.teachers.eval()
        self.teaching.sharing.freeze_modes(self.student)
        if self.ema is not None:
            self.ema.eval()
        return self

    def progress(self) -> float:
        """Part of the training that is done, in [0, 1]."""
        return progress(self.trainer)

    def updates_strategy(self) -> bool:
        """Whether this outer step updates the strategy."""
        due = self.strategy_training.is_due(self.trainer.global_step, self.progress())
        return self.rates.learn and due

    def save_strategy(self, path: Path) -> None:
        """Write the strategy with a readable head."""
        values, by = self.coefficient_log.values, self.record.digest()
        self.teaching.save_strategy(path, values, by, self.teaching.class_numbers(self.data))

    # --- checkpoints ---------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the networks of frozen teachers out; write down the classes that were trained on."""
        state = checkpoint["state_dict"]
        for name in self.teaching.frozen_networks(list(self.state_dict())):
            del state[name]
        checkpoint |= {"classes": self.data.train_class_names(), **origin(self.student)}
        checkpoint["training_cost"] = self.training_cost()
        checkpoint["coefficient_values"] = self.coefficient_log.values
        checkpoint["settings"] = self.record.settings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over a training; the networks of frozen teachers come from their own files."""
        self.check_checkpoint(checkpoint)
        self.record.load(checkpoint, self.trainer)
        self.coefficient_log.values = checkpoint.get("coefficient_values", {})
        load_origin(self.student, checkpoint, "the checkpoint")
        present, stage = self.state_dict(), self.trainer.state.fn
        checkpoint["state_dict"] = state = state_to_load(
            checkpoint["state_dict"],
            present,
            self.teaching.frozen_networks(list(present)),
            teaches=stage is None or self.teaches_in(stage),
            has_adapters=bool(self.adapters.layer_pairs),
        )
        check_weights(present, state, f"ckpt_path={self.trainer.ckpt_path}")

    def training_cost(self) -> dict[str, Any]:
        """What training has taken so far, over all processes, and what it learned."""
        cost = self.record.cost(self.teaching.forwards, self.trainer.world_size)
        return self.teaching.training_fields() | cost

    def data_fields(self) -> dict[str, Any]:
        """What the result row says of files, data and settings; no settings inside a training."""
        fits = self.trainer.state.fn == "fit"
        return {
            **self.data.result_fields(),
            "init_sha256": self.initialisation.checkpoint_sha256(),
            "external_data": ", ".join(self.teaching.external_data(self.data.source)) or None,
            "strategy": self.teaching.strategy_names() or self.record.result.get("strategy"),
            **self.teaching.result_fields(),
            **({} if fits else self.record.settings_fields(self.eval_student)),
        }
