"""What one meta-step minimises: the student's loss in theta, and the quiz in the strategy."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lightning_metakd.functional.params import detach
from lightning_metakd.functional.regions import compiled_regions
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm_contexts import fused_norms
from lightning_metakd.recipes.compilation import Compilation, CompilationErrors
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.recipes.task_batching import TaskLoss, mean_over_tasks
from lightning_metakd.strategy.quiz import QuizClasses, quiz_episodes
from lightning_metakd.types import Episode, Output, Params, QuizEpisodes


class MetaStep:
    """The losses of one meta-step, each a scalar whose gradient has been computed.

    Args:
        student: the network.
        objective: of one episode, with modules as they are now.
        theta: what the outer loop trains but the strategy.
        strategy: parameters of coefficients, and of teachers that learn.
        shuffled: whether the labels of the quiz are permuted, as a control.
        quiz_classes: those of the pilot, or others.
        compilation: how the step is computed, and whether it is compiled.
        device: on which it runs.
        seed: of the permutation.

    Attributes:
        gradients: with respect to the student, that its losses took.
    """

    def __init__(
        self,
        student: Model,
        objective: EpisodeObjective,
        theta: Params,
        strategy: Params,
        shuffled: bool,
        quiz_classes: QuizClasses,
        compilation: Compilation,
        device: torch.device,
        seed: int,
    ) -> None:
        self.student, self.objective = student, objective
        self.theta, self.strategy = theta, strategy
        self.shuffled, self.quiz_classes = shuffled, quiz_classes
        self.compilation = compilation
        self.execution = compilation.execution
        self.vmap, self.device, self.seed = compilation.vmap, device, seed
        self.gradients = 0

    @property
    def quiz_reads_teachers(self) -> bool:
        """Whether teachers are asked about the episodes of the strategy."""
        parts = (self.objective.quiz, self.objective.learner)
        return self.quiz_classes == "same" or any(part.needs_teacher for part in parts)

    def student_loss(self, episodes: Sequence[Episode], follows_strategy: bool) -> Tensor:
        """What trains the student, averaged over the episodes.

        Args:
            follows_strategy: whether its gradient reaches the strategy too.
        """
        strategy = self.strategy if follows_strategy else detach(self.strategy)
        at_once = self.execution.tasks_per_call(episodes, self.device, self.vmap)
        with self.compilation.observed(len(episodes)):
            (loss,) = self.mean(
                lambda *at: (self.objective.student_loss(*at),),
                (self.theta, strategy),
                episodes,
                at_once,
            )
        self.gradients += len(episodes) * self.objective.count_gradients(of_strategy=False)
        return loss

    def mean(
        self,
        loss: TaskLoss,
        leaves: tuple[Params, Params],
        tasks: Sequence[Episode | QuizEpisodes],
        at_once: int,
        in_reverse_mode: bool = True,
    ) -> tuple[Tensor, ...]:
        """Means over the tasks, compiled where that is on; else norms run as one kernel where they can.

        Args:
            loss: of one task.
            leaves: theta and strategy.
            at_once: tasks that run together.
            in_reverse_mode: whether nothing in it is differentiated forward, as in a pilot, which is not
                compiled either.
        """
        compiled = self.compilation.is_on and in_reverse_mode
        by_regions = compiled and at_once == 1 and self.objective.learner.descends
        in_one_kernel = at_once == 1 and in_reverse_mode and not compiled
        norms = fused_norms(self.student) if in_one_kernel else nullcontext()
        try:
            with norms, compiled_regions(by_regions):
                return mean_over_tasks(loss, *leaves, tasks, at_once, compiled and not by_regions)
        except CompilationErrors as error:
            self.compilation.give_up(error)
        return self.mean(loss, leaves, tasks, at_once, in_reverse_mode)

    def quiz_loss(
        self, train: Sequence[Episode], quiz: Sequence[Episode]
    ) -> tuple[Tensor, Tensor, int]:
        """(the quiz, whose gradient reaches the strategy alone; gain of its pilots; classes of a quiz).

        Args:
            train: the episodes that the student is trained on.
            quiz: those of the strategy, as many.
        """
        seed = self.seed if self.shuffled else None
        learner = self.objective.learner
        tasks = quiz_episodes(train, quiz, not learner.uses_inner_loss, self.quiz_classes, seed)
        # a cache and views by number do not map
        alone = len(self.objective.teachers) > 0
        at_once = 1 if alone else self.execution.tasks_per_call(tasks, self.device, self.vmap)
        loss, gain = self.mean(
            self.objective.strategy_loss,
            (detach(self.theta), self.strategy),
            tasks,
            at_once,
            in_reverse_mode=learner.uses_inner_loss,
        )
        self.gradients += len(tasks) * self.objective.count_gradients(of_strategy=True)
        first = tasks[0].quiz if isinstance(tasks[0], QuizEpisodes) else tasks[0]
        return loss, gain, len(first.classes)

    def predict(self, episode: Episode, x: Tensor) -> Output:
        """The student's output for `x` after an episode's support set, without a graph."""
        with torch.no_grad():
            strategy, theta = detach(self.strategy), detach(self.theta)
            support_loss = self.objective.teaching_loss(strategy, episode.support, episode)
            return self.objective.adapt(theta, support_loss, episode).predict(x)
