import numpy as np
import pytest
import torch

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.ridge import Ridge, ridge_weights
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from tests.tiny import N_WAY, Linear, separable


@pytest.mark.parametrize(("rows", "width"), [(6, 9), (9, 9), (12, 5)])
def test_the_weights_are_those_of_the_normal_equations(rows, width):
    x, y = torch.randn(rows, width).double(), torch.randn(rows, 3).double()
    actual = ridge_weights(x, y, torch.tensor(0.3, dtype=torch.float64))
    a = x.numpy()
    expected = np.linalg.solve(a.T @ a + 0.3 * np.eye(width), a.T @ y.numpy())
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rows", "width"), [(4, 5), (6, 3)])
def test_their_gradients_are_right(rows, width):
    inputs = [torch.randn(rows, width), torch.randn(rows, 2), torch.tensor(0.3)]
    inputs = [g.double().requires_grad_() for g in inputs]
    assert torch.autograd.gradcheck(ridge_weights, inputs)
    assert torch.autograd.gradgradcheck(ridge_weights, inputs)


def predicted(learner, support, query):
    torch.manual_seed(1)
    net = Linear(n_classes=0).double()
    meta = {
        **with_prefix("student", dict(net.named_parameters())),
        **with_prefix("learner", dict(learner.named_parameters())),
    }
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, support, torch.arange(N_WAY))
    return net, learner.adapt(bind(net), meta, support_loss, support, N_WAY).predict(query.x)


def test_it_answers_by_the_regression_of_the_labels_on_the_embeddings():
    support, query = separable(12), separable(30)
    net, answer = predicted(Ridge(2.0, 3.0).double(), support, query)
    a, b = (net.body(rows.x)[0].detach().numpy() for rows in (support, query))
    labels = np.eye(N_WAY)[support.y.numpy()]
    expected = 3 * b @ np.linalg.solve(a.T @ a + 2 * np.eye(a.shape[1]), a.T @ labels)
    actual = answer.logits.detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)  # float32 logarithms


def test_scale_and_penalty_are_learned_unless_told_otherwise():
    learner = Ridge().double()
    support, query = separable(12), separable(30)
    _, answer = predicted(learner, support, query)
    loss = torch.nn.functional.cross_entropy(answer.logits, query.y)
    slopes = torch.autograd.grad(loss, list(learner.parameters()))
    assert [name for name, _ in learner.named_parameters()] == ["log_penalty", "log_scale"]
    assert all(slope.abs() > 0 for slope in slopes)
    fixed = Ridge(learn=False).double()
    assert not list(fixed.parameters())
    torch.testing.assert_close(predicted(fixed, support, query)[1].logits, answer.logits)


def test_a_penalty_that_is_not_positive_is_refused():
    with pytest.raises(
        ValueError, match=r"penalty=0\.0 must be positive and finite, for instance 1"
    ):
        Ridge(penalty=0.0)
