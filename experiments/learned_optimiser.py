"""A learned update rule beside the best step sizes of SGD and Adam, where its paper measured it.

Andrychowicz et al. (2016, arXiv:1606.04474), section 3: random quadratics of ten dimensions, and a small
classifier. One rule, that of the learner `LSTMOptimizer`, is trained for each kind of problem, over windows
of 20 steps, and asked for 100 steps on problems it never saw: quadratics, classifiers of other classes, and
wider classifiers of other classes. SGD and Adam take the best step size of a grid, by the mean loss over the
steps of validation problems of the very kind they are tested on.

    python -m experiments.learned_optimiser --data ../shared/data     a quarter of an hour on one core
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, linear

from lightning_metakd.callbacks.results import code_version, processor
from lightning_metakd.data.sources.cifar import CIFARFS
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners.lstm_optimizer import LSTMOptimizer
from lightning_metakd.metrics.intervals import paired_difference
from lightning_metakd.reporting.markdown import fill_section, markdown
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.types import Params

STEPS, WINDOW, SIZE, BATCH, N_CLASSES, SIDE = 100, 20, 10, 128, 10, 8
GRID = [10 ** (k / 3) for k in range(-12, 4)]
"""Step sizes from 0.0001 to 10, three for each power of ten."""
ALONE = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}


@dataclass(frozen=True)
class Problem:
    """Something to minimise.

    Attributes:
        start: the first parameters.
        loss: (parameters, step) -> scalar; a step has a batch of its own.
    """

    start: Params
    loss: Callable[[Params, int], Tensor]


Problems = Callable[[int], Problem]
"""Of a seed."""


def quadratic(seed: int) -> Problem:
    """Sums of |W w - y|^2 over functions, each with coordinates of its own."""
    draw = torch.Generator().manual_seed(seed)
    matrices = torch.randn(BATCH, SIZE, SIZE, generator=draw)
    y, start = (torch.randn(BATCH, SIZE, generator=draw) for _ in range(2))

    def loss(params: Params, step: int) -> Tensor:
        return (torch.einsum("bij,bj->bi", matrices, params["w"]) - y).square().sum()

    return Problem({"w": start}, loss)


@dataclass(frozen=True)
class Classifiers:
    """Networks of one hidden layer on pictures of some classes, brought to 8 x 8 grey pixels.

    Attributes:
        x: pictures of the split, [n, 64], standardised.
        y: their classes.
        hidden: units, with a sigmoid as in the paper.
    """

    x: Tensor
    y: Tensor
    hidden: int

    def __call__(self, seed: int) -> Problem:
        draw = torch.Generator().manual_seed(seed)
        classes = torch.unique(self.y)
        classes = classes[torch.randperm(len(classes), generator=draw)[:N_CLASSES]]
        rows = torch.isin(self.y, classes).nonzero()[:, 0]
        labels = torch.searchsorted(classes.sort().values, self.y[rows])
        batches = torch.randint(len(rows), (STEPS + 1, BATCH), generator=draw)
        widths = (SIDE * SIDE, self.hidden, N_CLASSES)
        start = {
            "first": torch.randn(widths[1], widths[0], generator=draw) / widths[0] ** 0.5,
            "first_bias": torch.zeros(widths[1]),
            "last": torch.randn(widths[2], widths[1], generator=draw) / widths[1] ** 0.5,
            "last_bias": torch.zeros(widths[2]),
        }

        def loss(params: Params, step: int) -> Tensor:
            batch = batches[step]
            hidden = linear(self.x[rows[batch]], params["first"], params["first_bias"]).sigmoid()
            logits = linear(hidden, params["last"], params["last_bias"])
            return cross_entropy(logits, labels[batch])

        return Problem(start, loss)


def small_pictures(source: Source, split: str) -> tuple[Tensor, Tensor]:
    """Pixels [n, 64] of mean 0 and deviation 1, and classes [n]."""
    rows = source.load(split)
    grey = avg_pool2d(rows.x.float().mean(1, keepdim=True), rows.x.shape[-1] // SIDE).flatten(1)
    return (grey - grey.mean()) / grey.std(), rows.y


# --- the rule ----------------------------------------------------------------------------------


def windows(rule: LSTMOptimizer, problem: Problem, learn: bool) -> Iterator[list[Tensor]]:
    """Losses after the steps of each window; differentiable in the rule within a window, where it learns."""
    weights = dict(rule.named_parameters())
    at = dict(problem.start)
    state = rule.rest(sum(p.numel() for p in at.values()), next(iter(at.values())))
    losses: list[Tensor] = []
    for k in range(STEPS):
        here = {name: p.detach().requires_grad_() for name, p in at.items()}
        slopes = torch.autograd.grad(problem.loss(here, k), list(here.values()))
        with torch.set_grad_enabled(learn):
            moves, state = rule.moves(weights, dict(zip(here, slopes, strict=True)), state)
            at = {name: p + moves[name] for name, p in at.items()}
            losses.append(problem.loss(at, k + 1))
        if (k + 1) % WINDOW == 0:
            yield losses
            losses = []
            at = {name: p.detach() for name, p in at.items()}
            state = {name: s.detach() for name, s in state.items()}


def trained_rule(problems: Problems, updates: int, lr: float = 0.003) -> LSTMOptimizer:
    """A rule after so many problems; the scale of a problem's losses is that of its start."""
    torch.manual_seed(0)
    rule = LSTMOptimizer(recompute=False)
    descent = torch.optim.Adam(rule.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, updates)
    for seed in range(updates):
        problem = problems(seed)
        scale = problem.loss(problem.start, 0)
        for losses in windows(rule, problem, learn=True):
            descent.zero_grad()
            (torch.stack(losses).mean() / scale).backward()
            torch.nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
            descent.step()
        schedule.step()
    return rule


def by_rule(rule: LSTMOptimizer, problem: Problem) -> Tensor:
    """The losses after each step [steps]."""
    return torch.stack([loss for part in windows(rule, problem, learn=False) for loss in part])


def by_optimiser(name: str, lr: float, problem: Problem) -> Tensor:
    """The losses after each step of SGD or Adam [steps]."""
    at = {n: p.clone().requires_grad_() for n, p in problem.start.items()}
    optimiser = ALONE[name](list(at.values()), lr)
    losses = []
    for k in range(STEPS):
        optimiser.zero_grad()
        problem.loss(at, k).backward()
        optimiser.step()
        with torch.no_grad():
            losses.append(problem.loss(at, k + 1))
    return torch.stack(losses)


def best_rate(name: str, problems: Problems, seeds: range) -> float:
    """The step size of the grid with the least mean loss over all steps."""

    def mean_loss(lr: float) -> float:
        loss = torch.stack([by_optimiser(name, lr, problems(seed)).mean() for seed in seeds]).mean()
        return float(loss.nan_to_num(torch.inf))

    return min(GRID, key=mean_loss)


# --- all of it ---------------------------------------------------------------------------------


def compare(
    kind: str, rule: LSTMOptimizer, problems: Problems, n_problems: int
) -> list[dict[str, Any]]:
    """A row for each way: losses on the same problems, which no way has seen."""
    validation, test = range(10**6, 10**6 + 10), range(2 * 10**6, 2 * 10**6 + n_problems)
    rates = {name: best_rate(name, problems, validation) for name in ALONE}
    ways: dict[str, Callable[[Problem], Tensor]] = {
        "learned": lambda problem: by_rule(rule, problem),
        **{
            name: lambda problem, name=name: by_optimiser(name, rates[name], problem)
            for name in ALONE
        },
    }
    starts = torch.stack([p.loss(p.start, 0) for p in map(problems, test)])
    relative = {
        name: torch.stack([way(problems(seed)) for seed in test]) / starts[:, None]
        for name, way in ways.items()
    }
    best = min(ALONE, key=lambda name: float(relative[name].mean()))
    rows = []
    for name, losses in relative.items():
        ahead, ci95 = paired_difference(losses.mean(1).tolist(), relative[best].mean(1).tolist())
        row = {"problems": kind, "way": name, "lr": rates.get(name), "n": n_problems}
        row |= {"mean": float(losses.mean()), "last": float(losses[:, -1].mean())}
        row |= {"ahead": ahead, "ahead_ci95": ci95}
        rows.append(row | {"rival": best, "git": code_version()})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each way on each kind of problem."""
    return markdown(
        [
            {
                "problems": row["problems"],
                "steps by": row["way"] if row["lr"] is None else f"{row['way']}, {row['lr']:.2g}",
                "mean loss of 100 steps": f"{row['mean']:.4f}",
                "loss after them": f"{row['last']:.2g}",
                "mean beside the best step size": "-"
                if row["way"] == row["rival"]
                else f"{row['ahead']:+.4f} +- {row['ahead_ci95']:.4f}",
            }
            for row in rows
        ]
    )


def main(args: list[str] | None = None) -> None:
    """Train both rules, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="directory that holds CIFAR-100")
    parser.add_argument("--updates", type=int, default=600, help="problems on which a rule learns")
    parser.add_argument("--problems", type=int, default=50, help="on which it is judged")
    result = Path(__file__).parent / "results" / "learned_optimiser.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section to fill")
    options = parser.parse_args(args)
    source = CIFARFS(options.data)
    train, test = (small_pictures(source, split) for split in ("train", "test"))
    on_quadratics = trained_rule(quadratic, options.updates)
    print("the rule of quadratics is trained", flush=True)
    on_classifiers = trained_rule(Classifiers(*train, hidden=20), options.updates)
    print("the rule of classifiers is trained", flush=True)
    contests: list[tuple[str, LSTMOptimizer, Problems]] = [
        ("quadratics", on_quadratics, quadratic),
        ("classifiers of other classes", on_classifiers, Classifiers(*test, hidden=20)),
        ("the same, twice as wide", on_classifiers, Classifiers(*test, hidden=40)),
    ]
    rows = [row for contest in contests for row in compare(*contest, options.problems)]
    made = f"{processor()}, {torch.get_num_threads()} threads; {options.updates} problems, seed 0; "
    made += f"`python -m experiments.learned_optimiser`; code {str(code_version())[:10]}"
    text = f"{table(rows)}\n\n{made}"
    with atomic_write(options.result) as part:
        part.write_text(json.dumps({"rows": rows, "made": made}, indent=1) + "\n")
    if options.output is not None:
        fill_section(options.output, "learned_optimiser", text)
    print(text)


if __name__ == "__main__":
    main()
