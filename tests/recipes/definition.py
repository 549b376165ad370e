"""What the outer update of MetaKD should minimise, written down once more, without the package.

Plain functions of (theta, phi) as numbers. Inner gradients are first derivatives by `torch.autograd`;
nothing here is differentiated twice: the derivatives that are to be checked come from differences.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from scipy.optimize import minimize_scalar, root
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, softplus

Params = dict[str, Tensor]
EPS = 1e-5


def embed(theta: Params, x: Tensor, inputs: list | None = None) -> tuple[Tensor, list]:
    """(embedding [n, d], statistics used); `given` statistics instead of those of `x`."""
    used = []
    for k in range(4):
        x = conv2d(x, theta[f"convs.{k}.weight"], theta[f"convs.{k}.bias"], padding=1)
        mean = x.mean((0, 2, 3)) if inputs is None else inputs[k][0]
        centred = x - mean[:, None, None]
        var = centred.pow(2).mean((0, 2, 3)) if inputs is None else inputs[k][1]
        used.append((mean, var))
        x = centred / (var + EPS).sqrt()[:, None, None]
        x = softplus(
            x * theta[f"norms.{k}.weight"][:, None, None] + theta[f"norms.{k}.bias"][:, None, None]
        )
        x = avg_pool2d(x, 2) if x.shape[-1] > 1 else x
    return x[:, :, 0, 0], used


def linear(theta: Params, e: Tensor) -> Tensor:
    return e @ theta["head.weight"].T + theta["head.bias"]


def cosine(e: Tensor, means: Tensor) -> Tensor:
    length = e.norm(dim=1)[:, None] * means.norm(dim=1)[None]
    return e @ means.T / length


def squared(e: Tensor, means: Tensor) -> Tensor:
    return -torch.cdist(e, means, compute_mode="donot_use_mm_for_euclid_dist").pow(2)


def means_of(e: Tensor, y: Tensor, n_way: int) -> Tensor:
    return torch.stack([e[y == c].mean(0) for c in range(n_way)])


def entropy_loss_margin(z: Tensor, y: Tensor) -> list[Tensor]:
    p, c, n = z.softmax(1), z.shape[1], torch.arange(len(y))
    others = (p - torch.eye(c, dtype=p.dtype)[y]).max(1).values  # the truth is below 0 there
    return [
        -(p * p.log()).sum(1) / math.log(c),
        (-p[n, y].log() / math.log(c)).clamp(max=4),
        p[n, y] - others,
    ]


def gate(phi: Params, student: Tensor, teacher: Tensor, y: Tensor, progress: float) -> Tensor:
    result = entropy_loss_margin(teacher, y) + entropy_loss_margin(student, y)
    result.append((teacher.softmax(1) * student.softmax(1)).sum(1))
    result.append(torch.full_like(result[0], progress))
    hidden = torch.stack(result, 1) @ phi["gate.net.0.weight"].T + phi["gate.net.0.bias"]
    raw = hidden.tanh() @ phi["gate.net.2.weight"].T + phi["gate.net.2.bias"]
    return 1 / (1 + (-raw[:, 0]).exp())


def teaching(
    phi: Params,
    z: Tensor,
    teacher: Tensor,
    y: Tensor,
    progress: float,
    gates: Tensor | None = None,
) -> Tensor:
    """Mean of g CE(y, S) + (1 - g) T^2 KL(F || S), the gate being a number given the student's answer."""
    t = phi["match.temperature.raw"].exp()
    p, q = (teacher / t).softmax(1), (z / t).softmax(1)
    divergence = t**2 * (p * (p.log() - q.log())).sum(1)
    g = gate(phi, z.detach(), teacher, y, progress) if gates is None else gates
    return (g * cross_entropy(z, y) + (1 - g) * divergence).mean()


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    return torch.logsumexp(z, 1) - z[torch.arange(len(y)), y]


def at_best_scale(z: Tensor, y: Tensor) -> float:
    """The least mean cross-entropy over factors on the logits in (0, 8)."""
    loss = lambda s: cross_entropy(s * z, y).mean().item()  # noqa: E731
    return minimize_scalar(loss, bounds=(0, 8), method="bounded", options={"xatol": 1e-9}).fun


class Task(NamedTuple):
    """An episode with its teacher's logits."""

    x: Tensor
    y: Tensor
    teacher: Tensor
    query_x: Tensor
    query_y: Tensor
    query_teacher: Tensor


def task(episode, teacher: Params, scale: float) -> Task:
    """The teacher answers by cosine to class means, for a support row by means without that row."""
    (x, y), (qx, qy) = ((rows.x, rows.y) for rows in (episode.support, episode.query))
    fixed = [  # as a frozen network: the statistics with which a batch norm is born
        (torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)) for _ in range(4)
    ]
    n_way = len(episode.classes)
    e, qe = embed(teacher, x, fixed)[0], embed(teacher, qx, fixed)[0]
    recorded = []
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        recorded.append(cosine(e[i : i + 1], means_of(e[kept], y[kept], n_way)))
    return Task(
        x, y, scale * torch.cat(recorded), qx, qy, scale * cosine(qe, means_of(e, y, n_way))
    )


@dataclass
class Procedure:
    """How a student adapts to a task and is judged.

    Attributes:
        form: `support` or `batch` statistics for the query rows.
        adapts: prefix of what the inner loop moves, `""` for all; `"-head"` for all but the head.
        prototypes: whether the head is made of class means, which then adapt too (ProtoMAML).
        rates: (theta, name, step) -> rate, where it is not `lr`.
    """

    form: str
    lr: float
    steps: int = 5
    adapts: str = ""
    prototypes: bool = False
    rates: Callable[[Params, str, int], Tensor] | None = None

    def moves(self, name: str) -> bool:
        if name.startswith("learner."):
            return False
        if self.adapts == "-head":
            return not name.startswith("head.")
        return name.startswith(self.adapts)

    def logits(self, theta: Params, x: Tensor, inputs: list | None = None) -> Tensor:
        e, _ = embed(theta, x, inputs)
        return 10 * cosine(e, theta["means"]) if self.prototypes else linear(theta, e)

    def start(self, theta: Params, t: Task) -> Params:
        if not self.prototypes:
            return theta
        e, _ = embed(theta, t.x)
        return {**theta, "means": means_of(e, t.y, int(t.y.max()) + 1)}

    def slope(self, theta: Params, phi: Params, t: Task, k: int) -> Params:
        """Gradient of the teaching loss at step k, in what adapts."""
        at = {name: p.detach().requires_grad_() for name, p in theta.items()}
        loss = teaching(phi, self.logits(at, t.x), t.teacher, t.y, k / self.steps)
        moving = [name for name in at if self.moves(name)]
        grads = torch.autograd.grad(loss, [at[name] for name in moving])
        return dict(zip(moving, grads, strict=True))

    def moved(self, theta: Params, slope: Params, k: int) -> Params:
        rate = self.rates or (lambda theta, name, k: self.lr)
        return {n: p - rate(theta, n, k) * slope[n] if n in slope else p for n, p in theta.items()}

    def trajectory(self, theta: Params, phi: Params, t: Task) -> list[Params]:
        bars = [self.start(theta, t)]
        for k in range(self.steps):
            bars.append(self.moved(bars[-1], self.slope(bars[-1], phi, t, k), k))
        return bars

    def query_loss(self, theta: Params, t: Task) -> float:
        """Query loss of an adapted student."""
        inputs = embed(theta, t.x)[1] if self.form == "support" else None
        return cross_entropy(self.logits(theta, t.query_x, inputs), t.query_y).mean().item()

    def second_order(self, theta: Params, phi: Params, t: Task) -> float:
        """Q(theta_K), theta_{k+1} = theta_k - alpha g_k(theta_k, phi)."""
        return self.query_loss(self.trajectory(theta, phi, t)[-1], t)

    def first_order(self, bars: list[Params], theta: Params, phi: Params, t: Task) -> float:
        """Q(theta - alpha sum_k g_k(bar theta_k, phi)), the trajectory frozen."""
        moved = self.start(theta, t)
        for k in range(self.steps):
            moved = self.moved(moved, self.slope(bars[k], phi, t, k), k)
        return self.query_loss(moved, t)

    def after_every_step(self, theta: Params, phi: Params, t: Task) -> float:
        """Mean of Q(theta_k) over the steps: MAML++ at the beginning of the training."""
        points = self.trajectory(theta, phi, t)[1:]
        return sum(self.query_loss(at, t) for at in points) / len(points)

    def distance(self, bars: list[Params], theta: Params, phi: Params, t: Task) -> float:
        """1/2 |theta - theta_K|^2 with the end of the trajectory frozen: Reptile."""
        return sum((p - bars[-1][n]).square().sum().item() for n, p in theta.items()) / 2

    def with_rates_of_adam(self, theta: Params, phi: Params, t: Task) -> "Procedure":
        """The same with the rates that Adam without momentum takes from here, as numbers."""
        at, average, rates = theta, dict.fromkeys(theta, 0.0), []
        for k in range(self.steps):
            slope = self.slope(at, phi, t, k)
            average = {n: 0.999 * average[n] + 0.001 * g**2 for n, g in slope.items()}
            unbiased = {n: v / (1 - 0.999 ** (k + 1)) for n, v in average.items()}
            rates.append({n: self.lr / (v.sqrt() + 1e-8) for n, v in unbiased.items()})
            at = {n: p - rates[k][n] * slope[n] for n, p in at.items()}
        return replace(self, rates=lambda theta, name, k: rates[k][name])

    def at_rest(self, theta: Params, phi: Params, t: Task, pull: float) -> float:
        """Q at the minimum of the teaching loss plus pull/2 |w - theta|^2: iMAML."""
        at = theta
        for _ in range(self.steps):
            slope = self.slope(at, phi, t, self.steps)  # progress 1
            slope = {n: g + pull * (at[n] - theta[n]) for n, g in slope.items()}
            at = self.moved(at, slope, 0)
        return self.query_loss(at, t)


@dataclass
class Metric:
    """A student that answers by its embeddings, whose strategy is judged by a pilot step.

    Attributes:
        answer: (theta, support embeddings, labels, query embeddings) -> logits.
    """

    form: str
    lr: float
    answer: Callable[[Params, Tensor, Tensor, Tensor], Tensor]

    def logits(self, theta: Params, t: Task, rows: slice) -> Tensor:
        e, used = embed(theta, t.x)
        query, _ = embed(theta, t.query_x[rows], used if self.form == "support" else None)
        return self.answer(theta, e, t.y, query)

    def teaching_loss(
        self, theta: Params, phi: Params, t: Task, rows: slice, **frozen: Tensor
    ) -> Tensor:
        z = self.logits(theta, t, rows)
        return teaching(phi, z, t.query_teacher[rows], t.query_y[rows], 1.0, **frozen)

    def student(self, gates: Tensor, theta: Params, phi: Params, t: Task) -> float:
        """T(theta; phi); a gate that looks at the student is no function of theta in the outer loss."""
        return self.teaching_loss(theta, phi, t, slice(None), gates=gates).item()

    def gates(self, theta: Params, phi: Params, t: Task) -> Tensor:
        z = self.logits(theta, t, slice(None)).detach()
        return gate(phi, z, t.query_teacher, t.query_y, 1.0)

    def pilot(self, theta: Params, phi: Params, t: Task) -> float:
        """Q_B(theta - eta grad T_A(theta; phi)), Q at the best scale of the logits."""
        half = len(t.query_y) // 2
        at = {name: p.detach().requires_grad_() for name, p in theta.items()}
        grads = torch.autograd.grad(
            self.teaching_loss(at, phi, t, slice(0, half)), list(at.values()), allow_unused=True
        )
        moved = {n: p.detach() - self.lr * g for (n, p), g in zip(at.items(), grads, strict=True)}
        rows = slice(half, None)
        return at_best_scale(self.logits(moved, t, rows), t.query_y[rows])


def by_means(theta: Params, e: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Minus the squared distance to the class means (ProtoNet)."""
    return squared(query, means_of(e, y, int(y.max()) + 1))


def by_angle(theta: Params, e: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """The cosine to the class means, with a learned scale."""
    return theta["learner.log_scale"].exp() * cosine(query, means_of(e, y, int(y.max()) + 1))


def by_ridge(theta: Params, e: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Regression of the labels on the embeddings."""
    labels, one = torch.eye(int(y.max()) + 1).to(e)[y], torch.eye(e.shape[1]).to(e)
    penalty, scale = theta["learner.log_penalty"].exp(), theta["learner.log_scale"].exp()
    return scale * query @ torch.linalg.inv(e.T @ e + penalty * one) @ e.T @ labels


def by_logistic_regression(theta: Params, phi: Params, t: Task, penalty: float) -> float:
    """Query loss of the linear classifier that minimises the teaching loss on unit embeddings."""
    e, used = embed(theta, t.x)
    query, _ = embed(theta, t.query_x, used)
    e, query = (rows / rows.norm(dim=1)[:, None] for rows in (e, query))
    e, query, n_way = e.detach(), query.detach(), int(t.y.max()) + 1
    ones = torch.ones(len(e), 1).to(e)

    def slope(numbers: Any) -> Any:
        w = torch.tensor(numbers).view(n_way, -1).requires_grad_()
        loss = teaching(phi, torch.cat([e, ones], 1) @ w.T, t.teacher, t.y, 1.0)
        loss = loss + penalty / (2 * len(e)) * w[:, :-1].square().sum()
        return torch.autograd.grad(loss, w)[0].flatten().numpy()

    start = torch.zeros(n_way * (e.shape[1] + 1)).double().numpy()
    actual = root(slope, start, method="lm", options={"xtol": 1e-15, "ftol": 1e-15})
    w = torch.tensor(actual.x).view(n_way, -1)
    return cross_entropy(query @ w[:, :-1].T + w[:, -1], t.query_y).mean().item()
