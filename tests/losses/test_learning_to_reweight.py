"""Weights of a batch, beside algorithm 1 of the paper written out with two backward passes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_metakd.losses import CrossEntropy, LearningToReweight, WeightedSum
from tests.recipes import definition
from tests.recipes.runs import meta_kd, sgd, single_task
from tests.tiny import (
    N_WAY,
    FixedRows,
    SmoothConv4,
    answered,
    batch,
    context,
    separable,
    student_answer,
)
from tests.tiny import trainer as of_steps

RATE, PILOT_RATE = 0.1, 0.5


def reweighted(batch_size=9):
    return WeightedSum({"labels": CrossEntropy()}, {"labels": LearningToReweight(batch_size)})


def algorithm_1(theta, train, judge):
    """(weights, parameters after the step): the paper's, the weights to the mean 1."""

    def losses(params, rows):
        e, _ = definition.embed(params, rows.x)
        return cross_entropy(definition.linear(params, e), rows.y, reduction="none")

    theta = {n: p.clone().requires_grad_(True) for n, p in theta.items()}
    epsilon = torch.zeros(len(train.y), dtype=torch.float64, requires_grad=True)
    loss = (epsilon * losses(theta, train)).mean()
    slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    moved = {n: p - PILOT_RATE * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
    (slope,) = torch.autograd.grad(losses(moved, judge).mean(), epsilon)
    positive = (-slope).clamp(min=0)
    weights = positive / positive.sum() * len(positive)
    loss = (weights * losses(theta, train)).mean()
    slopes = torch.autograd.grad(loss, list(theta.values()))
    after = {n: p.detach() - RATE * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
    return weights, after


@pytest.mark.parametrize("hypergradient", ["tangent", "unrolled"])
def test_every_step_is_that_of_the_paper(hypergradient):
    torch.manual_seed(3)
    recipe = single_task(
        SmoothConv4().double(),
        loss=reweighted().double(),
        teachers=None,
        optimisation=sgd(lr=RATE, momentum=0.0),
        **{"strategy_lr": 1.0, "pilot_lr": PILOT_RATE, "hypergradient": hypergradient},
        quiz=CrossEntropy(),
    )
    batches = [(separable(n, (1, 8, 8)), separable(6, (1, 8, 8))) for n in (9, 8)]
    for train, _ in batches:
        train.y[:2] = (train.y[:2] + 1) % N_WAY  # wrong labels
    theta = {n: p.detach().clone() for n, p in recipe.student.named_parameters()}
    for train, judge in batches:
        weights, theta = algorithm_1(theta, train, judge)
    assert weights.min() == 0 < weights.max()  # some rows would harm
    of_steps(max_steps=2, precision="64-true").fit(recipe, datamodule=FixedRows(batches))
    coefficient = recipe.loss.weights["labels"]
    train = batches[1][0]
    actual = coefficient(train, context(train, student_answer(train))).detach()
    torch.testing.assert_close(actual, weights, rtol=1e-9, atol=1e-9)
    for name, parameter in recipe.student.named_parameters():
        torch.testing.assert_close(parameter.detach(), theta[name], rtol=1e-9, atol=1e-11)


def test_a_batch_in_which_no_row_helps_weighs_nothing():
    loss, rows = reweighted(4).double(), answered(batch(4))
    loss.weights["labels"].raw.data.fill_(-1.0)
    student = student_answer(rows)
    assert loss(student, rows, context(rows, student)).abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy_lr": 0.0}, "strategy_training has lr=0.0, every=1, warmup=0.0; take lr=1"),
        ({"strategy_every": 2}, "every=2"),
        ({"strategy_warmup": 0.1}, "warmup=0.1"),
        ({"control": "step_size"}, "control=step_size compares with a strategy that lasts"),
        ({"optimisation": sgd(strategy_optimiser="adam")}, "strategy_optimiser=adam keeps little"),
    ],
)
def test_settings_by_which_it_would_not_be_learned_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        single_task(loss=reweighted(), teachers=None, **{"strategy_lr": 1.0, **settings})


def test_episodes_have_no_batches():
    with pytest.raises(ValueError, match="LearningToReweight is learned anew for each batch of"):
        meta_kd(loss=reweighted(), teachers=None)


def test_a_larger_batch_is_refused():
    rows = batch(5)
    with pytest.raises(ValueError, match=r"batch_size=4, and a batch has 5 rows"):
        LearningToReweight(4)(rows, context(rows, student_answer(rows)))
