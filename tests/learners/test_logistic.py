import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from tests.tiny import N_WAY, Linear, separable


def predicted(learner, support, query):
    torch.manual_seed(1)
    net = Linear(n_classes=0).double()
    meta = with_prefix("student", dict(net.named_parameters()))
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, support, torch.arange(N_WAY))
    return net, learner.adapt(bind(net), meta, support_loss, support, N_WAY).predict(query.x)


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_it_is_that_of_scikit_learn(penalty):
    support, query = separable(15), separable(30)
    net, answer = predicted(Logistic(penalty), support, query)
    a, b = (normalize(net.body(rows.x)[0].detach().numpy()) for rows in (support, query))
    oracle = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=10000)
    expected = oracle.fit(a, support.y.numpy()).predict_log_proba(b)
    actual = answer.logits.log_softmax(1).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_fits_where_no_graph_is_kept(mode):
    support, query = separable(15), separable(30)
    _, expected = predicted(Logistic(), support, query)
    with mode():
        _, actual = predicted(Logistic(), support, query)
    torch.testing.assert_close(actual.logits, expected.logits.detach(), rtol=1e-9, atol=1e-9)


def test_a_penalty_that_is_not_positive_is_refused():
    with pytest.raises(
        ValueError, match=r"penalty=0\.0 must be positive and finite, as without it"
    ):
        Logistic(penalty=0.0)
