"""What a meta-step minimises for one episode: pure functions of parameters, strategy and episode.

Two things: the student's loss, in everything but the strategy, and the quiz, in the strategy alone. A
strategy trained on the loss that it parametrises would make that loss small rather than the student good
(a weight goes to the teacher that is easiest to match). So it sees the quiz only: rows on which the
student never trains.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.inner_loop import loss_of_answer, mean_loss
from lightning_metakd.functional.params import detach, detach_tree, subtree
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.losses.adapters import Adapters
from lightning_metakd.losses.loss import CrossEntropy, Loss, batch_loss
from lightning_metakd.strategy.hypergradient import (
    HYPERGRADIENTS,
    Hypergradient,
    Pilot,
    PilotProblem,
)
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Batch, BatchLoss, Episode, Forward, Output, Params, QuizEpisodes

TEACHERS = "teachers."
"""Under which the strategy has the parameters of teachers that learn, by their place among all."""


@dataclass(frozen=True)
class EpisodeObjective:
    """What a meta-step minimises for one episode.

    Attributes:
        learner: how the student adapts.
        forward: the student as a pure function.
        teach: the teaching loss as a function of the strategy.
        quiz: what judges the strategy.
        hypergradient: how the quiz is differentiated where no teaching loss acts inside `adapt`.
        pilot_lr: step size of the pilot.
        pilot_steps: how many of them, or terms of its series.
        adapters: which fill in the student's hints.
        teachers: all of them where they learn to teach, as part of the strategy.
    """

    learner: Learner
    forward: Forward
    teach: Callable[..., Tensor]
    quiz: Loss = field(default_factory=CrossEntropy)
    hypergradient: Hypergradient = HYPERGRADIENTS["tangent"]
    pilot_lr: float = 0.001
    pilot_steps: int = 1
    adapters: Adapters = field(default_factory=Adapters)
    teachers: Sequence[Teacher] = ()

    def teaching_loss(self, strategy: Params, batch: Batch, episode: Episode) -> BatchLoss:
        """The teaching loss of a batch, with these coefficients."""
        coefficients = {n: p for n, p in strategy.items() if not n.startswith(TEACHERS)}
        return batch_loss(self.teach, coefficients, batch, episode.classes, episode.support)

    def with_trained_teacher_outputs(self, strategy: Params, episode: Episode) -> Episode:
        """The episode with the outputs of teachers that learn, as functions of the strategy."""
        if not self.teachers:
            return episode
        rows_and_classes = (episode.support, episode.query, episode.classes)
        return with_teacher_outputs(
            episode,
            [
                teacher.predict_episode(*rows_and_classes, subtree(strategy, f"{TEACHERS}{k}"))
                for k, teacher in enumerate(self.teachers)
            ],
        )

    def label_loss(self, loss: Loss, batch: Batch, episode: Episode) -> BatchLoss:
        """A loss of a batch that has no strategy."""
        return batch_loss(bind_loss(loss), {}, batch, episode.classes)

    def adapt(self, theta: Params, support_loss: BatchLoss, episode: Episode) -> Adapted:
        """The student after the support set; adapters are constants where a loss acts on it."""
        adapter_params = subtree(theta, "adapters")
        forward = self.adapters.beside(
            self.forward, detach(adapter_params) if self.learner.uses_inner_loss else adapter_params
        )
        return self.learner.adapt(
            forward, theta, support_loss, episode.support, len(episode.classes)
        )

    def student_loss(self, theta: Params, strategy: Params, episode: Episode) -> Tensor:
        """What trains theta: the learner's outer loss.

        Where the teaching loss acts inside `adapt`, the query rows have cross-entropy and adapters a loss of
        their own; otherwise the teaching loss acts on the query rows.
        """
        adapted = self.adapt(theta, self.teaching_loss(strategy, episode.support, episode), episode)
        if not self.learner.uses_inner_loss:
            query_loss = self.teaching_loss(strategy, episode.query, episode)
            return self.learner.outer_loss(theta, adapted, query_loss, episode.query)
        query_loss = self.label_loss(CrossEntropy(), episode.query, episode)
        loss = self.learner.outer_loss(theta, adapted, query_loss, episode.query)
        if not (adapter_params := subtree(theta, "adapters")):
            return loss
        projecting = self.adapters_loss(adapter_params, adapted, strategy, episode)
        return loss + projecting - projecting.detach()  # what is reported is the student's

    def adapters_loss(
        self, adapter_params: Params, adapted: Adapted, strategy: Params, episode: Episode
    ) -> Tensor:
        """What trains the adapters of a learner that adapts by loss: the teaching loss at its start.

        Coefficients are those of halfway through the task, where no schedule is at its zero.
        """
        start = detach_tree(adapted.answer(detach(adapted.trajectory[0]), episode.support.x))
        support_loss = self.teaching_loss(detach(strategy), episode.support, episode)
        return mean_loss(
            support_loss,
            self.adapters.hinted(start, adapter_params),
            start.logits.new_full((), 0.5),
        )

    def quiz_loss_after_adaptation(
        self, theta: Params, strategy: Params, episode: Episode
    ) -> Tensor:
        """What trains the strategy of a learner that adapts by loss: the quiz, through its inner steps."""
        adapted = self.adapt(theta, self.teaching_loss(strategy, episode.support, episode), episode)
        quiz_loss = self.label_loss(self.quiz, episode.query, episode)
        x = episode.query.x
        return loss_of_answer(quiz_loss, adapted.answer, adapted.params, x)

    def quiz_loss_after_pilot(self, theta: Params, strategy: Params, task: QuizEpisodes) -> Pilot:
        """What trains the strategy of other learners: the quiz after a pilot on the training rows."""
        train, held_out = self.with_trained_teacher_outputs(strategy, task.train), task.quiz
        if self.quiz.needs_teacher:
            held_out = self.with_trained_teacher_outputs(strategy, held_out)

        def predict(at: Params) -> Output:
            support_loss = self.teaching_loss(strategy, train.support, train)
            return self.adapt(at, support_loss, train).predict(train.query.x)

        def quiz(at: Params) -> Tensor:
            quiz_loss = self.label_loss(self.quiz, held_out.query, held_out)
            adapted = self.adapt(at, quiz_loss, held_out)
            return self.learner.outer_loss(at, adapted, quiz_loss, held_out.query)

        train_loss = self.teaching_loss(strategy, train.query, train)
        return self.hypergradient.solve(
            PilotProblem(predict, train_loss, quiz, theta, self.pilot_lr, self.pilot_steps)
        )

    def count_gradients(self, of_strategy: bool) -> int:
        """Gradients with respect to the student that one task takes, one way or the other."""
        if not of_strategy or self.learner.uses_inner_loss:
            return self.learner.inner_steps + 1
        return self.hypergradient.count_gradients(self.pilot_steps)

    def strategy_loss(
        self, theta: Params, strategy: Params, task: Episode | QuizEpisodes
    ) -> tuple[Tensor, Tensor]:
        """(the quiz, whose gradient reaches the strategy alone; gain of the pilot or 0).

        Args:
            task: an episode for a learner that adapts by a loss, a pair of them for the others.
        """
        if isinstance(task, QuizEpisodes):
            return self.quiz_loss_after_pilot(theta, strategy, task)
        loss = self.quiz_loss_after_adaptation(
            detach(theta), strategy, self.with_trained_teacher_outputs(strategy, task)
        )
        return loss, loss.new_zeros(())


def with_teacher_outputs(episode: Episode, outputs: Sequence[tuple[Output, Output]]) -> Episode:
    """The episode with each teacher's outputs for its support and its query rows."""
    support, query = zip(*outputs, strict=True)
    return episode._replace(
        support=episode.support._replace(teacher_outputs=support),
        query=episode.query._replace(teacher_outputs=query),
    )
