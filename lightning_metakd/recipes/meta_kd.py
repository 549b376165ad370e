"""Meta-learning a student, and how it is taught.

`MetaKD` fetches a meta-batch, asks the teachers, makes one outer update of the `Objective` and evaluates.
Where the data have a strategy split, the quiz is made of its episodes: classes that no teacher has seen.
"""

import logging
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.data.datamodules import SupervisedData
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.functional.params import detach
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy, Loss
from lightning_metakd.models.model import listed
from lightning_metakd.models.norm import NormForm, untrained_statistics, update_running_statistics
from lightning_metakd.recipes.episode_objective import Objective
from lightning_metakd.recipes.episodic import Episodic
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.task_batching import mean_over_tasks
from lightning_metakd.strategy.controls import Control
from lightning_metakd.strategy.hypergradient import HYPERGRADIENTS, HypergradientMethod, check_pilot
from lightning_metakd.strategy.quiz import (
    QuizClasses,
    check_quiz,
    quiz_episodes,
    warn_if_first_order,
    warn_of_trained_classes,
)
from lightning_metakd.strategy.strategy_file import check_no_new_classes
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from lightning_metakd.types import BatchLoss, Episode, Output, Params, QuizEpisodes

log = logging.getLogger(__name__)


class MetaKD(Episodic):
    """Learns a student's initialisation and how to teach it.

    Args:
        student: the small network.
        learner: how it adapts to an episode.
        loss: what it is taught; the parameters of its coefficients are the strategy. CrossEntropy by default.
        teachers: the networks that help it.
        optimisation: how the outer loop descends.
        init: checkpoint that is started from: the student's weights, where a head of another width is
            dropped, and what a learner of the same kind learned.
        strategy: file of a learned strategy to start from.
        strategy_lr: learning rate of the strategy; 0 keeps it as it is.
        strategy_every: outer steps from one update of the strategy to the next.
        strategy_warmup: part of the training, in [0, 1), before the first one.
        teacher_lr: learning rate by which the teachers learn to teach (MetaDistil), before each step of the
            student; 0 freezes them.
        control: what is taken away from learning the strategy, to be compared with: `frozen`, `shuffled`,
            `step_size`, `final_constant` (with the strategy of the other run) or `uniform`.
        share: which modules start from, keep or hold in common the weights of a teacher.
        norm: whose statistics normalise in an episode: `support`, `running`, `tracked` (learners without an
            inner loop) or `batch` (transductive).
        quiz: what judges the strategy on held-out rows; by default cross-entropy where the lesson acts
            inside the adaptation, and otherwise cross-entropy at the best scale of the logits.
        quiz_classes: of what a learner that does not adapt by a loss is asked after a pilot step: `same`, the
            classes that were taught in it, half of an episode's query rows each; `other`, an episode of
            `data.strategy_split` after one of the training was taught, on classes that teachers may know:
            only what is asked has to be new to them. What labels say of a class helps at once with that
            class; what helps with others is how a student generalises.
        hypergradient: `tangent`, `unrolled` or `neumann` (near a minimum of the lesson), for learners which
            do not adapt by a loss.
        pilot_lr: step of the pilot by which those learners judge a strategy; one so long that it makes the
            quiz worse (see strategy/pilot_gain) speaks for whoever shortens it, a wrong teacher for instance.
        pilot_steps: how many of these steps; more than one not by `tangent`.
        teacher_at_test: whether the teachers help the student adapt in evaluation too.
        strategy_on_seen_classes: allow a strategy to be learned on classes that a teacher was trained on.
        tasks_at_once: episodes of a meta-batch that run together, by vmap; null is 1 on a CPU, where more
            gain nothing, and all of them elsewhere, if the learner can; those in which teachers learn run
            one by one.
        compile_step: compile what the student minimises in a task, or, where steps are computed again,
            the inner step: needs a C++ compiler and a minute or two, then takes about two thirds of the time.
    """

    def __init__(
        self,
        student: nn.Module,
        learner: Learner,
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
        norm: NormForm = "support",
        quiz: Loss | None = None,
        quiz_classes: QuizClasses = "same",
        hypergradient: HypergradientMethod = "tangent",
        pilot_lr: float = 0.001,
        pilot_steps: int = 1,
        teacher_at_test: bool = False,
        strategy_on_seen_classes: bool = False,
        tasks_at_once: int | None = None,
        compile_step: bool = False,
    ) -> None:
        super().__init__(
            student,
            learner,
            loss,
            teachers,
            optimisation,
            init,
            strategy,
            norm,
            teacher_at_test,
            strategy_lr=strategy_lr,
            strategy_every=strategy_every,
            strategy_warmup=strategy_warmup,
            teacher_lr=teacher_lr,
            control=control,
            share=share,
        )
        check_pilot(hypergradient, pilot_lr, pilot_steps)
        hint = "or left out for what suits the device"
        check_integer("tasks_at_once", tasks_at_once, 1, hint=hint, optional=True)
        self.supports_vmap = learner.vmap_compatible and norm != "tracked"
        if tasks_at_once is not None and tasks_at_once > 1 and not self.supports_vmap:
            raise ValueError(
                f"tasks_at_once={tasks_at_once} runs tasks together, and {type(learner).__name__} with "
                f"norm={norm} cannot: a solver, recomputed steps and norm=tracked take them one by one; "
                "leave tasks_at_once out."
            )
        if compile_step and not (self.supports_vmap or self.learner.compile_steps()):
            raise ValueError(
                f"compile_step=true wants a task of fixed operations, and {type(learner).__name__} with "
                f"norm={norm} is none: a solver takes as many steps as it needs, and norm=tracked looks at "
                "each pass; leave compile_step out."
            )
        self.tasks_at_once = tasks_at_once
        self.compile_step, self.compile_task = compile_step, compile_step and self.supports_vmap
        if teacher_lr > 0 and not learner.vmap_compatible:
            raise ValueError(
                f"teacher_lr={teacher_lr} cannot be differentiated through {type(learner).__name__} with a "
                "solver or recomputed steps; take another learner, or leave recompute out."
            )
        self.strategy_on_seen_classes = strategy_on_seen_classes
        # one pass serves student and strategy where both are judged by the query rows in the same way
        self.quiz_is_query_loss = (
            learner.uses_inner_loss
            and learner.outer_loss_is_query_loss
            and quiz is None
            and control != "shuffled"
            and teacher_lr == 0
        )
        default = CrossEntropy() if learner.uses_inner_loss else CalibratedCrossEntropy()
        self.quiz, self.hypergradient = deepcopy(quiz or default), hypergradient
        self.pilot_lr, self.pilot_steps, self.quiz_classes = pilot_lr, pilot_steps, quiz_classes
        self.save_hyperparameters(
            ignore=["student", "learner", "loss", "teachers", "quiz", "optimisation", "share"]
        )

    def check_data(self, data: Any, stage: str) -> None:
        super().check_data(data, stage)
        if isinstance(data, SupervisedData):
            raise ValueError(
                "data=SupervisedData holds plain batches, and model=MetaKD learns from episodes; take "
                "data=EpisodicData, or model=SingleTask."
            )
        if stage == "fit" and self.strategy_lr + self.teacher_lr > 0:
            check_quiz(data, self.learner, self.quiz_classes)

    def on_fit_start(self) -> None:
        """Refuse a strategy that could not be learned, or only where a teacher answers too well."""
        data = self.data
        trained = data.classes(data.train_split)
        evaluated = [data.classes(s) for s in ("val", "test") if s in data.source.splits]
        class_names = data.source.all_rows().class_names
        check_no_new_classes(self.loss, trained, torch.cat([trained[:0], *evaluated]), class_names)
        self.check_taps()
        learns = self.strategy_lr + self.teacher_lr > 0
        if learns:
            warn_if_first_order(self.learner)
        if learns and self.quiz_classes == "other":
            warn_of_trained_classes(data, {*self.trained_classes(), *self.began_with})
        if untrained := untrained_statistics(self.student):
            log.warning(
                f"norm=running normalises by mean 0 and variance 1 in {listed(untrained, 3)}, whose "
                "statistics no training has set; name a trained start in model.init, or take norm=support."
            )
        super().prepare_teachers()
        if learns:
            quiz_classes = data.names(data.classes(data.strategy_split or data.train_split))
            self.check_classes(quiz_classes)

    def check_taps(self) -> None:
        """A compiled step cannot listen to modules."""
        modules = sorted(set(self.student.taps) - set(self.student.maps))
        if self.compile_step and modules:
            raise ValueError(
                f"compile_step=true cannot trace modules that are listened to, and the loss reads "
                f"{', '.join(modules)} of the student; read embedding or what the network itself names "
                f"({', '.join(self.student.maps) or 'nothing here'}), or leave compile_step out."
            )

    def classes(self) -> Tensor:
        return self.data.classes(self.data.train_split)

    def check_classes(self, quiz_classes: Sequence[str]) -> None:
        """No class on which the strategy is judged was seen by a teacher in training."""
        for i, teacher in enumerate(self.teachers):
            if self.strategy_on_seen_classes:
                return
            if not teacher.trained_on:
                log.warning(
                    f"teachers[{i}] has no record of the classes it was trained on, and cannot be kept from "
                    "answering for classes it has seen where the strategy is judged; name them in its "
                    "classes."
                )
            if overlap := [name for name in quiz_classes if name in teacher.trained_on]:
                raise ValueError(
                    f"teachers[{i}] was trained on {len(overlap)} of the {len(quiz_classes)} classes on "
                    f"which the strategy would be judged ({listed(overlap, 5)}), and a gate learned there "
                    "trusts it too much; set data.strategy_split to classes it has not seen, or "
                    "model.strategy_on_seen_classes to true."
                )

    def tasks_per_call(self, tasks: Sequence[Episode | QuizEpisodes]) -> int:
        """How many of the tasks run together."""
        if self.tasks_at_once is not None:
            return self.tasks_at_once
        alone = self.device.type == "cpu" or not self.supports_vmap
        return 1 if alone else len(tasks)

    def objective(self) -> Objective:
        """The pure part, bound to the modules as they are now."""
        return Objective(
            self.learner,
            self.bind_student(self.student),
            bind_loss(self.loss),
            self.quiz,
            HYPERGRADIENTS[self.hypergradient],
            self.pilot_lr,
            self.adapters,
            self.pilot_steps,
            self.teachers_that_learn(),
        )

    def training_step(self, batch: Episode | tuple[Episode, Episode], batch_idx: int) -> None:
        """One outer update on a meta-batch."""
        episodes, quiz = (batch, None) if isinstance(batch, Episode) else batch
        self.learner.on_outer_step(self.progress())
        objective, theta = self.objective(), self.meta()
        strategy: Params = dict(self.strategy_parameters())
        learns = self.learns_strategy_now()
        if learns and self.teacher_lr > 0:  # MetaDistil: the student is taught by what was learned
            train = unstack(episodes)
            quiz_tasks = self.quiz_tasks(train, train if quiz is None else unstack(quiz))
            self.outer_update(
                self.strategy_loss(objective, theta, strategy, quiz_tasks), ("strategy",)
            )
            learns = False
        tasks = [self.with_teacher_outputs(episode) for episode in unstack(episodes)]
        shares_graph = learns and quiz is None and self.quiz_is_query_loss
        quiz_loss = torch.zeros((), device=self.device)
        if learns and not shares_graph:
            quiz_with_outputs = (
                tasks if quiz is None else self.quiz_with_teacher_outputs(unstack(quiz))
            )
            quiz_tasks = self.quiz_tasks(tasks, quiz_with_outputs)
            quiz_loss = self.strategy_loss(objective, theta, strategy, quiz_tasks)
        strategy_params = strategy if shares_graph else detach(strategy)
        with update_running_statistics(self.student, self.trainer.strategy.reduce):
            (student_loss,) = mean_over_tasks(
                lambda *at: (objective.student_loss(*at),),
                theta,
                strategy_params,
                tasks,
                self.tasks_per_call(tasks),
                self.compile_task,
            )
        self.gradient_evaluations += len(tasks) * objective.count_gradients(of_strategy=False)
        try:
            self.outer_update(
                student_loss + quiz_loss, ("student", "strategy") if learns else ("student",)
            )
        except FloatingPointError:  # the adaptation may say more
            for episode in tasks:
                of_support = objective.teaching_loss(detach(strategy), episode.support, episode)
                answer = self.predict(objective, theta, of_support, episode, episode.query.x)
                self.check_adapted(self.student, answer, episode)
            raise
        self.last_episode = tasks[0]
        self.log_coefficients_of(objective, theta, strategy, tasks[0])
        self.log("train/outer_loss", student_loss.detach(), batch_size=len(tasks))

    def quiz_with_teacher_outputs(self, quiz: list[Episode]) -> list[Episode]:
        """The strategy's episodes with what teachers say, where they teach in them or the quiz wants it."""
        teach = self.quiz_classes == "same" or self.quiz.needs_teacher
        return [self.with_teacher_outputs(episode) for episode in quiz] if teach else quiz

    def quiz_tasks(
        self, train: list[Episode], quiz: list[Episode]
    ) -> Sequence[Episode] | Sequence[QuizEpisodes]:
        """The tasks that judge the strategy; labels of their quiz are permuted by a control."""
        seed = self.data.seed if self.control == "shuffled" else None
        return quiz_episodes(train, quiz, self.learner, self.quiz_classes, seed)

    def strategy_loss(
        self,
        objective: Objective,
        theta: Params,
        strategy: Params,
        tasks: Sequence[Episode] | Sequence[QuizEpisodes],
    ) -> Tensor:
        """The quiz, whose gradient reaches the strategy alone."""
        # a cache and views by number do not map
        tasks_per_call = 1 if self.teacher_lr > 0 else self.tasks_per_call(tasks)
        loss, gain = mean_over_tasks(
            objective.strategy_loss, detach(theta), strategy, tasks, tasks_per_call
        )
        self.gradient_evaluations += len(tasks) * objective.count_gradients(of_strategy=True)
        first = tasks[0].quiz if isinstance(tasks[0], QuizEpisodes) else tasks[0]
        self.warn_of_flat_quiz(self.quiz, loss, len(first.classes))
        log = {"train/quiz_loss": loss.detach(), "strategy/pilot_gain": gain}
        self.log_dict(log, batch_size=len(tasks))
        return loss

    def predict(
        self,
        objective: Objective,
        theta: Params,
        support_loss: BatchLoss,
        episode: Episode,
        x: Tensor,
    ) -> Output:
        """What the student answers after an episode's support set, without a graph."""
        with torch.no_grad():
            return objective.adapt(detach(theta), support_loss, episode).predict(x)

    def log_coefficients_of(
        self, objective: Objective, theta: Params, strategy: Params, episode: Episode
    ) -> None:
        """What the coefficients say of the rows on which they act."""
        if not self.should_log_coefficients():
            return
        support_loss = objective.teaching_loss(detach(strategy), episode.support, episode)
        batch = episode.support if self.learner.uses_inner_loss else episode.query
        answer = self.predict(objective, theta, support_loss, episode, batch.x)
        self.log_coefficients(answer, batch, episode.classes, support_loss.teacher_support_accuracy)


def unstack(episodes: Episode) -> list[Episode]:
    """The episodes of a meta-batch, one by one."""
    return [tree_map(lambda leaf, k=k: leaf[k], episodes) for k in range(len(episodes.id))]
