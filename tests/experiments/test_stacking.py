"""Weights of a pool of teachers are the likeliest ones."""

import json

import pytest
import torch
from scipy.optimize import minimize

from experiments import stacking
from experiments.specialists import POOL, STACKED, TRAINED, pooled, training
from experiments.stacking import pool_weights


def test_the_weights_are_the_likeliest():
    of_label = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)).double() ** 3

    def minus_likelihood(raw):
        weights = torch.tensor(raw).softmax(0)
        return -(weights @ of_label).log().mean().item()

    at = minimize(minus_likelihood, [0.0, 0.0, 0.0], method="Nelder-Mead", options={"fatol": 1e-12})
    expected = torch.tensor(at.x).softmax(0)
    torch.testing.assert_close(pool_weights(of_label), expected, atol=1e-3, rtol=0)


def test_a_teacher_that_knows_nothing_has_no_weight():
    of_label = torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0]])
    assert pool_weights(of_label).tolist() == pytest.approx([1.0, 0.0])


def test_a_stacked_training_has_the_teachers_of_the_uniform_one():
    assert STACKED in TRAINED
    run = training(STACKED, 0, "")
    assert run.needs == run.uniform.needs
    assert run.loss([0.5, 0.5])["init_args"]["match"]["init_args"]["weights"] == [0.5, 0.5]


def test_its_loss_is_written_before_the_command_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stacking, "fitted", lambda run: [0.25] * len(run.needs))
    run = training(STACKED, 0, "")
    run.prepare()
    (file,) = [word.removeprefix("--model.loss=") for word in run.words if "model.loss" in word]
    loss = json.loads((tmp_path / file).read_text())
    assert loss == pooled([0.25] * len(POOL))
