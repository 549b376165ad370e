"""Ordinary training on one task: pretrain a teacher, fine-tune a student, distil with a strategy.

Which of the three it is lies in the configuration: `CrossEntropy` and no teachers pretrain; `init`
fine-tunes; a loss with teachers distils. With `strategy_lr > 0` the strategy is learned too: each batch
makes one virtual step, which is judged on a batch of the quiz rows, on which the student never trains.
"""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from lightning_metakd.data.datamodules import EpisodicData
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.inner_loop import mean_loss
from lightning_metakd.functional.params import detach, detach_tree
from lightning_metakd.losses.loss import CalibratedCrossEntropy, Loss, batch_loss
from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.norm import EpisodicNorm, make_episodic
from lightning_metakd.models.weights import head_for, load_weights
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.storage.read_checkpoint import class_names
from lightning_metakd.strategy.controls import Control, shuffled
from lightning_metakd.strategy.hypergradient import (
    GRADIENT_COUNTS,
    HYPERGRADIENTS,
    HypergradientMethod,
    check_pilot,
)
from lightning_metakd.strategy.strategy_file import check_no_new_classes
from lightning_metakd.teachers.preparation import cache_outputs
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from lightning_metakd.types import Batch, Params


class SingleTask(Recipe):
    """Trains a student on the rows of one task.

    Args:
        student: the network that is trained; its head has one logit for each class of the data.
        loss: what it is taught; the parameters of its coefficients are the strategy. CrossEntropy by default.
        teachers: the networks that help it, with a SlicedHead.
        optimisation: how the training descends.
        init: checkpoint whose weights the student starts from; a head of other classes is dropped, one of the
            same classes in another order is put in theirs.
        strategy: file of a learned strategy to start from.
        strategy_lr: learning rate of the strategy; above 0 the data need a quiz_fraction.
        strategy_every: outer steps from one update of the strategy to the next.
        strategy_warmup: part of the training, in [0, 1), before the first one.
        teacher_lr: learning rate by which the teachers learn to teach (MetaDistil), before each step of the
            student; 0 freezes them.
        control: what is taken away from learning the strategy, to be compared with: `frozen`, `shuffled`,
            `step_size`, `final_constant` (with the strategy of the other run) or `uniform`.
        share: which modules start from, keep or hold in common the weights of a teacher.
        quiz: what judges the strategy; by default cross-entropy at the best scale of the logits.
        hypergradient: `tangent`, `unrolled` or `neumann` (near a minimum of the lesson).
        pilot_lr: step of the virtual update by which a strategy is judged.
        pilot_steps: how many of these steps; more than one not by `tangent`.
    """

    classes_set_by = "data.split"

    def __init__(
        self,
        student: nn.Module,
        loss: Loss | None = None,
        teachers: list[Teacher] | None = None,
        optimisation: Optimisation | None = None,
        init: str | None = None,
        strategy: str | None = None,
        strategy_lr: float = 0.0,
        strategy_every: int = 1,
        strategy_warmup: float = 0.0,
        teacher_lr: float = 0.0,
        control: Control = "none",
        share: list[Share] | None = None,
        quiz: Loss | None = None,
        hypergradient: HypergradientMethod = "tangent",
        pilot_lr: float = 0.001,
        pilot_steps: int = 1,
    ) -> None:
        super().__init__(
            student,
            loss,
            teachers,
            optimisation,
            init,
            strategy,
            strategy_lr,
            strategy_every,
            strategy_warmup,
            teacher_lr,
            control,
            share,
            norm=None,
        )
        check_pilot(hypergradient, pilot_lr, pilot_steps)
        self.quiz, self.hypergradient = (
            copy.deepcopy(quiz or CalibratedCrossEntropy()),
            hypergradient,
        )
        self.pilot_lr, self.pilot_steps = pilot_lr, pilot_steps
        for teacher in self.teachers:
            if teacher.head.needs_support:
                raise ValueError(
                    f"head={type(teacher.head).__name__} is fitted on the support set of an episode, and "
                    "SingleTask has none; give the teacher a SlicedHead."
                )
            if not teacher.head.calibrated:
                raise ValueError(
                    "scale=None is calibrated on held-out episodes, and SingleTask has none; give the "
                    "teacher's head a scale, for instance 1."
                )
        # for virtual steps, called with the student's parameters and never with its own; in a list
        # because it is no part of what is trained, saved or moved
        self.virtual = [copy.deepcopy(self.student).train()]
        make_episodic(self.virtual[0], "batch")
        for path in self.sharing.kept:
            for layer in self.virtual[0].get_submodule(path).eval().modules():
                if isinstance(layer, EpisodicNorm) and layer.running_mean is not None:
                    layer.form = "running"
        self.sums: Any = nn.ModuleDict({name: SumMetric() for name in ("rows", "correct", "nll")})
        self.save_hyperparameters(
            ignore=["student", "loss", "teachers", "quiz", "optimisation", "share"]
        )

    def student_networks(self) -> list[Model]:
        return [self.student, self.virtual[0]]

    def check_data(self, data: Any, stage: str) -> None:
        super().check_data(data, stage)
        if isinstance(data, EpisodicData):
            raise ValueError(
                "data=EpisodicData holds episodes, and model=SingleTask learns from plain batches; take "
                "data=SupervisedData, or model=MetaKD."
            )
        learns = stage == "fit" and self.strategy_lr + self.teacher_lr > 0
        if learns and getattr(data, "fractions", {}).get("quiz") == 0:
            self.quiz_batch(None)

    def on_fit_start(self) -> None:
        """Refuse coefficients that do not know the classes of the data; have the teachers' answers stored."""
        classes, class_names = self.data.classes, self.data.source.all_rows().class_names
        check_no_new_classes(self.loss, classes, classes, class_names)
        self.check_shared_head()
        cache_outputs(self.teachers, self.data, self.trainer)

    def classes(self) -> Tensor:
        return self.data.classes

    def n_logits(self) -> int | None:
        return len(self.data.classes)

    def copies_of_student(self) -> list[Model]:
        return [*super().copies_of_student(), self.virtual[0]]

    def start_student(self, weights: Mapping[str, Tensor], stage: str) -> None:
        """Load the student of `init`; each row of its head goes to the class of its name."""
        arranged, fault = head_for(weights, self.began_with, self.trained_classes())
        left_out = load_weights(self.student, arranged, f"init {self.init}", fault)
        if left_out and stage != "fit":
            raise ValueError(
                f"the student would be judged with a head that nobody has trained. {left_out[0]} Name data "
                "of its classes, or train it on these."
            )

    def check_shared_head(self) -> None:
        """A head that is a teacher's tells the classes of the data apart, in their order."""
        classes = tuple(self.trained_classes())
        for pair, teacher in itertools.product(self.sharing.pairs, self.teachers):
            of_head = (
                pair.student_module is self.student.head
                and pair.teacher_module is teacher.model.head
            )
            if of_head and teacher.trained_on not in ((), classes):
                raise ValueError(
                    f"share names {pair.name}, which tells {listed(teacher.trained_on, 3)} apart, and the "
                    f"classes of the data are {listed(classes, 3)}; leave the head out of share."
                )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As always; the head must tell the classes of the data apart."""
        file_classes, classes = class_names(checkpoint), tuple(self.trained_classes())
        if file_classes and file_classes != classes:
            raise ValueError(
                f"the student of this checkpoint tells {listed(file_classes, 3)} apart, and the classes of "
                f"{self.data.source.name} are {listed(classes, 3)}, in this order; name data of its classes, "
                "or give the file as model.init, which goes by the names of classes."
            )
        super().on_load_checkpoint(checkpoint)

    def with_teacher_outputs(self, batch: Batch, teachers_learn: bool = False) -> Batch:
        """The batch with the teachers' answers.

        Args:
            teachers_learn: whether these are differentiated in what the teachers learn.
        """
        classes = self.data.classes.to(batch.y.device)
        outputs = [
            t.predict_batch(batch, classes, t.trained_parameters() if teachers_learn else None)
            for t in self.teachers
        ]
        return batch._replace(teacher_outputs=tuple(outputs))

    def training_step(self, batch: Batch | tuple[Batch, Batch], batch_idx: int) -> None:
        """One outer update on a batch."""
        train, quiz = (batch, None) if isinstance(batch, Batch) else batch
        classes = self.data.classes.to(train.y.device)
        strategy = dict(self.loss.named_parameters())
        learns, quiz_loss = self.learns_strategy_now(), torch.zeros((), device=self.device)
        teachers_learn = learns and self.teacher_lr > 0
        train = self.with_teacher_outputs(train, teachers_learn)
        if learns:
            quiz_loss = self.strategy_loss(strategy, train, self.quiz_batch(quiz), classes)
        if teachers_learn:  # MetaDistil: the student is taught by what was learned
            self.outer_update(quiz_loss, ("strategy",))
            quiz_loss, learns, train = (
                torch.zeros_like(quiz_loss),
                False,
                self.with_teacher_outputs(train),
            )
        answer = self.adapters(self.student(train.x))
        train_loss = batch_loss(bind_loss(self.loss), detach(strategy), train, classes)
        student_loss = mean_loss(train_loss, answer, answer.logits.new_tensor(self.progress()))
        self.gradient_evaluations += 1
        self.outer_update(
            student_loss + quiz_loss, ("student", "strategy") if learns else ("student",)
        )
        self.log_coefficients(detach_tree(answer), train, classes)
        accuracy = (answer.logits.argmax(-1) == train.y).float().mean()
        log = {"train/outer_loss": student_loss.detach(), "train/student_accuracy": accuracy}
        self.log_dict(log, batch_size=len(train.y), prog_bar=True)

    def strategy_loss(
        self, strategy: Params, train: Batch, quiz_batch: Batch, classes: Tensor
    ) -> Tensor:
        """The quiz after virtual steps on the batch; batch statistics, nothing remembered."""
        if self.control == "shuffled":
            quiz_batch = shuffled(quiz_batch, self.data.seed, self.trainer.global_step)
        plain = self.bind_student(self.virtual[0].to(self.device), state_of=self.student)
        forward = self.adapters.beside(plain, detach(dict(self.adapters.named_parameters())))

        def quiz(at: Params) -> Tensor:
            quiz_loss = batch_loss(bind_loss(self.quiz), {}, quiz_batch, classes)
            return mean_loss(quiz_loss, forward(at, quiz_batch.x))

        train_loss = batch_loss(bind_loss(self.loss), strategy, train, classes)
        now = train.x.new_tensor(self.progress())  # coefficients are judged where they act
        theta = self.trainable_parameters(self.student)
        way = HYPERGRADIENTS[self.hypergradient]
        pilot = way(
            lambda at: forward(at, train.x),
            train_loss,
            quiz,
            theta,
            self.pilot_lr,
            self.pilot_steps,
            now,
        )
        self.gradient_evaluations += GRADIENT_COUNTS[way](self.pilot_steps)
        self.warn_of_flat_quiz(self.quiz, pilot.loss, len(classes))
        log = {"train/quiz_loss": pilot.loss.detach(), "strategy/pilot_gain": pilot.gain}
        self.log_dict(log, batch_size=len(train.y))
        return pilot.loss

    def quiz_batch(self, quiz: Batch | None) -> Batch:
        """The quiz rows that came with the batch."""
        if quiz is None:
            raise ValueError(
                f"strategy_lr={self.strategy_lr} and teacher_lr={self.teacher_lr} need rows to judge what is "
                "learned on, and the data keep none; set data.quiz_fraction, for instance to 0.1, or both "
                "rates to 0."
            )
        return quiz

    # --- evaluation ----------------------------------------------------------------------------

    def evaluation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count."""
        logits = self.eval_student(batch.x).logits
        self.check_finite(logits)
        nll = nn.functional.cross_entropy(logits.double(), batch.y, reduction="sum")
        for name, value in (
            ("rows", len(batch.y)),
            ("correct", (logits.argmax(-1) == batch.y).sum()),
            ("nll", nll),
        ):
            self.sums[name].update(value)

    def evaluation_end(self) -> None:
        """Log, and say what the result row will say; the interval is that of a proportion."""
        stage = "test" if self.trainer.testing else "val"
        rows, correct, nll = (
            float(self.sums[name].compute()) for name in ("rows", "correct", "nll")
        )
        for metric in self.sums.values():
            metric.reset()
        accuracy = correct / rows
        ci95 = 1.96 * math.sqrt(accuracy * (1 - accuracy) / rows)
        self.result_record.update(
            recipe=type(self).__name__,
            loss=type(self.loss).__name__,
            stage=stage,
            accuracy=accuracy,
            ci95=ci95,
            nll=nll / rows,
            **self.data_fields(),
        )
        self.log_dict(
            {f"{stage}/student_accuracy": accuracy, f"{stage}/accuracy_ci95": ci95}, prog_bar=True
        )

    validation_step = test_step = evaluation_step
    on_validation_epoch_end = on_test_epoch_end = evaluation_end

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Classes of the data, and row numbers, labels and class probabilities [n, c]."""
        probs = self.eval_student(batch.x).logits.softmax(-1)
        classes = self.data.classes.to(probs.device)
        return {"classes": classes, "index": batch.index, "y": batch.y, "probs": probs}
