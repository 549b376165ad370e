"""Tiny training runs for the tests of recipes."""

import torch

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.learners.maml import MAML
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.execution import Execution
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.teachers.heads import PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from tests.tiny import N_WAY, Blobs, SmoothConv4


def episodes(**settings) -> EpisodicData:
    tiny = {"n_way": N_WAY, "k_shot": 2, "n_query": 4, "meta_batch_size": 2, "n_episodes": 3}
    return EpisodicData(Blobs(), **{**tiny, "steps_per_epoch": 2, **settings})


def batches(**settings) -> SupervisedData:
    return SupervisedData(Blobs(), **{"batch_size": 24, "quiz_fraction": 0.25, **settings})


def gate() -> MatchGate:
    return MatchGate(Learned(), Hinton(Learned(2.0)))


def helper(n_classes: int = 0, width: int = 4, **settings) -> Teacher:
    sliced = n_classes > 0
    made = Teacher(
        SmoothConv4(n_classes, width=width),
        **{
            "head": SlicedHead() if sliced else PrototypeHead(scale=5.0),
            "classes": [f"blob {c}" for c in range(n_classes)],
            **settings,
        },
    )
    made.head.set_classes(made.trained_on, Blobs().all_rows().class_names)
    return made


GROUPS = {
    "strategy_training": (
        StrategyTraining,
        {
            **{f"strategy_{name}": name for name in ("lr", "every", "reach", "warmup")},
            **{n: n for n in ("teacher_lr", "control", "quiz", "quiz_classes", "hypergradient")},
            **{n: n for n in ("pilot_lr", "pilot_steps", "neumann_terms", "allow_seen_classes")},
        },
    ),
    "initialisation": (
        Initialisation,
        {
            "init": "checkpoint",
            "strategy_file": "strategy_file",
            "share": "share",
            "freeze": "freeze",
        },
    ),
    "execution": (Execution, {"tasks_at_once": "tasks_at_once", "compile_step": "compile_step"}),
}


def grouped(settings: dict) -> dict:
    """Arguments of a recipe, whose groups are made of flat words here: tests vary them one by one."""
    rest = dict(settings)
    for group, (make, names) in GROUPS.items():
        if chosen := {names[n]: rest.pop(n) for n in list(rest) if n in names}:
            rest[group] = make(**chosen)
    return rest


def meta_kd(learner=None, student: Model | None = None, **settings) -> MetaKD:
    learner = MAML(0.05, 2, first_order=True) if learner is None else learner
    student = SmoothConv4(N_WAY if learner.needs_head else 0) if student is None else student
    options = {"loss": gate(), "teachers": [helper()], "strategy_lr": 0.05, "pilot_lr": 0.01}
    return MetaKD(student, learner, **grouped({**options, "optimisation": sgd(), **settings}))


def single_task(student: Model | None = None, **settings) -> SingleTask:
    options = {"loss": gate(), "teachers": [helper(12)], "strategy_lr": 0.05, "pilot_lr": 0.01}
    options["strategy_every"] = 1  # not the default: tests watch each step
    student = SmoothConv4(12) if student is None else student
    return SingleTask(student, **grouped({**options, "optimisation": sgd(), **settings}))


class Watched:
    """The outer update of a recipe, replaced by a function."""

    def __init__(self, update, function) -> None:
        self.configure, self.function = update.configure, function

    def __call__(self, *args, **kwargs) -> None:
        return self.function(*args, **kwargs)


def watch(recipe, function) -> None:
    """Have a function called in place of the outer update."""
    recipe.outer_update = Watched(recipe.outer_update, function)


def sgd(**settings) -> Optimisation:
    return Optimisation(**{"lr": 0.05, "optimiser": "sgd", "strategy_optimiser": "sgd", **settings})


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict, after: dict) -> set[str]:
    """Names of the tensors that are no longer the same to the last bit."""
    assert before.keys() == after.keys()
    return {n for n in before if not torch.equal(before[n], after[n]) and before[n].numel()}
