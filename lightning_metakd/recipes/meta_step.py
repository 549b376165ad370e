"""What one meta-step minimises: the student's loss in theta, and the quiz in the strategy."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lightning_metakd.functional.params import detach
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm_contexts import fused_norms
from lightning_metakd.recipes.compilation import Compilation, CompilationErrors
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.recipes.task_batching import mean_over_tasks
from lightning_metakd.strategy.quiz import quiz_episodes
from lightning_metakd.types import Episode, Output, Params, QuizEpisodes


class MetaStep:
    """The losses of one meta-step, each a scalar whose gradient has been computed.

    Args:
        student: the network.
        objective: of one episode, with modules as they are now.
        theta: what the outer loop trains but the strategy.
        strategy: parameters of coefficients, and of teachers that learn.
        config: how the strategy is learned.
        compilation: how the step is computed, and whether it is compiled.
        device: on which it runs.
        seed: of the labels that the control `shuffled` permutes.

    Attributes:
        gradients: with respect to the student, that its losses took.
    """

    def __init__(
        self,
        student: Model,
        objective: EpisodeObjective,
        theta: Params,
        strategy: Params,
        config: StrategyTraining,
        compilation: Compilation,
        device: torch.device,
        seed: int,
    ) -> None:
        self.student, self.objective = student, objective
        self.theta, self.strategy = theta, strategy
        self.config, self.compilation = config, compilation
        self.execution = compilation.execution
        self.vmap, self.device, self.seed = compilation.possible, device, seed
        self.gradients = 0

    def student_loss(self, episodes: Sequence[Episode], follows_strategy: bool) -> Tensor:
        """What trains the student, averaged over the episodes.

        Args:
            follows_strategy: whether its gradient reaches the strategy too.
        """
        strategy = self.strategy if follows_strategy else detach(self.strategy)
        try:
            loss = self.mean_student_loss(strategy, episodes)
        except CompilationErrors as error:
            self.compilation.give_up(error)
            loss = self.mean_student_loss(strategy, episodes)
        self.gradients += len(episodes) * self.objective.count_gradients(of_strategy=False)
        return loss

    def mean_student_loss(self, strategy: Params, episodes: Sequence[Episode]) -> Tensor:
        """The mean, compiled or not."""
        at_once = self.execution.tasks_per_call(episodes, self.device, self.vmap)
        compiled = self.compilation.is_on
        with (
            self.compilation.observed(len(episodes)),
            self.norms_in_one_kernel(at_once == 1 and not compiled),
        ):
            (loss,) = mean_over_tasks(
                lambda *at: (self.objective.student_loss(*at),),
                self.theta,
                strategy,
                episodes,
                at_once,
                compiled,
            )
        return loss

    def norms_in_one_kernel(self, possible: bool) -> AbstractContextManager[None]:
        """Norms of the student in one kernel, where tasks run one by one and uncompiled."""
        return fused_norms(self.student) if possible else nullcontext()

    def quiz_loss(
        self, train: Sequence[Episode], quiz: Sequence[Episode]
    ) -> tuple[Tensor, Tensor, int]:
        """(the quiz, whose gradient reaches the strategy alone; gain of its pilots; classes of a quiz).

        Args:
            train: the episodes that the student is trained on.
            quiz: those of the strategy, as many.
        """
        seed = self.seed if self.config.control == "shuffled" else None
        learner = self.objective.learner
        tasks = quiz_episodes(train, quiz, learner, self.config.quiz_classes, seed)
        # a cache and views by number do not map
        alone = len(self.objective.teachers) > 0
        at_once = 1 if alone else self.execution.tasks_per_call(tasks, self.device, self.vmap)
        in_reverse_mode = learner.uses_inner_loss  # a pilot is differentiated forward
        with self.norms_in_one_kernel(at_once == 1 and in_reverse_mode):
            loss, gain = mean_over_tasks(
                self.objective.strategy_loss, detach(self.theta), self.strategy, tasks, at_once
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
