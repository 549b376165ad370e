"""Ordinary training on one task: pretrain a teacher, fine-tune a student, distil with a strategy.

Which of the three it is lies in the configuration: `CrossEntropy` and no teachers pretrain;
`initialisation` fine-tunes; a loss with teachers distils. With `strategy_training.lr > 0` the strategy is
learned too: each batch makes one virtual step, followed by the quiz on a batch of rows, on which the
student never trains.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.inner_loop import mean_loss
from lightning_metakd.functional.params import detach, detach_tree
from lightning_metakd.losses.loss import Loss, batch_loss
from lightning_metakd.models.norm import EpisodicNorm, make_episodic
from lightning_metakd.models.norm_contexts import fused_norms
from lightning_metakd.models.weights import head_for, load_weights
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.mixing import Mixing
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.outer_update import Moves, check_finite
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.recipes.rotation import Rotation, Turns
from lightning_metakd.recipes.row_checks import (
    check_head,
    check_mixing,
    check_of_batch,
    check_shared_head,
    check_trained_classes,
    without_quiz,
)
from lightning_metakd.recipes.row_metrics import RowMetrics
from lightning_metakd.recipes.strategy_training import StrategyTraining, of_batch
from lightning_metakd.strategy.controls import shuffled
from lightning_metakd.strategy.hypergradient import PilotProblem
from lightning_metakd.strategy.strategy_file import check_no_new_classes
from lightning_metakd.teachers.preparation import prepare_for_rows
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Batch, Params, TrainBatch


@final
class SingleTask(Recipe):
    """Trains a student on the rows of one task.

    Args:
        student: the network that is trained; its head has one logit for each class of the data.
        loss: the teaching loss; the parameters of its coefficients are the strategy. CrossEntropy by default.
        teachers: the networks that help it, with a SlicedHead.
        optimisation: how the training descends.
        strategy_training: how the strategy is learned.
        initialisation: what is begun from.
        mixing: how rows of a batch are mixed with one another; null leaves them as they are.
        rotation: how the student learns to tell turned rows apart; null has none.
    """

    classes_set_by = "data.split"

    def __init__(
        self,
        student: nn.Module,
        loss: Loss | None = None,
        teachers: list[Teacher] | None = None,
        *,
        optimisation: Optimisation = Optimisation(),
        strategy_training: StrategyTraining = StrategyTraining(),
        initialisation: Initialisation = Initialisation(),
        mixing: Mixing | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        super().__init__(
            *(student, loss, teachers, optimisation, strategy_training.for_rows(loss)),
            initialisation,
            norm=None,
            teacher_at_test=False,
        )
        strategy_training.check_single_task()
        initialisation.check_single_task()
        check_of_batch(self.loss, optimisation, self.strategy_training)
        self.of_batch, self.mixing = of_batch(self.loss), mixing
        check_mixing(mixing, self.teachers, self.rates.learn)
        self.turns = None if rotation is None else Turns(rotation, self.student.embedding_width)
        self.quiz = strategy_training.quiz_for(None)
        for teacher in self.teachers:
            check_head(teacher)
        virtual = copy.deepcopy(self.student).train()
        make_episodic(virtual, "batch")
        for path in self.teaching.sharing.kept:
            for layer in virtual.get_submodule(path).eval().modules():
                if isinstance(layer, EpisodicNorm) and layer.running_mean is not None:
                    layer.form = "running"
        self.virtual_students.append(virtual)
        self.metrics = RowMetrics()

    # --- the procedure ---------------------------------------------------

    def check_procedure(self, data: SourceData, stage: str) -> None:
        if isinstance(data, EpisodicData):
            raise ValueError(
                "data=EpisodicData holds episodes, and model=SingleTask learns from plain batches; take "
                "data=SupervisedData, or model=MetaKD."
            )
        if stage == "fit" and self.rates.learn and not data.has_quiz:
            raise ValueError(without_quiz(self.strategy_training))

    def n_logits(self) -> int | None:
        return len(self.data.train_classes())

    def on_head_resized(self) -> None:
        """No learner depends on it."""

    def load_student(
        self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], who: str, stage: str
    ) -> None:
        """Load the student; each row of its head goes to the class of its name."""
        classes = self.data.train_class_names()
        present = self.student.state_dict() if stage == "fit" else {}  # new rows are to be trained
        arranged, fault = head_for(weights, self.record.initial_classes, classes, present)
        left_out = load_weights(self.student, arranged, who, fault)
        if left_out and stage != "fit":
            raise ValueError(
                f"the student would be judged with a head that nobody has trained. {left_out[0]} Name data "
                "of its classes, or train it on these."
            )

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise where the head of a checkpoint does not tell the classes of the data apart."""
        check_trained_classes(checkpoint, self.data)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        turns = {} if self.turns is None else dict(self.turns.named_parameters(prefix="turns"))
        return {**self.teaching.trainable_parameters(self.student, "student."), **turns}

    def adaptation(self) -> Callable[[], object] | None:
        return None

    # --- training ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse coefficients that do not know the classes of the data; prepare the teachers."""
        classes = self.data.train_classes()
        check_no_new_classes(self.loss, classes, classes, self.data.source.all_rows().class_names)
        check_shared_head(self.teaching, self.student, self.data.train_class_names())
        if self.trainer.world_size > 1 and self.of_batch:
            raise ValueError(
                f"{type(self.of_batch[0]).__name__} weighs the rows of a batch, and "
                f"{self.trainer.world_size} processes have batches of their own; take one process."
            )
        prepare_for_rows(self.teachers, self.data, self.trainer, self.device)

    def with_teacher_outputs(self, batch: Batch, teachers_learn: bool = False) -> Batch:
        """The batch with the teachers' outputs.

        Args:
            teachers_learn: whether these are differentiated in what the teachers learn.
        """
        classes = self.data.train_classes().to(batch.y.device)
        outputs = [
            t.predict_batch(batch, classes, t.trained_parameters() if teachers_learn else None)
            for t in self.teachers
        ]
        return batch._replace(teacher_outputs=tuple(outputs))

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:
        """One outer update on a batch."""
        rows, quiz = cast(tuple[Batch, Batch | None], batch)
        classes = self.data.train_classes().to(rows.y.device)
        strategy = dict(self.loss.named_parameters())
        updates, quiz_loss = self.updates_strategy(), torch.zeros((), device=self.device)
        teachers_learn = updates and self.rates.teachers > 0
        self.restart_coefficients()
        other, share = rows.y, 1.0
        if self.mixing is not None:
            rows, other, share = self.mixing.mixed(rows, self.data.seed, self.trainer.global_step)
        train = self.with_teacher_outputs(rows, teachers_learn)
        if updates:
            quiz_loss = self.quiz_loss(strategy, train, quiz, classes)
        # MetaDistil: teachers learn first, then they teach; weights of a batch are learned for its step
        if teachers_learn or self.of_batch:
            self.outer_update(quiz_loss, ("strategy",))
            quiz_loss, updates = torch.zeros_like(quiz_loss), False
        if teachers_learn:
            train = self.with_teacher_outputs(train)
        output = self.adapters(self.student(train.x))
        progress = output.logits.new_tensor(self.progress())
        student_loss = torch.zeros((), device=self.device)
        for y, part in ((train.y, share), (other, 1 - share)):
            if part:
                labelled = train._replace(y=y)
                train_loss = batch_loss(bind_loss(self.loss), detach(strategy), labelled, classes)
                student_loss = student_loss + part * mean_loss(train_loss, output, progress)
        if self.turns is not None:
            student_loss = student_loss + self.turns_loss(self.turns, train.x)
        self.record.gradient_evaluations += 1
        moves: Moves = ("student", "strategy") if updates else ("student",)
        self.outer_update(student_loss + quiz_loss, moves)
        if self.coefficient_log.is_due():
            self.coefficient_log.update(self.loss, detach_tree(output), train, classes)
        accuracy = (output.logits.argmax(-1) == train.y).float().mean()
        log = {"train/outer_loss": student_loss.detach(), "train/student_accuracy": accuracy}
        self.log_dict(log, batch_size=len(train.y), prog_bar=True)

    def turns_loss(self, turns: Turns, x: Tensor) -> Tensor:
        """That of turned rows, by batch statistics that leave no trace in the running ones."""
        virtual = self.virtual_students[0].to(self.device)
        forward = self.teaching.bind_student(virtual, state_of=self.student)
        student = partial(forward, self.teaching.trainable_parameters(self.student))
        with fused_norms(virtual):
            return turns(student, x, self.data.seed, self.trainer.global_step)

    def restart_coefficients(self) -> None:
        """Begin anew with what is learned for a single batch; its optimiser forgets the one before."""
        optimisers: Any = self.optimizers()
        for coefficient in self.of_batch:
            coefficient.restart()
            for parameter in coefficient.parameters():
                optimisers[1].state.pop(parameter, None)

    def quiz_loss(
        self, strategy: Params, train: Batch, quiz: Batch | None, classes: Tensor
    ) -> Tensor:
        """The quiz after virtual steps on the batch; batch statistics, and no running ones."""
        if quiz is None:
            raise ValueError(without_quiz(self.strategy_training))
        config, seed = self.strategy_training, self.data.seed
        if config.control == "shuffled":
            quiz = shuffled(quiz, seed, self.trainer.global_step)
        virtual = self.virtual_students[0].to(self.device)
        plain = self.teaching.bind_student(virtual, state_of=self.student)
        forward = self.adapters.beside(plain, detach(dict(self.adapters.named_parameters())))
        held_out_loss = batch_loss(bind_loss(self.quiz), {}, quiz, classes)
        x = quiz.x
        problem = PilotProblem(
            lambda params: forward(params, train.x),
            batch_loss(bind_loss(self.loss), strategy, train, classes),
            lambda params: mean_loss(held_out_loss, forward(params, x)),
            self.teaching.trainable_parameters(self.student),
            config.pilot_lr,
            config.steps,
            train.x.new_tensor(self.progress()),  # coefficients are judged where they act
        )
        pilot = config.method.solve(problem)
        self.record.gradient_evaluations += config.method.count_gradients(config.steps)
        self.coefficient_log.warn_of_flat_quiz(self.quiz, pilot.loss, len(classes))
        log = {"train/quiz_loss": pilot.loss.detach(), "strategy/pilot_gain": pilot.gain}
        self.log_dict(log, batch_size=len(train.y))
        return pilot.loss

    # --- evaluation ----------------------------------------------------------------------------

    def evaluation_start(self) -> None:
        """Know which groups of classes are judged one by one."""
        self.metrics.set_groups(self.data.groups(), self.data.train_classes())

    on_validation_start = on_test_start = evaluation_start

    def evaluation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Count."""
        logits = self.eval_student(batch.x).logits
        check_finite(logits, self.optimisation.lr)
        self.metrics.update(logits, batch.y)
        return self.answers(batch, logits)

    def evaluation_end(self) -> None:
        """Log, and write down what the result row says."""
        stage = "test" if self.trainer.testing else "val"
        metrics, groups = self.metrics.compute()
        self.record.domains = [(fields, {}) for fields in groups]
        self.record.result.update(
            recipe=type(self).__name__,
            loss=type(self.loss).__name__,
            stage=stage,
            **metrics,
            **self.data_fields(),
        )
        log = {"student_accuracy": metrics["accuracy"], "accuracy_ci95": metrics["ci95"]}
        self.log_dict({f"{stage}/{name}": value for name, value in log.items()}, prog_bar=True)

    validation_step = test_step = evaluation_step
    on_validation_epoch_end = on_test_epoch_end = evaluation_end

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What is answered for a batch."""
        return self.answers(batch, self.eval_student(batch.x).logits)

    def answers(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Classes of the data, and row numbers, labels and class probabilities [n, c]."""
        classes, probs = self.data.train_classes().to(logits.device), logits.softmax(-1)
        return {"classes": classes, "index": batch.index, "y": batch.y, "probs": probs}
