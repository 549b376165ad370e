"""Meta-learning a student, and how it is taught.

`MetaKD` has the teachers predict on a meta-batch, makes one outer update of the `EpisodeObjective`, and
evaluates. Where the data have a strategy split, its episodes are the quiz: of classes that no teacher knows.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.loss import Loss, held_out_accuracy
from lightning_metakd.models.norm import NormForm, is_transductive
from lightning_metakd.models.norm_contexts import update_running_statistics
from lightning_metakd.models.weights import load_alike, load_weights
from lightning_metakd.recipes.compilation import Compilation
from lightning_metakd.recipes.episode_checks import (
    check_adapted,
    check_learner,
    check_no_weights_of_batch,
    check_quiz,
    check_quiz_classes,
    check_support_views,
    check_teachers_can_learn,
    drop_unused_head,
    n_logits,
    warn_if_first_order,
    warn_of_trained_classes,
    warn_of_untrained_statistics,
)
from lightning_metakd.recipes.episode_evaluator import EpisodeEvaluator, EpisodeMetrics, of_domains
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.recipes.execution import Execution, lay_out_weights
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.meta_step import MetaStep
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.outer_update import Moves
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.recipes.task_batching import unstack
from lightning_metakd.strategy.strategy_file import check_no_new_classes
from lightning_metakd.teachers import Teacher, first_that_sees, without_counting
from lightning_metakd.types import Episode, TrainBatch


@final
class MetaKD(Recipe):
    """Learns a student's initialisation and how to teach it.

    Args:
        student: the small network.
        learner: how it adapts to an episode.
        loss: the teaching loss; the parameters of its coefficients are the strategy. CrossEntropy by default.
        teachers: the networks that help it.
        optimisation: how the outer loop descends.
        strategy_training: how the strategy is learned.
        initialisation: what is begun from.
        norm: whose statistics normalise in an episode: `support`, `running`, `tracked` (learners without an
            inner loop) or `batch` (transductive).
        teacher_at_test: whether the teachers help the student adapt in evaluation too.
        execution: how a meta-step is computed.
    """

    classes_set_by = "data.n_way"

    def __init__(
        self,
        student: nn.Module,
        learner: Learner,
        loss: Loss | None = None,
        teachers: list[Teacher] | None = None,
        *,
        optimisation: Optimisation = Optimisation(),
        strategy_training: StrategyTraining = StrategyTraining(),
        initialisation: Initialisation = Initialisation(),
        norm: NormForm = "support",
        teacher_at_test: bool = False,
        execution: Execution = Execution(),
    ) -> None:
        super().__init__(
            *(student, loss, teachers, optimisation, strategy_training),
            *(initialisation, norm, teacher_at_test),
        )
        self.learner = learner = deepcopy(learner)
        drop_unused_head(learner, self.students())
        lay_out_weights(self.students(), learner)
        learner.init_student_state(self.student)
        check_learner(learner, self.student, self.loss, norm, teacher_at_test, bool(self.teachers))
        check_teachers_can_learn(strategy_training.teacher_lr, learner)
        check_no_weights_of_batch(self.loss, learner)
        execution.check_learner(learner, norm)
        self.execution = execution
        self.compilation = Compilation(execution, learner, norm, self.student, self.record)
        self.quiz = strategy_training.quiz_for(learner)
        alike = strategy_training.quiz_is_query_loss(learner)
        self.quiz_is_query_loss = alike and self.rates.teachers == 0
        self.evaluator = EpisodeEvaluator(learner, self.teaching, teacher_at_test, optimisation.lr)
        self.metrics = EpisodeMetrics(first_that_sees(self.teachers))

    @property
    def episodes(self) -> EpisodicData:
        """The data module of this run."""
        return cast(EpisodicData, self.data)

    def check_procedure(self, data: SourceData, stage: str) -> None:
        if not isinstance(data, EpisodicData):
            raise ValueError(
                f"data={type(data).__name__} holds plain batches, and model=MetaKD learns from episodes; "
                "take data=EpisodicData, or model=SingleTask."
            )
        check_support_views(data, self.learner)
        if stage == "fit" and self.rates.learn:
            check_quiz(data, self.learner, self.strategy_training)

    def n_logits(self) -> int | None:
        return n_logits(self.learner, self.episodes)

    def on_head_resized(self) -> None:
        self.learner.init_student_state(self.student)

    def load_student(
        self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], who: str, stage: str
    ) -> None:
        load_weights(self.student, weights, who)
        load_alike(self.learner, subtree(state, "learner"))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.record.begins:
            self.initialisation.load_support_weight(self.learner)

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Episodes have other classes than the training in any case."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        learner = dict(self.learner.named_parameters(prefix="learner"))
        return self.teaching.trainable_parameters(self.student, "student.") | learner

    def adaptation(self) -> Callable[[], object] | None:
        if (episode := self.evaluator.last_episode) is None:
            return None
        return lambda: self.evaluator.adapt_and_predict(self.eval_student, episode)

    # --- training ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse a strategy that could not be learned, or only where a teacher answers too well."""
        data, strategy = self.episodes, self.strategy_training
        trained = data.train_classes()
        evaluated = [data.classes(s) for s in ("val", "test") if s in data.source.splits]
        class_names = data.source.all_rows().class_names
        check_no_new_classes(self.loss, trained, torch.cat([trained[:0], *evaluated]), class_names)
        self.compilation.warn_of_obstacle()
        if self.rates.learn:
            warn_if_first_order(self.learner)
        if self.rates.learn and strategy.quiz_classes == "other":
            names = {*data.train_class_names(), *self.record.initial_classes}
            warn_of_trained_classes(data, names)
        warn_of_untrained_statistics(self.student)
        self.prepare_teachers()
        if self.rates.learn and not strategy.allow_seen_classes:
            quiz_classes = data.names(data.classes(data.strategy_split or data.train_split))
            check_quiz_classes(self.teachers, quiz_classes)

    def meta_step(self) -> MetaStep:
        """The losses of a meta-step, bound to the modules as they are now."""
        config = self.strategy_training
        objective = EpisodeObjective(
            self.learner,
            self.teaching.bind_student(self.student),
            bind_loss(self.loss),
            self.quiz,
            config.method,
            config.pilot_lr,
            config.steps,
            self.adapters,
            self.teaching.teachers_that_learn(),
        )
        return MetaStep(
            self.student,
            objective,
            self.evaluator.theta(self.student),
            dict(self.teaching.strategy_parameters()),
            config.control == "shuffled",
            config.classes_of_quiz(self.learner, self.episodes),
            self.compilation,
            self.device,
            self.data.seed,
        )

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:
        """One outer update on a meta-batch."""
        self.learner.on_outer_step(self.progress())
        step, updates = self.meta_step(), self.updates_strategy()
        train = unstack(cast(Episode, batch.train))
        quiz = None if batch.quiz is None else unstack(cast(Episode, batch.quiz))
        if updates and self.rates.teachers > 0:  # MetaDistil: teachers learn first, then they teach
            self.outer_update(self.quiz_loss(step, train, quiz or train), ("strategy",))
            updates = False
        train = [self.evaluator.with_teacher_outputs(episode) for episode in train]
        shares_graph = updates and quiz is None and self.quiz_is_query_loss
        quiz_loss = torch.zeros((), device=self.device)
        if updates and not shares_graph:
            if quiz is not None and step.quiz_reads_teachers:
                quiz = [self.evaluator.with_teacher_outputs(episode) for episode in quiz]
            quiz_loss = self.quiz_loss(step, train, train if quiz is None else quiz)
        with update_running_statistics(self.student, self.trainer.strategy.reduce):
            student_loss = step.student_loss(train, follows_strategy=shares_graph)
        self.record.gradient_evaluations += step.gradients
        try:
            moves: Moves = ("student", "strategy") if updates else ("student",)
            self.outer_update(student_loss + quiz_loss, moves)
        except FloatingPointError:  # the adaptation may say more
            for episode in train:
                output = step.predict(episode, episode.query.x)
                check_adapted(output, self.student, episode, self.learner, self.trainer)
            raise
        self.compilation.decide(self.trainer)
        self.evaluator.last_episode = train[0]
        self.log_coefficients(step, train[0])
        self.log("train/outer_loss", student_loss.detach(), batch_size=len(train))

    def quiz_loss(self, step: MetaStep, train: list[Episode], quiz: list[Episode]) -> Tensor:
        """The quiz of a step, logged."""
        loss, gain, n_classes = step.quiz_loss(train, quiz)
        self.coefficient_log.warn_of_flat_quiz(self.quiz, loss, n_classes)
        log = {"train/quiz_loss": loss.detach(), "strategy/pilot_gain": gain}
        self.log_dict(log, batch_size=len(train))
        return loss

    def log_coefficients(self, step: MetaStep, episode: Episode) -> None:
        """Now and then, look at the coefficients for the rows on which they act."""
        if not self.coefficient_log.is_due():
            return
        batch = episode.support if self.learner.uses_inner_loss else episode.query
        accuracy = held_out_accuracy(episode.support)
        output = step.predict(episode, batch.x)
        self.coefficient_log.update(self.loss, output, batch, episode.classes, accuracy)

    # --- evaluation ----------------------------------------------------------------------------

    def evaluation_step(self, episode: Episode, batch_idx: int) -> dict[str, Any]:
        """Adapt to an episode and judge; torch.func differentiates under inference_mode too."""
        with without_counting(self.teachers):
            self.evaluator.last_episode = episode = self.evaluator.with_teacher_outputs(episode)
        output = self.evaluator.predict(self.eval_student, episode, self.trainer)
        self.metrics.update(episode, output)
        return self.evaluator.answers(episode, output)

    def evaluation_end(self) -> None:
        """Reduce, log, and write down what the result row says."""
        stage = "test" if self.trainer.testing else "val"
        self.record.episode_rows, metrics = self.metrics.compute()
        self.record.domains = of_domains(self.episodes, stage, self.record.episode_rows)
        self.record.result.update(
            metrics,
            stage=stage,
            episodes=len(self.record.episode_rows["id"]),
            recipe=type(self).__name__,
            learner=type(self.learner).__name__,
            loss=type(self.loss).__name__,
            transductive=is_transductive(self.student),
            teacher_at_test=self.teacher_at_test or self.learner.needs_teacher,
            **self.data_fields(),
        )
        log = self.metrics.logged(stage, metrics)
        self.log_dict(log, prog_bar=True, rank_zero_only=False, sync_dist=False)

    validation_step = test_step = evaluation_step
    on_validation_epoch_end = on_test_epoch_end = evaluation_end

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Any]:
        """What is answered for an episode."""
        episode = self.evaluator.with_teacher_outputs(episode)
        output = self.evaluator.predict(self.eval_student, episode, self.trainer)
        return self.evaluator.answers(episode, output)

    def prepare_teachers(self) -> None:
        """Fill the teachers' caches, and set the scale of their logits."""
        self.evaluator.prepare_teachers(self.episodes, self.trainer, self.device)

    on_validation_start = on_predict_start = prepare_teachers

    def on_test_start(self) -> None:
        """Store the embeddings of the test where they serve all episodes."""
        self.prepare_teachers()
        self.eval_student.reading = self.student.reading  # an average does not have it
        self.evaluator.cache_embeddings(self.eval_student, self.episodes)

    def on_test_end(self) -> None:
        """Training may go on, and stored embeddings are then out of date."""
        self.evaluator.cached_forward = None
