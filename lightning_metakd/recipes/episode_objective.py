"""What a meta-step minimises for one episode: pure functions of parameters, strategy and episode.

Two things: the student's loss, in everything but the strategy, and the quiz, in the strategy alone. A
strategy trained on the loss that it parametrises would make that loss small rather than the student good
(a weight goes to the teacher that is easiest to match). So it sees the quiz only: rows on which the
student is judged after it was taught.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.inner_loop import lesson_mean
from lightning_metakd.functional.params import detach, part, stop
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.losses.adapters import Adapters
from lightning_metakd.losses.loss import Loss, Targets, lesson
from lightning_metakd.strategy.hypergradient import PILOT_GRADIENTS, Pilot
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Batch, Episode, Exam, Forward, Lesson, Output, Params

TEACHERS = "teachers."
"""Under which the strategy has the parameters of teachers that learn, by their place among all."""


@dataclass(frozen=True)
class Objective:
    """What a meta-step minimises for one episode.

    Attributes:
        learner: how the student adapts.
        forward: the student as a pure function.
        teach: the teaching loss as a function of the strategy.
        quiz: what judges the strategy.
        pilot: how the quiz is differentiated where no lesson acts inside `adapt`.
        pilot_lr: step of that pilot.
        adapters: which fill in the student's hints.
        pilot_steps: how many of them.
        teachers: all of them where they learn to teach, as part of the strategy.
    """

    learner: Learner
    forward: Forward
    teach: Callable[..., Tensor]
    quiz: Loss
    pilot: Callable[..., Pilot]
    pilot_lr: float
    adapters: Adapters = field(default_factory=Adapters)
    pilot_steps: int = 1
    teachers: Sequence[Teacher] = ()

    def taught(self, strategy: Params, batch: Batch, episode: Episode) -> Lesson:
        """What the teachers make of a batch."""
        own = {n: p for n, p in strategy.items() if not n.startswith(TEACHERS)}
        return lesson(self.teach, own, batch, episode.classes, episode.support)

    def answered(self, strategy: Params, episode: Episode) -> Episode:
        """The episode with the answers of teachers that learn, as functions of the strategy."""
        if not self.teachers:
            return episode
        asked = (episode.support, episode.query, episode.classes)
        return with_answers(
            episode,
            [
                teacher.answer_by(part(strategy, f"{TEACHERS}{k}"), *asked)
                for k, teacher in enumerate(self.teachers)
            ],
        )

    def plain(self, loss: Loss, batch: Batch, episode: Episode) -> Lesson:
        """A loss without a strategy."""
        return lesson(bind_loss(loss), {}, batch, episode.classes)

    def adapt(self, theta: Params, told: Lesson, episode: Episode) -> Adapted:
        """The student after the support set; adapters are constants where a lesson acts on it."""
        own = part(theta, "adapters")
        forward = self.adapters.beside(
            self.forward, detach(own) if self.learner.adapts_by_loss else own
        )
        return self.learner.adapt(forward, theta, told, episode.support, len(episode.classes))

    def student_loss(self, theta: Params, strategy: Params, episode: Episode) -> Tensor:
        """What trains theta: the learner's outer loss.

        Where the lesson acts inside `adapt`, the query rows are asked plainly and adapters have a loss of
        their own; otherwise the query rows are taught.
        """
        adapted = self.adapt(theta, self.taught(strategy, episode.support, episode), episode)
        if not self.learner.adapts_by_loss:
            asked = self.taught(strategy, episode.query, episode)
            return self.learner.outer_loss(theta, adapted, asked, episode.query)
        asked = self.plain(Targets(), episode.query, episode)
        loss = self.learner.outer_loss(theta, adapted, asked, episode.query)
        if not (own := part(theta, "adapters")):
            return loss
        projecting = self.adapters_loss(own, adapted, strategy, episode)
        return loss + projecting - projecting.detach()  # what is reported is the student's

    def adapters_loss(
        self, own: Params, adapted: Adapted, strategy: Params, episode: Episode
    ) -> Tensor:
        """What trains the adapters of a learner that adapts by loss: the lesson where the student starts.

        It is asked halfway through the task, where no schedule is at its zero.
        """
        start = stop(adapted.answer(detach(adapted.trajectory[0]), episode.support.x))
        told = self.taught(detach(strategy), episode.support, episode)
        return lesson_mean(told, self.adapters.hinted(start, own), start.logits.new_full((), 0.5))

    def quiz_of_adaptation(self, theta: Params, strategy: Params, episode: Episode) -> Tensor:
        """What trains the strategy of a learner that adapts by loss: the quiz, through its inner steps."""
        adapted = self.adapt(theta, self.taught(strategy, episode.support, episode), episode)
        asked = self.plain(self.quiz, episode.query, episode)
        return lesson_mean(asked, adapted.predict(episode.query.x))

    def quiz_of_pilot(self, theta: Params, strategy: Params, exam: Exam) -> Pilot:
        """What trains the strategy of other learners: a pilot step is taught, and then the quiz is asked."""
        taught, asking = self.answered(strategy, exam.taught), exam.quiz
        if self.quiz.needs_teacher:
            asking = self.answered(strategy, asking)

        def answer(at: Params) -> Output:
            told = self.taught(strategy, taught.support, taught)
            return self.adapt(at, told, taught).predict(taught.query.x)

        def quiz(at: Params) -> Tensor:
            asked = self.plain(self.quiz, asking.query, asking)
            adapted = self.adapt(at, asked, asking)
            return self.learner.outer_loss(at, adapted, asked, asking.query)

        told = self.taught(strategy, taught.query, taught)
        return self.pilot(answer, told, quiz, theta, self.pilot_lr, self.pilot_steps)

    def gradients(self, of_strategy: bool) -> int:
        """Gradients with respect to the student that one task takes, one way or the other."""
        if not of_strategy or self.learner.adapts_by_loss:
            return self.learner.inner_steps + 1
        return PILOT_GRADIENTS[self.pilot](self.pilot_steps)

    def strategy_loss(
        self, theta: Params, strategy: Params, task: Episode | Exam
    ) -> tuple[Tensor, Tensor]:
        """(the quiz, whose gradient reaches the strategy alone; gain of the pilot or 0).

        Args:
            task: an episode for a learner that adapts by a loss, an exam for the others.
        """
        if isinstance(task, Exam):
            return self.quiz_of_pilot(theta, strategy, task)
        loss = self.quiz_of_adaptation(detach(theta), strategy, self.answered(strategy, task))
        return loss, loss.new_zeros(())


def with_answers(episode: Episode, answers: Sequence[tuple[Output, Output]]) -> Episode:
    """The episode with what each teacher says of its support and its query rows."""
    support, query = zip(*answers, strict=True)
    return episode._replace(
        support=episode.support._replace(teachers=support),
        query=episode.query._replace(teachers=query),
    )
