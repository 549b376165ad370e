"""What recipes share that judge a student on episodes: it adapts to each, teachers answer beside it.

Every evaluated episode leaves one row: the student's accuracy on the query rows after adapting to the
support rows, and the teacher's on the same rows. Rows are gathered and sorted before they are reduced, so
that one process and seven give the same number.
"""

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.params import detach, subtree, with_prefix
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.loss import CrossEntropy, Loss, batch_loss
from lightning_metakd.metrics.calibration_error import Calibration
from lightning_metakd.metrics.episode_metrics import EpisodeRows, accuracy, agreement, nll, summary
from lightning_metakd.models.model import Model, head_width
from lightning_metakd.models.norm import NormForm, answers_row_by_row
from lightning_metakd.models.weights import shapes
from lightning_metakd.recipes.cached_forward import CachedForward, by_number
from lightning_metakd.recipes.episode_objective import with_teacher_outputs
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.teachers.preparation import cache_outputs, calibrate
from lightning_metakd.teachers.teacher import Teacher, without_counting
from lightning_metakd.types import Episode, Forward, Output, Params

log = logging.getLogger(__name__)


class Episodic(Recipe):
    """A student that adapts to episodes.

    Args:
        learner: how it adapts.
        teacher_at_test: whether the teachers help it adapt in evaluation too.
    """

    classes_set_by = "data.n_way"

    def __init__(
        self,
        student: nn.Module,
        learner: Learner,
        loss: Loss | None,
        teachers: list[Teacher] | None,
        optimisation: Optimisation | None,
        init: str | None,
        strategy: str | None,
        norm: NormForm,
        teacher_at_test: bool,
        **learning: Any,
    ) -> None:
        super().__init__(
            student, loss, teachers, optimisation, init, strategy, norm=norm, **learning
        )
        self.learner, self.teacher_at_test = deepcopy(learner), teacher_at_test
        if not learner.needs_head:
            self.drop_head()
        self.learner.init_student_state(self.student)
        if teacher_at_test and not (learner.uses_inner_loss and self.loss.needs_teacher):
            raise ValueError(
                f"teacher_at_test=true changes nothing with learner={type(learner).__name__} and "
                f"loss={type(self.loss).__name__}; take a learner that adapts by a loss, ProtoMAML for "
                "instance, and a loss that follows a teacher, or leave teacher_at_test out."
            )
        if norm == "tracked" and learner.adapts_body:
            raise ValueError(
                f"norm='tracked' does not go with learner={type(learner).__name__}, whose body adapts and "
                "must remember nothing of it; take support, running or batch."
            )
        if learner.uses_inner_loss and not learner.adapts_body and any(self.loss.layer_pairs()):
            raise ValueError(
                f"loss={type(self.loss).__name__} compares layers, and learner={type(learner).__name__} "
                "adapts the head alone, which changes none; take a learner whose body adapts, one that is "
                "taught on the query rows (ProtoNet), or a loss of logits."
            )
        has_head = head_width(self.student) > 0
        if has_head != learner.needs_head and not self.student.head_fits_task:
            way_out = (
                "set its n_classes to data.n_way" if learner.needs_head else "set n_classes to 0"
            )
            raise ValueError(
                f"learner={type(learner).__name__} {'needs' if learner.needs_head else 'does not use'} the "
                f"student's logits head, and the student has {'one' if has_head else 'none'}; {way_out}."
            )
        columns = ["accuracy", "nll"]
        if self.teachers:
            columns += ["teacher_accuracy", "teacher_nll", "agreement"]
        self.rows_of_episodes, self.calibration = EpisodeRows(columns), Calibration()
        self.last_episode: Episode | None = None
        self.cached_forward: CachedForward | None = None

    def drop_head(self) -> None:
        """Take away the classifier of a wrapped network, which the learner does not use."""
        if head_width(self.student) and self.student.head_fits_task:
            for network in self.copies_of_student():
                network.resize_head(0)
            log.warning(
                f"{type(self.learner).__name__} brings its own classifier: the student's is left out."
            )

    def n_logits(self) -> int | None:
        n_way = getattr(self.data, "n_way", None)
        if not self.learner.needs_head or n_way is None:
            return None
        if (train_n_way := self.data.train_n_way) != n_way:
            raise ValueError(
                f"train_n_way={train_n_way} and n_way={n_way} want heads of two sizes, and "
                f"{type(self.learner).__name__} adapts one; set both alike, or take a learner that brings "
                "its own head, such as ProtoNet."
            )
        return n_way

    def size_head(self) -> None:
        """As always; rates of a learner follow the head."""
        width = head_width(self.student)
        super().size_head()
        if head_width(self.student) != width:
            self.learner.init_student_state(self.student)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Student and learner."""
        return {
            **super().trained_parameters(),
            **dict(self.learner.named_parameters(prefix="learner")),
        }

    def load_learner_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what a learner of the same kind learned: rates, a scale."""
        learner_params = dict(self.learner.named_parameters())
        loaded = {
            name: p for name, p in subtree(state, "learner").items() if name in learner_params
        }
        if shapes(loaded) == shapes(learner_params):
            self.learner.load_state_dict(loaded, strict=False)

    def teaches_in(self, stage: str) -> bool:
        return self.teacher_at_test or super().teaches_in(stage)

    def student_networks(self) -> list[Model]:
        return [self.student, self.eval_student] if self.teacher_at_test else [self.student]

    def meta(self) -> Params:
        """Everything the outer loop trains but the strategy, as one flat dictionary."""
        return {
            **with_prefix("student", self.trainable_parameters(self.student)),
            **with_prefix("learner", dict(self.learner.named_parameters())),
            **with_prefix("adapters", dict(self.adapters.named_parameters())),
        }

    def with_teacher_outputs(self, episode: Episode) -> Episode:
        """The episode with the teachers' answers for its rows."""
        if not self.teachers:
            return episode
        rows_and_classes = (episode.support, episode.query, episode.classes)
        return with_teacher_outputs(
            episode, [teacher.predict_episode(*rows_and_classes) for teacher in self.teachers]
        )

    # --- evaluation ----------------------------------------------------------------------------

    def cache_test_embeddings(self) -> None:
        """Embed the images of a test once, where the student's body stays the same in all episodes."""
        student = self.eval_student
        if self.learner.adapts_body or not answers_row_by_row(student):
            return
        student.normalisation = self.student.normalisation  # an average does not know it
        cache = OutputCache(student, "", self.data.source)
        cache.fill(self.data.source.rows("test"), view=-1)
        self.cached_forward = CachedForward(cache)

    def predict_cached(self, episode: Episode) -> Output:
        """The same as `adapt_and_predict`, from memory where there is one."""
        if self.cached_forward is None:
            return self.adapt_and_predict(episode)
        support, query = by_number(episode.support), by_number(episode.query)
        return self.adapt_and_predict(
            episode._replace(support=support, query=query), self.cached_forward
        )

    def adapt_and_predict(self, episode: Episode, forward: Forward | None = None) -> Output:
        """The judged student's answer for the query rows, after the support rows."""
        student = self.eval_student
        loss = self.loss if self.teacher_at_test else CrossEntropy()
        support, classes = episode.support, episode.classes
        strategy = detach(dict(loss.named_parameters()))
        support_loss = batch_loss(bind_loss(loss), strategy, support, classes, support)
        meta = {
            **with_prefix("student", self.trainable_parameters(student)),
            **with_prefix("learner", dict(self.learner.named_parameters())),
        }
        forward = forward or self.bind_student(student)
        if self.teacher_at_test:
            forward = self.adapters.beside(forward, dict(self.adapters.named_parameters()))
        adapted = self.learner.adapt(forward, detach(meta), support_loss, support, len(classes))
        return adapted.predict(episode.query.x)

    def evaluate(self, episode: Episode) -> dict[str, Tensor]:
        """One row of numbers; torch.func differentiates under no_grad and inference_mode alike."""
        with without_counting(self.teachers):
            episode = self.last_episode = self.with_teacher_outputs(episode)
        y = episode.query.y
        answer = self.predict_cached(episode)
        self.check_adapted(self.eval_student, answer, episode)
        self.check_finite(answer.logits)
        self.calibration.update(answer.logits.softmax(-1), y)
        row = {"accuracy": accuracy(answer.logits, y), "nll": nll(answer.logits, y)}
        if self.teachers:
            teacher = episode.query.teacher_outputs[0].logits
            row |= {
                "teacher_accuracy": accuracy(teacher, y),
                "teacher_nll": nll(teacher, y),
                "agreement": agreement(answer.logits, teacher),
            }
        return row

    def check_adapted(self, student: Model, answer: Output, episode: Episode) -> None:
        """Raise where adapting to an episode has led from numbers to none.

        Raises:
            FloatingPointError: names the episode and the rate.
        """
        if answer.logits.isfinite().all():
            return
        with torch.no_grad():
            began = student(episode.query.x).embedding
        if began.isfinite().all():
            settings = {**vars(self.learner), "inner_steps": self.learner.inner_steps}
            named = [f"{n}={settings[n]}" for n in ("inner_lr", "inner_steps") if settings.get(n)]
            command = getattr(self.trainer.state.fn, "value", None)
            way_out = " or ".join(named) or f"the rate of {type(self.learner).__name__}"
            raise FloatingPointError(
                f"adapting to episode {int(episode.id)} of {command} led to logits that are not finite; "
                f"lower model.learner.{way_out}."
            )

    def evaluation_step(self, episode: Episode, batch_idx: int) -> None:
        """Adapt and judge."""
        self.rows_of_episodes.update(episode.id, **self.evaluate(episode))

    def evaluation_end(self) -> None:
        """Reduce, log, and say what the result row will say."""
        stage = "test" if self.trainer.testing else "val"
        self.episode_rows, ece = self.rows_of_episodes.compute(), self.calibration.compute()
        self.rows_of_episodes.reset()
        self.calibration.reset()
        metrics = summary(self.episode_rows) | {"ece": ece}
        self.result_record.update(
            metrics,
            stage=stage,
            episodes=len(self.episode_rows["id"]),
            **self.result_fields(),
            **self.data_fields(),
        )
        log = {
            f"{stage}/student_accuracy": metrics["accuracy"],
            f"{stage}/accuracy_ci95": metrics["ci95"],
        }
        if self.teachers:
            log[f"{stage}/teacher_accuracy"] = metrics["teacher_accuracy"]
        self.log_dict(log, prog_bar=True, rank_zero_only=False, sync_dist=False)

    validation_step = test_step = evaluation_step
    on_validation_epoch_end = on_test_epoch_end = evaluation_end

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor]:
        """Episode id, its classes, and for its query rows number, label and class probabilities [q, c]."""
        answer = self.adapt_and_predict(self.with_teacher_outputs(episode))
        self.check_adapted(self.eval_student, answer, episode)
        self.check_finite(answer.logits)
        probs = answer.logits.softmax(-1)
        rows = {"index": episode.query.index, "y": episode.query.y, "probs": probs}
        return {"id": episode.id, "classes": episode.classes, **rows}

    def adaptation(self) -> Callable[[], object] | None:
        """One adaptation to an episode like the latest, for counting its cost."""
        if self.last_episode is None:
            return None
        episode = self.last_episode
        return lambda: self.adapt_and_predict(episode)

    def result_fields(self) -> dict[str, object]:
        """What the result row says of the procedure."""
        norms = {getattr(m, "form", None) for m in self.student.modules()}
        return {
            "recipe": type(self).__name__,
            "learner": type(self.learner).__name__,
            "loss": type(self.loss).__name__,
            "transductive": "batch" in norms,
            "teacher_at_test": self.teacher_at_test,
        }

    # --- teachers' confidence ------------------------------------------------------------------

    def prepare_teachers(self) -> None:
        """Store the teachers' answers where they keep a cache, and set the scale of their logits."""
        cache_outputs(self.teachers, self.data, self.trainer)
        calibrate(self.teachers, self.data, self.device)

    on_fit_start = on_validation_start = on_predict_start = prepare_teachers

    def on_test_start(self) -> None:
        """Prepare what answers for images of the test split."""
        self.prepare_teachers()
        self.cache_test_embeddings()

    def on_test_end(self) -> None:
        """Training may go on, and what was remembered is then no longer true."""
        self.cached_forward = None
