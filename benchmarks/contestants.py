"""The meta-gradient of one meta-batch: what every contestant is given, and this package's own.

Every contestant is built from the same `Setting`, starts from the same weights, and is called with the same
tensors; calling it leaves the gradient of the mean outer loss in `net`'s parameters. The network is Conv4
whose norms take the statistics of each pass, the inner loop is plain gradient descent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.learners.ridge import Ridge
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.recipes.compilation import Compilation
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.recipes.execution import Execution, lay_out_weights
from lightning_metakd.recipes.meta_step import MetaStep
from lightning_metakd.recipes.training_record import TrainingRecord
from lightning_metakd.types import Batch, Episode

INNER_LR = 0.01


class Setting(NamedTuple):
    """What is computed, and how large it is."""

    algorithm: str
    width: int = 32
    inner_steps: int = 5
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 15
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


class Contestant(NamedTuple):
    """One implementation.

    Attributes:
        net: the network whose parameters receive the gradient.
        step: leaves the meta-gradient of some episodes there.
    """

    net: nn.Module
    step: Callable[[list[Episode]], None]


def student(setting: Setting) -> Conv4:
    """The first weights; learners that bring their own head have a network without one."""
    torch.manual_seed(0)
    n_classes = 0 if setting.algorithm in ("protonet", "ridge") else setting.n_way
    return Conv4(setting.width, n_classes).to(setting.device, setting.dtype)


def episodes(setting: Setting, tasks: int) -> list[Episode]:
    """Images of noise with random means for their classes."""
    draw = torch.Generator().manual_seed(1)

    def batch(centres: Tensor, per_class: int) -> Batch:
        y = torch.arange(setting.n_way).repeat(per_class)
        x = centres[y] + torch.randn(len(y), 3, 32, 32, generator=draw)
        index = torch.arange(len(y))
        actual = Batch(x.to(setting.dtype), y, index, torch.full_like(index, -1))
        return Batch(*(leaf.to(setting.device) for leaf in actual[:4]))

    made = []
    for i in range(tasks):
        centres = torch.randn(setting.n_way, 3, 1, 1, generator=draw)
        support, query = batch(centres, setting.k_shot), batch(centres, setting.n_query)
        classes = torch.arange(setting.n_way, device=setting.device)
        made.append(Episode(support, query, classes, torch.tensor(i, device=setting.device)))
    return made


LEARNERS: dict[str, Callable[..., Learner]] = {
    "second order": lambda steps, **how: MAML(INNER_LR, steps, **how),
    "first order": lambda steps, **how: MAML(INNER_LR, steps, first_order=True, **how),
    "anil": lambda steps, **how: MAML(INNER_LR, steps, adapts="head", **how),
    "reptile": lambda steps, **how: Reptile(INNER_LR, steps, **how),
    "protonet": lambda steps, **how: ProtoNet(**how),
    "ridge": lambda steps, **how: Ridge(scale=1.0, learn=False, **how),
}


def ours(
    setting: Setting, compiled: bool = False, at_once: int | None = 1, **how: Any
) -> Contestant:
    """The meta-step as `MetaKD` takes it.

    Args:
        compiled: compile the task, or the inner step where it is computed again.
        at_once: tasks in one vmap; None for all.
        how: further arguments of the learner.
    """
    learner = LEARNERS[setting.algorithm](setting.inner_steps, **how)
    net = make_episodic(as_model(student(setting)), "batch")
    lay_out_weights([net], learner)
    learner.to(setting.device, setting.dtype)
    objective = EpisodeObjective(learner, bind(net), bind_loss(CrossEntropy()), pilot_lr=INNER_LR)
    device = torch.device(setting.device)

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        theta = with_prefix("student", dict(net.named_parameters()))
        execution = Execution(at_once or len(tasks), compiled)
        compilation = Compilation(execution, learner, "batch", net, TrainingRecord())
        at = MetaStep(net, objective, theta, {}, False, "same", compilation, device, 0)
        at.student_loss(tasks, follows_strategy=False).backward()

    return Contestant(net, step)
