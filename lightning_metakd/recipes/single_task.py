"""Ordinary training on one task: pretrain a teacher, fine-tune a student, distil with a strategy.

Which of the three it is lies in the configuration: `Targets` and no teachers pretrain; `init` fine-tunes;
a loss with teachers distils. With `strategy_lr > 0` the strategy is learned too: each batch makes one
virtual step, which is judged on a batch of the quiz rows, on which the student never trains.
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
from lightning_metakd.functional.inner_loop import lesson_mean
from lightning_metakd.functional.params import detach, stop
from lightning_metakd.losses.loss import CalibratedTargets, Loss, lesson
from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.norm import EpisodicNorm, make_episodic
from lightning_metakd.models.weights import head_for, load_weights
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.storage.read_checkpoint import class_names
from lightning_metakd.strategy.controls import Control, shuffled
from lightning_metakd.strategy.hypergradient import PILOT_GRADIENTS, PILOTS, Way, checked_pilot
from lightning_metakd.strategy.strategy_file import refuse_new_classes
from lightning_metakd.teachers.preparation import store_answers
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from lightning_metakd.types import Batch, Params


class SingleTask(Recipe):
    """Trains a student on the rows of one task.

    Args:
        student: the network that is trained; its head has one logit for each class of the data.
        loss: what it is taught; the parameters of its coefficients are the strategy. Targets by default.
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
        hypergradient: Way = "tangent",
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
        checked_pilot(hypergradient, pilot_lr, pilot_steps)
        self.quiz, self.hypergradient = copy.deepcopy(quiz or CalibratedTargets()), hypergradient
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

    def taught_networks(self) -> list[Model]:
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
        classes, class_names = self.data.classes, self.data.source.everything().class_names
        refuse_new_classes(self.loss, classes, classes, class_names)
        self.check_shared_head()
        store_answers(self.teachers, self.data, self.trainer)

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
        own = tuple(self.trained_classes())
        for pair, teacher in itertools.product(self.sharing.pairs, self.teachers):
            of_head = pair.own is self.student.head and pair.source is teacher.model.head
            if of_head and teacher.trained_on not in ((), own):
                raise ValueError(
                    f"share names {pair.name}, which tells {listed(teacher.trained_on, 3)} apart, and the "
                    f"classes of the data are {listed(own, 3)}; leave the head out of share."
                )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As always; the head must tell the classes of the data apart."""
        theirs, own = class_names(checkpoint), tuple(self.trained_classes())
        if theirs and theirs != own:
            raise ValueError(
                f"the student of this checkpoint tells {listed(theirs, 3)} apart, and the classes of "
                f"{self.data.source.name} are {listed(own, 3)}, in this order; name data of its classes, or "
                "give the file as model.init, which goes by the names of classes."
            )
        super().on_load_checkpoint(checkpoint)

    def asked(self, batch: Batch, teachers_learn: bool = False) -> Batch:
        """The batch with the teachers' answers.

        Args:
            teachers_learn: whether these are differentiated in what the teachers learn.
        """
        classes, pool = self.data.classes.to(batch.y.device), self.teachers
        if teachers_learn:
            answers = [t.answer_rows_by(t.trained_parameters(), batch, classes) for t in pool]
        else:
            answers = [t.answer_rows(batch, classes) for t in pool]
        return batch._replace(teachers=tuple(answers))

    def training_step(self, batch: Batch | tuple[Batch, Batch], batch_idx: int) -> None:
        """One outer update on a batch."""
        taught, judge = (batch, None) if isinstance(batch, Batch) else batch
        classes = self.data.classes.to(taught.y.device)
        strategy = dict(self.loss.named_parameters())
        learns, judged = self.learns_strategy_now(), torch.zeros((), device=self.device)
        teachers_learn = learns and self.teacher_lr > 0
        taught = self.asked(taught, teachers_learn)
        if learns:
            judged = self.strategy_loss(strategy, taught, self.quiz_batch(judge), classes)
        if teachers_learn:  # MetaDistil: the student is taught by what was learned
            self.outer_update(judged, ("strategy",))
            judged, learns, taught = torch.zeros_like(judged), False, self.asked(taught)
        answer = self.adapters(self.student(taught.x))
        told = lesson(bind_loss(self.loss), detach(strategy), taught, classes)
        student_loss = lesson_mean(told, answer, answer.logits.new_tensor(self.progress()))
        self.gradient_evaluations += 1
        self.outer_update(
            student_loss + judged, ("student", "strategy") if learns else ("student",)
        )
        self.listen(stop(answer), taught, classes)
        accuracy = (answer.logits.argmax(-1) == taught.y).float().mean()
        log = {"train/outer_loss": student_loss.detach(), "train/student_accuracy": accuracy}
        self.log_dict(log, batch_size=len(taught.y), prog_bar=True)

    def strategy_loss(
        self, strategy: Params, taught: Batch, judge: Batch, classes: Tensor
    ) -> Tensor:
        """The quiz after virtual steps on the batch; batch statistics, nothing remembered."""
        if self.control == "shuffled":
            judge = shuffled(judge, self.data.seed, self.trainer.global_step)
        plain = self.bound(self.virtual[0].to(self.device), like=self.student)
        forward = self.adapters.beside(plain, detach(dict(self.adapters.named_parameters())))

        def quiz(at: Params) -> Tensor:
            asked = lesson(bind_loss(self.quiz), {}, judge, classes)
            return lesson_mean(asked, forward(at, judge.x))

        told = lesson(bind_loss(self.loss), strategy, taught, classes)
        now = taught.x.new_tensor(self.progress())  # coefficients are judged where they act
        theta = self.moving(self.student)
        way = PILOTS[self.hypergradient]
        found = way(
            lambda at: forward(at, taught.x),
            told,
            quiz,
            theta,
            self.pilot_lr,
            self.pilot_steps,
            now,
        )
        self.gradient_evaluations += PILOT_GRADIENTS[way](self.pilot_steps)
        self.warn_of_silence(self.quiz, found.loss, len(classes))
        log = {"train/quiz_loss": found.loss.detach(), "strategy/pilot_gain": found.gain}
        self.log_dict(log, batch_size=len(taught.y))
        return found.loss

    def quiz_batch(self, judge: Batch | None) -> Batch:
        """The quiz rows that came with the batch."""
        if judge is None:
            raise ValueError(
                f"strategy_lr={self.strategy_lr} and teacher_lr={self.teacher_lr} need rows to judge what is "
                "learned on, and the data keep none; set data.quiz_fraction, for instance to 0.1, or both "
                "rates to 0."
            )
        return judge

    # --- evaluation ----------------------------------------------------------------------------

    def evaluation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count."""
        logits = self.judged(batch.x).logits
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
        self.record.update(
            recipe=type(self).__name__,
            loss=type(self.loss).__name__,
            stage=stage,
            accuracy=accuracy,
            ci95=ci95,
            nll=nll / rows,
            **self.data_described(),
        )
        self.log_dict(
            {f"{stage}/student_accuracy": accuracy, f"{stage}/accuracy_ci95": ci95}, prog_bar=True
        )

    validation_step = test_step = evaluation_step
    on_validation_epoch_end = on_test_epoch_end = evaluation_end

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Classes of the data, and row numbers, labels and class probabilities [n, c]."""
        probs = self.judged(batch.x).logits.softmax(-1)
        classes = self.data.classes.to(probs.device)
        return {"classes": classes, "index": batch.index, "y": batch.y, "probs": probs}
