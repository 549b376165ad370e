"""The meta-gradient of one meta-batch in the libraries that people would take instead of this package.

What is written for a library follows its own examples, except that support and query rows pass apart
everywhere, so that all compute the same function (tests/benchmarks/test_contestants.py, in double precision).
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contestants import INNER_LR, Contestant, Setting, student
from benchmarks.plain_conv4 import PlainConv4
from lightning_metakd.types import Episode


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
        x, y, query, requested = rows(task)
        if head:
            x, query = net.body(x), net.body(query)
        adapting = maml.clone()
        for _ in range(setting.inner_steps):
            adapting.adapt(F.cross_entropy(adapting(x), y))
        return F.cross_entropy(adapting(query), requested)

    return over_tasks(net, loss)


def higher_maml(setting: Setting) -> Contestant:
    import higher

    net, head = PlainConv4(student(setting)), setting.algorithm == "anil"
    module = net.head if head else net
    descent = torch.optim.SGD(module.parameters(), lr=INNER_LR)

    def loss(task: Episode) -> Tensor:
        x, y, query, requested = rows(task)
        if head:
            x, query = net.body(x), net.body(query)
        with higher.innerloop_ctx(module, descent, copy_initial_weights=False) as (fast, steps):
            for _ in range(setting.inner_steps):
                steps.step(F.cross_entropy(fast(x), y))
            return F.cross_entropy(fast(query), requested)

    return over_tasks(net, loss)


def higher_first_order(setting: Setting) -> Contestant:
    import higher

    net = PlainConv4(student(setting))
    descent = torch.optim.SGD(net.parameters(), lr=INNER_LR)

    def step(tasks: list[Episode]) -> None:
        net.zero_grad()
        for task in tasks:
            x, y, query, requested = rows(task)
            with higher.innerloop_ctx(net, descent, track_higher_grads=False) as (fast, steps):
                for _ in range(setting.inner_steps):
                    steps.step(F.cross_entropy(fast(x), y))
                loss = F.cross_entropy(fast(query), requested)
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
            x, y, query, requested = rows(task)
            for _ in range(setting.inner_steps):
                descent.step(F.cross_entropy(net(x), y))
            (F.cross_entropy(net(query), requested) / len(tasks)).backward()
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
        x, y, query, requested = rows(task)
        return F.cross_entropy(PrototypicalClassifier(net(x), y)(net(query)), requested)

    return over_tasks(net, loss)


def easyfsl_protonet(setting: Setting) -> Contestant:
    """The distance is not squared there: another function, of the same cost."""
    from easyfsl.methods import PrototypicalNetworks

    net = PlainConv4(student(setting))
    classifier = PrototypicalNetworks(net)

    def loss(task: Episode) -> Tensor:
        x, y, query, requested = rows(task)
        classifier.process_support_set(x, y)
        return F.cross_entropy(classifier(query), requested)

    return over_tasks(net, loss)


def plain_ridge(setting: Setting) -> Contestant:
    net = PlainConv4(student(setting))

    def loss(task: Episode) -> Tensor:
        x, y, query, requested = rows(task)
        embedding, targets = net(x), F.one_hot(y, setting.n_way).to(x)
        gram = embedding @ embedding.T + torch.eye(len(y)).to(x)
        weights = embedding.T @ torch.linalg.solve(gram, targets)
        return F.cross_entropy(net(query) @ weights, requested)

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
