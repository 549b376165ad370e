"""What is learned moves where the quiz gets lower: problems whose answer is planted, by configuration."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import yaml

from lightning_metakd.functional.params import detach
from lightning_metakd.metrics.intervals import paired_difference
from lightning_metakd.reporting.seed_intervals import over_seeds
from lightning_metakd.strategy.hypergradient import HYPERGRADIENTS
from lightning_metakd.strategy.quiz import split_query
from lightning_metakd.types import Context
from tests.commands import written

HERE = Path(__file__).parent
SEEDS = range(5)
OTHER_EPISODES = 10**6
"""Training never comes so far."""


def in_five_seeds(test):
    return pytest.mark.slow(pytest.mark.timeout(3600)(test))


@pytest.fixture
def fit(metakd):
    """Train by a configuration, of this folder if it is named, under a seed."""

    def fit(config, seed, *words):
        name = config if isinstance(config, str) else "given"
        written(Path(), **{name: planted(name) if config == name else config})
        seeds = ("--seed_everything", seed, "--data.seed", seed)
        return metakd("fit", "--config", f"{name}.yaml", *seeds, *words)

    return fit


def planted(name):
    return yaml.safe_load((HERE / f"{name}.yaml").read_text())


def accuracy_of(run):
    """Accuracy on novel classes, on the same episodes whatever the run."""
    run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    return run.model.record.result["accuracy"]


def is_positive(differences):
    """Whether the interval of their mean over the seeds lies above 0."""
    mean, half_width = over_seeds(differences)
    return mean - half_width > 0


def share(run, teacher):
    """How much a teacher is followed in the end."""
    strategies = run.model.loss.match.weights.of_teacher
    return torch.stack([w.raw for w in strategies]).softmax(0)[teacher].item()


@pytest.mark.slow
def test_weights_soon_leave_the_teacher_that_is_wrong(fit):
    soon = (
        "--trainer.max_steps=120",
        "--model.strategy_training.warmup=0.5",
        "--model.strategy_training.lr=0.1",
    )
    run = fit("one_wrong", 0, *soon, "--model.optimisation.lr=0.01")
    assert share(run, teacher=0) > 0.9


@in_five_seeds
def test_weights_go_to_the_right_teacher_and_the_student_is_better_for_it(fit):
    other_order = planted("one_wrong")
    other_order["model"]["init_args"]["teachers"].reverse()
    gains = []
    for seed in SEEDS:
        strategies, reversed_ = fit("one_wrong", seed), fit(other_order, seed)
        assert min(share(strategies, teacher=0), share(reversed_, teacher=1)) >= 0.9
        uniform = fit("one_wrong", seed, "--model.strategy_training.control=uniform")
        assert uniform.model.coefficient_log.values["match.weights.0_mean"] == 0.5
        gains.append(accuracy_of(strategies) - accuracy_of(uniform))
    assert is_positive(gains)


def separation(run, episodes=40):
    """(by how much the gate is higher where the teacher is wrong, the probability that it is)."""
    model, data = run.model, run.datamodule
    objective, theta = model.meta_step().objective, detach(model.evaluator.theta(model.student))
    gates, wrong = [], []
    for i in range(episodes):
        episode = data.on_after_batch_transfer(data.evaluation_episodes("test")[i], 0)
        support, query, classes, _ = episode = model.evaluator.with_teacher_outputs(episode)
        adapted = objective.adapt(theta, objective.teaching_loss({}, support, episode), episode)
        with torch.no_grad():
            context = Context(classes[query.y], torch.ones(()), adapted.predict(query.x))
            gates.append(model.loss.gate(query, context))
        wrong.append(query.teacher_outputs[0].logits.argmax(-1) != query.y)
    gate, wrong = torch.cat(gates), torch.cat(wrong)
    higher = (gate[wrong][:, None] > gate[~wrong]).double().mean().item()
    return (gate[wrong].mean() - gate[~wrong].mean()).item(), higher


@in_five_seeds
def test_a_gate_of_each_row_learns_alone_where_the_teacher_is_wrong(fit):
    for seed in SEEDS:
        strategies = fit("half_right", seed)
        accuracy_of(strategies)  # stores what the teacher says of novel classes
        by, probability = separation(strategies)
        assert by > 0.5
        assert probability > 0.95
        shuffled = fit("half_right", seed, "--model.strategy_training.control=shuffled")
        accuracy_of(shuffled)
        assert separation(shuffled)[0] < 0.2


def quiz_after_a_step(run, temperatures, episodes=1000):
    """The quiz after a pilot step at each of some temperatures [episode, temperature]."""
    model, data = run.model, run.datamodule
    objective = dataclasses.replace(
        model.meta_step().objective, hypergradient=HYPERGRADIENTS["unrolled"]
    )
    theta = detach(model.evaluator.theta(model.student))
    drawn = data.training_episodes("strategy", data.n_way, data.n_query)
    actual = torch.zeros(episodes, len(temperatures), dtype=torch.float64)
    for i in range(episodes):
        episode = data.on_after_batch_transfer(drawn[OTHER_EPISODES + i], 0)
        episode = model.evaluator.with_teacher_outputs(episode)
        for k, temperature in enumerate(temperatures):
            strategy = {"temperature.raw": torch.tensor(math.log(temperature))}
            with torch.no_grad():
                actual[i, k] = objective.strategy_loss(theta, strategy, split_query(episode))[0]
    return actual


def lowest(x, y):
    """Where a parabola through the smallest value and its neighbours is lowest; x are evenly spaced."""
    k = int(y.argmin())
    before, at, after = y[k - 1 : k + 2].tolist()
    return x[k] + (x[1] - x[0]) * (before - after) / (before - 2 * at + after) / 2


@in_five_seeds
def test_the_best_temperature_is_found_from_both_sides(fit):
    fit("start", 0)
    still = fit("temperature", 99, "--trainer.max_steps=1")
    logs = [math.log(1.3) * k for k in range(1, 9)]
    temperatures = [math.exp(log) for log in logs]
    quiz = quiz_after_a_step(still, temperatures)
    best = math.exp(lowest(logs, quiz.mean(0)))
    k = int(quiz.mean(0).argmin())
    for end in (0, -1):
        mean, half_width = paired_difference(quiz[:, end], quiz[:, k])
        assert mean - half_width > 0
    for seed in SEEDS:
        for init in (best / 3, best * 3):
            run = fit("temperature", seed, f"--model.loss.temperature.init={init}")
            text = run.model.loss.temperature.raw.exp().item()
            assert text == pytest.approx(best, rel=0.2)
