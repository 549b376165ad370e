"""How the strategy is learned, and what judges it.

Quiz and pilot are words of MetaDistil (Zhou, Xu, McAuley 2022, arXiv:2106.04570): the quiz is a set of rows
on which the student never trains, and the pilot a virtual step of the student after which it takes the quiz.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

from torch import nn

from lightning_metakd.arguments.ranges import (
    MOST_STEPS,
    check_choice,
    check_integer,
    check_number,
    check_positive,
    check_share,
)
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.coefficient import Coefficient, Learned
from lightning_metakd.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy, Loss
from lightning_metakd.strategy.controls import Control, check_control, learns, teachers_learn
from lightning_metakd.strategy.hypergradient import (
    HYPERGRADIENTS,
    Hypergradient,
    HypergradientMethod,
)
from lightning_metakd.strategy.quiz import QuizClasses
from lightning_metakd.teachers.teacher import Teacher

LR, LR_OF_BATCH = 0.005, 1.0
"""Usual learning rates of coefficients: of lasting ones, and of those learned anew for each batch."""
EVERY = 4
"""Steps of SingleTask from one update to the next; all add at most 0.3 points (docs/where-it-pays.md)."""
REACH = 7.5
"""How far a number may move in a short training, as at LR in 1,500 steps: the regimes of the same page."""


class Rates(NamedTuple):
    """Learning rates of a strategy's two parts; 0 freezes one."""

    coefficients: float
    teachers: float

    @property
    def learn(self) -> bool:
        """Whether either part learns."""
        return self.coefficients + self.teachers > 0


@dataclass(frozen=True)
class StrategyTraining:
    """How the strategy is learned.

    Args:
        lr: learning rate of the coefficients, for each outer step; 0 keeps them as they are. By default what
            a loss calls learned is learned, at 0.005 (at 1 where it is learned anew for each batch), but for
            a strategy that comes from a file, which stays as it is. Above 0, SingleTask needs a
            data.quiz_fraction.
        every: outer steps from one update of the strategy to the next, which then moves as far as in so many:
            what is learned is much the same, for less. By default 4 in SingleTask, but for what is learned
            anew for each step, and 1 in MetaKD.
        reach: how far coefficients that are numbers, not networks, may move in a training by adam, in units
            of their log or logit: where lr is lower than reach / steps, their rate is that. A schedule
            shortens it, and so does a training of fewer than 300 steps; one that time alone ends has no
            reach. By default 7.5 in SingleTask where lr is not given, so that a short training learns
            weights of many losses too; otherwise 0.
        warmup: part of the training, in [0, 1), before the first one.
        teacher_lr: learning rate, for each outer step, by which the teachers learn to teach (MetaDistil),
            before the student does; 0 freezes them.
        control: what is taken away from learning the strategy, to be compared with: `frozen`, `shuffled`,
            `step_size`, `final_constant` (with the strategy_file of the other run) or `uniform`.
        quiz: loss of the held-out rows that judges the strategy; by default cross-entropy, at the best scale
            of the logits for learners of MetaKD that do not adapt by a loss, and in SingleTask generalised
            cross-entropy, which is bounded: cross-entropy pays for less confidence, too, and beside a teacher
            that resists wrong labels it had gates trust them (docs/where-it-pays.md). Papers judge by
            CrossEntropy.
        quiz_classes: which classes MetaKD's quiz has after a pilot: `same`, those of the pilot, half of an
            episode's query rows each; `other`, an episode of data.strategy_split after a pilot on one of the
            training, whose classes teachers may know. What labels say of a class helps at once with that
            class; what helps with others is how a student generalises (docs/results/held-out.md). By default
            `other` where the data have such a split and the learner makes pilots, and otherwise `same`.
        hypergradient: `tangent`, `unrolled` or `neumann` (near a minimum of the teaching loss), for learners
            that do not adapt by a loss, and for SingleTask.
        pilot_lr: step size of the pilot; one so long that it makes the quiz worse (see strategy/pilot_gain)
            speaks for whoever shortens it, a wrong teacher for instance.
        pilot_steps: steps of the pilot; more than one by `unrolled` alone.
        neumann_terms: terms of the series of `neumann`.
        allow_seen_classes: allow MetaKD's quiz to have classes that a teacher was trained on.
    """

    lr: float | None = None
    every: int | None = None
    reach: float | None = None
    warmup: float = 0.0
    teacher_lr: float = 0.0
    control: Control = "none"
    quiz: Loss | None = None
    quiz_classes: QuizClasses | None = None
    hypergradient: HypergradientMethod = "tangent"
    pilot_lr: float = 0.001
    pilot_steps: int = 1
    neumann_terms: int = 1
    allow_seen_classes: bool = False

    def __post_init__(self) -> None:
        group = "strategy_training"
        check_number(
            f"{group}.lr",
            self.lr,
            0.0,
            ends="[)",
            hint="where 0 freezes the strategy",
            optional=True,
        )
        check_integer(f"{group}.every", self.every, 1, hint="or null", optional=True)
        check_number(f"{group}.reach", self.reach, 0.0, ends="[)", hint="or null", optional=True)
        check_share(f"{group}.warmup", self.warmup)
        check_number(
            f"{group}.teacher_lr",
            self.teacher_lr,
            0.0,
            ends="[)",
            hint="where 0 freezes the teachers",
        )
        if self.lr is not None:
            check_control(self.control, self.lr, self.teacher_lr)
        if self.quiz_classes is not None:
            check_choice(f"{group}.quiz_classes", self.quiz_classes, get_args(QuizClasses))
        check_choice(f"{group}.hypergradient", self.hypergradient, HYPERGRADIENTS)
        check_positive(
            f"{group}.pilot_lr", self.pilot_lr, "and so small that a step lowers the quiz"
        )
        check_integer(f"{group}.pilot_steps", self.pilot_steps, 1, MOST_STEPS)
        check_integer(f"{group}.neumann_terms", self.neumann_terms, 1, MOST_STEPS)
        if self.pilot_steps > 1 and self.hypergradient != "unrolled":
            raise ValueError(
                f"strategy_training.pilot_steps={self.pilot_steps} with hypergradient="
                f"{self.hypergradient!r}, which looks one step ahead; take unrolled, or neumann with "
                "neumann_terms."
            )
        if self.neumann_terms > 1 and self.hypergradient != "neumann":
            raise ValueError(
                f"strategy_training.neumann_terms={self.neumann_terms} with hypergradient="
                f"{self.hypergradient!r}, which has no such series; take neumann, or leave it out."
            )

    def for_loss(self, loss: Loss, strategy_file: str | None) -> "StrategyTraining":
        """With a learning rate, where none is given.

        Args:
            strategy_file: from which the strategy starts, if there is one.
        """
        if self.lr is not None:
            return self
        as_it_is = strategy_file is not None and self.control != "final_constant"
        if as_it_is or not any(True for _ in loss.parameters()):
            return replace(self, lr=0.0)
        return replace(self, lr=LR_OF_BATCH if of_batch(loss) else LR)

    def for_rows(self, loss: Loss | None) -> "StrategyTraining":
        """With what is usual on plain batches where it is not given: the distance of updates, and the reach.

        Args:
            loss: the teaching loss, if there is one.
        """
        of_step = self.teacher_lr > 0 or (loss is not None and bool(of_batch(loss)))
        every = EVERY if self.every is None and not of_step else self.every
        reach = REACH if self.reach is None and self.lr is None else self.reach
        return replace(self, every=every, reach=reach)

    def classes_of_quiz(self, learner: Learner, data: EpisodicData) -> QuizClasses:
        """Which classes the quiz has, as given, or else others wherever that can be."""
        if self.quiz_classes is not None:
            return self.quiz_classes
        has_others = data.strategy_split not in (None, data.train_split)
        return "other" if has_others and not learner.uses_inner_loss else "same"

    def check_loss(self, loss: Loss, strategy_file: str | None) -> None:
        """Raise where a loss has nothing to learn, or a control has no strategy to hold constant.

        Args:
            strategy_file: from which the strategy starts, if there is one.
        """
        if self.lr and not any(True for _ in loss.parameters()):
            raise ValueError(
                f"strategy_training.lr={self.lr} trains a strategy, but no coefficient of the loss is "
                "learned; name a Learned class in model.loss, or set strategy_training.lr to 0."
            )
        check_control(self.control, self.lr or 0.0, self.teacher_lr)
        if self.control == "final_constant" and strategy_file is None:
            raise ValueError(
                "control=final_constant says from the start what another run said at its end; name its "
                "strategy.safetensors in model.initialisation.strategy_file."
            )

    def check_single_task(self) -> None:
        """Raise where a setting is of episodes, and there are none.

        Raises:
            ValueError: names it.
        """
        for name, usual in {"quiz_classes": None, "allow_seen_classes": False}.items():
            if (value := getattr(self, name)) != usual:
                raise ValueError(
                    f"strategy_training.{name}={str(value).lower()} is for episodes, and SingleTask has "
                    "none; leave it out, or take model=MetaKD."
                )

    @property
    def steps_apart(self) -> int:
        """Outer steps from one update to the next."""
        return self.every or 1

    @property
    def method(self) -> Hypergradient:
        """How a pilot is differentiated."""
        return HYPERGRADIENTS[self.hypergradient]

    @property
    def steps(self) -> int:
        """Steps of the pilot, or terms of its series."""
        return self.neumann_terms if self.hypergradient == "neumann" else self.pilot_steps

    def quiz_for(self, learner: Learner | None) -> Loss:
        """A copy of the quiz.

        Args:
            learner: whose students take it; None where they learn a single task.
        """
        if self.quiz is not None:
            return deepcopy(self.quiz)
        if learner is None:
            return GeneralisedCrossEntropy()
        return CrossEntropy() if learner.uses_inner_loss else CalibratedCrossEntropy()

    def quiz_is_query_loss(self, learner: Learner) -> bool:
        """Whether the query rows judge student and strategy alike, so that one graph serves both."""
        plain = self.quiz is None and self.control != "shuffled"
        return plain and learner.uses_inner_loss and learner.outer_loss_is_query_loss

    def is_due(self, step: int, progress: float) -> bool:
        """Whether the outer step after `step` others, at `progress` in [0, 1], is one that updates."""
        return step % self.steps_apart == 0 and progress >= self.warmup

    def rates(self, loss: Loss) -> Rates:
        """The learning rates that the control and the loss leave, for each outer step.

        Args:
            loss: as the control has it.
        """
        learnable = any(p.requires_grad for p in loss.parameters())
        return Rates(
            self.lr if self.lr and learnable and learns(self.control) else 0.0,
            self.teacher_lr if teachers_learn(self.control) else 0.0,
        )

    def groups(self, loss: Loss, teachers: Iterable[Teacher], rates: Rates) -> list[dict[str, Any]]:
        """What learns, as groups of an optimiser: numbers (of each class too), networks, and teachers.

        Args:
            loss: as the control has it.
            rates: for each outer step; an update moves as far as the steps it stands for.
        """
        steps, lr = self.steps_apart, self.steps_apart * rates.coefficients
        numbers = [m.raw for m in loss.modules() if isinstance(m, Learned)]
        networks = [p for p in loss.parameters() if all(p is not number for number in numbers)]
        of_teachers = [p for t in teachers for p in t.trained_parameters().values()]
        groups: list[dict[str, Any]] = [
            {"params": numbers, "lr": lr, "reach": steps * (self.reach or 0.0)},
            {"params": networks, "lr": lr},
            {"params": of_teachers, "lr": steps * rates.teachers},
        ]
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return [group for group in groups if group["params"]]


def of_batch(loss: nn.Module) -> list[Coefficient]:
    """The coefficients that are learned anew for each batch."""
    return [m for m in loss.modules() if isinstance(m, Coefficient) and m.of_batch]
