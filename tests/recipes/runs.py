"""Tiny training runs for the tests of recipes."""

import torch

from lightning_metakd.data.datamodules import EpisodicData, SupervisedData
from lightning_metakd.learners.maml import MAML
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.single_task import SingleTask
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


def meta_kd(learner=None, student: Model | None = None, **settings) -> MetaKD:
    learner = MAML(0.05, 2, first_order=True) if learner is None else learner
    student = SmoothConv4(N_WAY if learner.needs_head else 0) if student is None else student
    options = {"loss": gate(), "teachers": [helper()], "strategy_lr": 0.05, "pilot_lr": 0.01}
    return MetaKD(student, learner, **{**options, "optimisation": sgd(), **settings})


def single_task(student: Model | None = None, **settings) -> SingleTask:
    options = {"loss": gate(), "teachers": [helper(12)], "strategy_lr": 0.05, "pilot_lr": 0.01}
    student = SmoothConv4(12) if student is None else student
    return SingleTask(student, **{**options, "optimisation": sgd(), **settings})


def sgd(**settings) -> Optimisation:
    return Optimisation(**{"lr": 0.05, "optimiser": "sgd", "strategy_optimiser": "sgd", **settings})


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict, after: dict) -> set[str]:
    """Names of the tensors that are no longer the same to the last bit."""
    assert before.keys() == after.keys()
    return {n for n in before if not torch.equal(before[n], after[n]) and before[n].numel()}
