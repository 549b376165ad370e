import pytest
import torch
from sklearn.neighbors import NearestCentroid

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from tests.tiny import N_WAY, Linear, separable


def predicted(learner, support, query):
    torch.manual_seed(1)
    net = Linear(n_classes=0).double()
    meta = {
        **with_prefix("student", dict(net.named_parameters())),
        **with_prefix("learner", dict(learner.named_parameters())),
    }
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, support, torch.arange(N_WAY))
    adapted = learner.adapt(bind(net), meta, support_loss, support, N_WAY)
    return net, meta, adapted.predict(query.x)


@pytest.mark.parametrize("shots", [2, 4])
def test_a_row_belongs_to_the_nearest_class_mean(shots):
    support, query = separable(shots * N_WAY), separable(30)
    net, _, answer = predicted(ProtoNet(), support, query)
    embed = lambda rows: net.body(rows.x)[0].detach().numpy()  # noqa: E731
    oracle = NearestCentroid().fit(embed(support), support.y.numpy())
    assert answer.logits.argmax(1).tolist() == oracle.predict(embed(query)).tolist()


def test_the_scale_multiplies_the_logits():
    support, query = separable(6), separable(12)
    plain, scaled = (
        predicted(ProtoNet("cosine", scale).double(), support, query)[2] for scale in (1.0, 10.0)
    )
    assert plain.logits.abs().max() <= 1
    torch.testing.assert_close(scaled.logits, 10 * plain.logits, rtol=1e-6, atol=0)  # float32 log


def test_a_learned_scale_is_a_parameter_and_gets_a_gradient():
    learner = ProtoNet("cosine", 10.0, learn_scale=True).double()
    support, query = separable(6), separable(12)
    _, meta, answer = predicted(learner, support, query)
    assert "learner.log_scale" in meta
    loss = torch.nn.functional.cross_entropy(answer.logits, query.y)
    (slope,) = torch.autograd.grad(loss, learner.log_scale)
    assert slope.abs() > 0
    assert not list(ProtoNet("cosine", 10.0).parameters())


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(
        ValueError, match=r"scale=0\.0 must be positive and finite, for instance 1 for euclidean"
    ):
        ProtoNet(scale=0.0)
