"""How a student is evaluated on episodes: it adapts to each, and leaves one row of numbers.

A row has the student's accuracy on the query rows after adapting to the support rows, and the teacher's on
the same rows. Rows are gathered and sorted before they are reduced, so that one process and seven give the
same number.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.params import detach, with_prefix
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.losses.adapters import Adapters
from lightning_metakd.losses.loss import CrossEntropy, held_out_accuracy
from lightning_metakd.metrics.calibration_error import Calibration
from lightning_metakd.metrics.episode_metrics import (
    EpisodeRows,
    EpisodeTable,
    accuracy,
    agreement,
    nll,
    summary,
)
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import answers_row_by_row
from lightning_metakd.models.norm_contexts import fused_norms
from lightning_metakd.recipes.cached_forward import CachedForward, by_number
from lightning_metakd.recipes.episode_checks import check_adapted
from lightning_metakd.recipes.episode_objective import EpisodeObjective, with_teacher_outputs
from lightning_metakd.recipes.outer_update import check_finite
from lightning_metakd.recipes.teaching_setup import TeachingSetup
from lightning_metakd.strategy.strategy_file import values_of_rows
from lightning_metakd.teachers.preparation import cache_outputs, calibrate
from lightning_metakd.teachers.teacher_pool import first_that_sees
from lightning_metakd.types import Context, Episode, Forward, Output, Params

COEFFICIENTS_EVERY = 8
"""Episodes between two whose rows' coefficients are looked at."""


class EpisodeEvaluator:
    """A student that adapts to episodes beside its teachers.

    Args:
        learner: how it adapts.
        teaching: its teaching loss, teachers and adapters.
        teacher_at_test: whether the teaching loss acts in evaluation.
        lr: of the student's training, for a message.

    Attributes:
        last_episode: with the teachers' outputs; None before the first.
        cached_forward: the student over stored embeddings, where there are any.
    """

    def __init__(
        self, learner: Learner, teaching: TeachingSetup, teacher_at_test: bool, lr: float
    ) -> None:
        self.learner, self.teaching, self.lr = learner, teaching, lr
        self.teacher_at_test = teacher_at_test
        self.last_episode: Episode | None = None
        self.cached_forward: CachedForward | None = None

    def prepare_teachers(self, data: EpisodicData, trainer: Trainer, device: torch.device) -> None:
        """Fill the teachers' caches, and set the scale of their logits."""
        cache_outputs(self.teaching.teachers, data, trainer)
        calibrate(self.teaching.teachers, data, device)

    def cache_embeddings(self, student: Model, data: EpisodicData) -> None:
        """Embed the images of a test once, where the student's body stays the same in all episodes."""
        if self.learner.adapts_body or not answers_row_by_row(student):
            return
        cache = OutputCache(student, "", data.source)
        for view in data.evaluation_views:
            cache.fill(data.source.rows("test"), view)
        self.cached_forward = CachedForward(cache)

    def with_teacher_outputs(self, episode: Episode) -> Episode:
        """The episode with the teachers' outputs for its rows."""
        if not self.teaching.teachers:
            return episode
        rows_and_classes = (episode.support, episode.query, episode.classes)
        outputs = [teacher.predict_episode(*rows_and_classes) for teacher in self.teaching.teachers]
        return with_teacher_outputs(episode, outputs)

    def theta(self, student: Model) -> Params:
        """What the outer loop trains but the strategy, as one flat dictionary.

        Args:
            student: whose weights it has, the student or its average.
        """
        return {
            **self.teaching.trainable_parameters(student, "student."),
            **with_prefix("learner", dict(self.learner.named_parameters())),
            **with_prefix("adapters", dict(self.teaching.adapters.named_parameters())),
        }

    def adapt(self, student: Model, episode: Episode, forward: Forward | None = None) -> Adapted:
        """The student after the support rows.

        Args:
            forward: in place of the student's own.
        """
        teaches = self.teacher_at_test
        loss = self.teaching.loss if teaches else CrossEntropy()
        objective = EpisodeObjective(
            self.learner,
            forward or self.teaching.bind_student(student),
            bind_loss(loss),
            adapters=self.teaching.adapters if teaches else Adapters(),
        )
        strategy = detach(dict(loss.named_parameters()))
        support_loss = objective.teaching_loss(strategy, episode.support, episode)
        return objective.adapt(detach(self.theta(student)), support_loss, episode)

    def adapt_and_predict(
        self, student: Model, episode: Episode, forward: Forward | None = None
    ) -> Output:
        """The student's output for the query rows, after the support rows."""
        with fused_norms(student):
            return self.adapt(student, episode, forward).predict(episode.query.x)

    def predict(self, student: Model, episode: Episode, trainer: Trainer) -> Output:
        """As `adapt_and_predict`, from stored embeddings where there are any.

        Raises:
            FloatingPointError: if the output is no number.
        """
        if self.cached_forward is None:
            output = self.adapt_and_predict(student, episode)
        else:
            support, query = by_number(episode.support), by_number(episode.query)
            numbered = episode._replace(support=support, query=query)
            output = self.adapt_and_predict(student, numbered, self.cached_forward)
        check_adapted(output, student, episode, self.learner, trainer)
        check_finite(output.logits, self.lr)
        return output

    def answers(self, episode: Episode, output: Output) -> dict[str, Any]:
        """What is answered for an episode, for callbacks.

        Its id and classes, number and label of its support rows; for its query rows number, label and class
        probabilities [q, c], those of the teacher that is judged, and sometimes the coefficients that differ
        from row to row.

        Args:
            episode: with the teachers' outputs.
            output: the student's for the query rows.
        """
        query, teacher = episode.query, first_that_sees(self.teaching.teachers)
        rows = {"index": query.index, "y": query.y, "probs": output.logits.softmax(-1)}
        if teacher is not None:
            rows["teacher_probs"] = query.teacher_outputs[teacher].logits.softmax(-1)
        coefficients = {}
        if int(episode.id) % COEFFICIENTS_EVERY == 0:
            ones = output.logits.new_ones(())
            accuracy = held_out_accuracy(episode.support)
            context = Context(episode.classes[query.y], ones, output, accuracy)
            coefficients = values_of_rows(self.teaching.loss, output, query, context)
        support = {"support_index": episode.support.index, "support_y": episode.support.y}
        of_episode = {"id": episode.id, "classes": episode.classes, **support}
        return {**of_episode, **rows, "coefficients": coefficients}


class EpisodeMetrics(nn.Module):
    """Rows of numbers, one for each evaluated episode.

    Args:
        teacher: place of the teacher whose outputs are judged beside the student's; None judges none.
    """

    def __init__(self, teacher: int | None) -> None:
        super().__init__()
        columns, self.teacher = ["accuracy", "nll"], teacher
        if teacher is not None:
            columns += ["teacher_accuracy", "teacher_nll", "agreement"]
        self.rows, self.calibration = EpisodeRows(columns), Calibration()

    def update(self, episode: Episode, output: Output) -> None:
        """Add an episode.

        Args:
            episode: with the teachers' outputs.
            output: the student's for the query rows.
        """
        y, logits = episode.query.y, output.logits
        self.calibration.update(logits.softmax(-1), y)
        row = {"accuracy": accuracy(logits, y), "nll": nll(logits, y)}
        if self.teacher is not None:
            teacher = episode.query.teacher_outputs[self.teacher]
            row |= {
                "teacher_accuracy": accuracy(teacher.logits, y),
                "teacher_nll": nll(teacher.logits, y),
                "agreement": agreement(logits, teacher.logits),
            }
        self.rows.update(episode.id, **row)

    def compute(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """(all rows by column, their means with intervals and the calibration error); starts anew."""
        rows, ece = self.rows.compute(), self.calibration.compute()
        self.rows.reset()
        self.calibration.reset()
        return rows, summary(rows) | {"ece": float(ece)}

    def logged(self, stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """What of the means is logged, under the names of its curves."""
        names = {"accuracy": "student_accuracy", "ci95": "accuracy_ci95"}
        if self.teacher is not None:
            names["teacher_accuracy"] = "teacher_accuracy"
        return {f"{stage}/{name}": metrics[key] for key, name in names.items()}


def of_domains(
    data: EpisodicData, split: str, rows: EpisodeTable
) -> list[tuple[dict[str, Any], EpisodeTable]]:
    """What results say of each domain, and its rows of an evaluation; nothing where there is one domain."""
    return [
        (
            summary(table)
            | {"domain": domain.name, "source": domain.source, "episodes": len(table["id"])},
            table,
        )
        for domain, table in data.by_domain(split, rows)
    ]
