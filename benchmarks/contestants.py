"""The meta-gradient of one meta-batch, in this package and in the libraries that people would take instead.

Every contestant is built from the same `Setting`, starts from the same weights, and is called with the same
tensors; calling it leaves the gradient of the mean outer loss in `net`'s parameters. The network is Conv4
whose norms take the statistics of each pass, the inner loop is plain gradient descent. What is written for
a peer follows that library's own examples, except that support and query rows pass apart everywhere, so that
all compute the same function (tests/benchmarks/test_contestants.py, in double precision).
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_conv4 import PlainConv4
from lightning_metakd.functional import bind, bind_loss, under
from lightning_metakd.hypergradient import tangent
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.learners.ridge import Ridge
from lightning_metakd.losses.loss import Targets
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.recipes.objective import Objective
from lightning_metakd.recipes.tasks import mean_over_tasks
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
        found = Batch(x.to(setting.dtype), y, index, torch.full_like(index, -1))
        return Batch(*(leaf.to(setting.device) for leaf in found[:4]))

    made = []
    for i in range(tasks):
        centres = torch.randn(setting.n_way, 3, 1, 1, generator=draw)
        support, query = batch(centres, setting.k_shot), batch(centres, setting.n_query)
        classes = torch.arange(setting.n_way, device=setting.device)
        made.append(Episode(support, query, classes, torch.tensor(i, device=setting.device)))
    return made


# --- this package ------------------------------------------------------------------------------

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
    net = make_episodic(student(setting), "batch")
    whole = compiled and learner.fixed_graph
    if compiled and not whole:
        learner.compile_steps()
    learner.to(setting.device, setting.dtype)
    objective = Objective(learner, bind(net), bind_loss(Targets()), Targets(), tangent, INNER_LR)

    def loss(*at: Any) -> tuple[Tensor, ...]:
        return (objective.student_loss(*at),)

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        theta = under("student", dict(net.named_parameters()))
        (mean,) = mean_over_tasks(loss, theta, {}, tasks, at_once or len(tasks), whole)
        mean.backward()

    return Contestant(net, step)


# --- peers -------------------------------------------------------------------------------------


def rows(task: Episode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return task.support.x, task.support.y, task.query.x, task.query.y


def over_tasks(net: nn.Module, loss: Callable[[Episode], Tensor]) -> Contestant:
    """Backward task by task, as every example does."""

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        for task in tasks:
            (loss(task) / len(tasks)).backward()

    return Contestant(net, step)


def add(net: nn.Module, grads: list[Tensor], share: float) -> None:
    """Add gradients that were found by hand."""
    for p, g in zip(net.parameters(), grads, strict=True):
        p.grad = share * g if p.grad is None else p.grad + share * g


def learn2learn_maml(setting: Setting) -> Contestant:
    import learn2learn

    net, head = PlainConv4(student(setting)), setting.algorithm == "anil"
    first_order = setting.algorithm == "first order"
    maml = learn2learn.algorithms.MAML(net.head if head else net, INNER_LR, first_order)

    def loss(task: Episode) -> Tensor:
        x, y, query, asked = rows(task)
        if head:
            x, query = net.body(x), net.body(query)
        adapting = maml.clone()
        for _ in range(setting.inner_steps):
            adapting.adapt(F.cross_entropy(adapting(x), y))
        return F.cross_entropy(adapting(query), asked)

    return over_tasks(net, loss)


def higher_maml(setting: Setting) -> Contestant:
    import higher

    net, head = PlainConv4(student(setting)), setting.algorithm == "anil"
    module = net.head if head else net
    descent = torch.optim.SGD(module.parameters(), lr=INNER_LR)

    def loss(task: Episode) -> Tensor:
        x, y, query, asked = rows(task)
        if head:
            x, query = net.body(x), net.body(query)
        with higher.innerloop_ctx(module, descent, copy_initial_weights=False) as (fast, steps):
            for _ in range(setting.inner_steps):
                steps.step(F.cross_entropy(fast(x), y))
            return F.cross_entropy(fast(query), asked)

    return over_tasks(net, loss)


def higher_first_order(setting: Setting) -> Contestant:
    import higher

    net = PlainConv4(student(setting))
    descent = torch.optim.SGD(net.parameters(), lr=INNER_LR)

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        for task in tasks:
            x, y, query, asked = rows(task)
            with higher.innerloop_ctx(net, descent, track_higher_grads=False) as (fast, steps):
                for _ in range(setting.inner_steps):
                    steps.step(F.cross_entropy(fast(x), y))
                loss = F.cross_entropy(fast(query), asked)
                add(net, torch.autograd.grad(loss, list(fast.parameters())), 1 / len(tasks))

    return Contestant(net, step)


def torchopt_maml(setting: Setting) -> Contestant:
    import torchopt

    net = PlainConv4(student(setting))
    descent = torchopt.MetaSGD(net, lr=INNER_LR)
    start = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
    descent_start = torchopt.extract_state_dict(descent, by="reference")
    leaves = list(net.parameters())

    def step(tasks: list[Episode]) -> None:
        for p in leaves:
            p.grad = None
        for task in tasks:
            x, y, query, asked = rows(task)
            for _ in range(setting.inner_steps):
                descent.step(F.cross_entropy(net(x), y))
            (F.cross_entropy(net(query), asked) / len(tasks)).backward()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(descent, descent_start)

    return Contestant(net, step)


def learn2learn_reptile(setting: Setting) -> Contestant:
    import learn2learn

    net = PlainConv4(student(setting))
    maml = learn2learn.algorithms.MAML(net, INNER_LR, first_order=True)

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        for task in tasks:
            adapting = maml.clone()
            for _ in range(setting.inner_steps):
                adapting.adapt(F.cross_entropy(adapting(task.support.x), task.support.y))
            ways = zip(net.parameters(), adapting.module.parameters(), strict=True)
            add(net, [(p - q).detach() for p, q in ways], 1 / len(tasks))

    return Contestant(net, step)


def plain_reptile(setting: Setting) -> Contestant:
    net = PlainConv4(student(setting))

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        for task in tasks:
            fast = copy.deepcopy(net)
            descent = torch.optim.SGD(fast.parameters(), lr=INNER_LR)
            for _ in range(setting.inner_steps):
                descent.zero_grad()
                F.cross_entropy(fast(task.support.x), task.support.y).backward()
                descent.step()
            ways = zip(net.parameters(), fast.parameters(), strict=True)
            add(net, [(p - q).detach() for p, q in ways], 1 / len(tasks))

    return Contestant(net, step)


def learn2learn_protonet(setting: Setting) -> Contestant:
    from learn2learn.nn import PrototypicalClassifier

    net = PlainConv4(student(setting))

    def loss(task: Episode) -> Tensor:
        x, y, query, asked = rows(task)
        return F.cross_entropy(PrototypicalClassifier(net(x), y)(net(query)), asked)

    return over_tasks(net, loss)


def easyfsl_protonet(setting: Setting) -> Contestant:
    """The distance is not squared there: another function, of the same cost."""
    from easyfsl.methods import PrototypicalNetworks

    net = PlainConv4(student(setting))
    classifier = PrototypicalNetworks(net)

    def loss(task: Episode) -> Tensor:
        x, y, query, asked = rows(task)
        classifier.process_support_set(x, y)
        return F.cross_entropy(classifier(query), asked)

    return over_tasks(net, loss)


def plain_ridge(setting: Setting) -> Contestant:
    net = PlainConv4(student(setting))

    def loss(task: Episode) -> Tensor:
        x, y, query, asked = rows(task)
        embedding, targets = net(x), F.one_hot(y, setting.n_way).to(x)
        gram = embedding @ embedding.T + torch.eye(len(y)).to(x)
        weights = embedding.T @ torch.linalg.solve(gram, targets)
        return F.cross_entropy(net(query) @ weights, asked)

    return over_tasks(net, loss)


PEERS: dict[str, dict[str, Callable[[Setting], Contestant]]] = {
    "second order": {
        "learn2learn": learn2learn_maml,
        "higher": higher_maml,
        "torchopt": torchopt_maml,
    },
    "first order": {"learn2learn": learn2learn_maml, "higher": higher_first_order},
    "anil": {"learn2learn": learn2learn_maml, "higher": higher_maml},
    "reptile": {"learn2learn": learn2learn_reptile, "plain PyTorch": plain_reptile},
    "protonet": {"learn2learn": learn2learn_protonet, "easyfsl": easyfsl_protonet},
    "ridge": {"plain PyTorch": plain_ridge},
}
"""For each algorithm, the libraries that have it, or the recipe of those that do without one."""
