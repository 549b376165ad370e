import pytest
import torch

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners.proto_maml import PROTOTYPES, ProtoMAML
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.prototypes import class_means, metric_logits
from tests.tiny import N_WAY, SmoothConv4, episode


def adapted(learner, rows):
    net = make_episodic(SmoothConv4(0).double(), "support")
    meta = with_prefix("student", dict(net.named_parameters()))
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, rows, torch.arange(N_WAY))
    return net, learner.adapt(bind(net), meta, support_loss, rows, N_WAY)


@pytest.mark.parametrize(("metric", "scale"), [("cosine", 10.0), ("euclidean", 1.0)])
def test_it_starts_as_a_prototypical_network(metric, scale):
    rows = episode().support
    net, actual = adapted(ProtoMAML(0.05, 3, metric=metric, scale=scale), rows)
    means = class_means(net(rows.x).embedding, rows.y, N_WAY)
    torch.testing.assert_close(actual.trajectory[0][PROTOTYPES], means, rtol=1e-12, atol=1e-14)


def test_body_and_means_move_together():
    rows = episode().support
    _, actual = adapted(ProtoMAML(0.05, 3), rows)
    for name in (PROTOTYPES, "convs.0.weight", "norms.3.bias"):
        assert not torch.equal(actual.trajectory[0][name], actual.trajectory[-1][name]), name


def test_it_answers_by_its_moved_means():
    rows = episode().support
    net, actual = adapted(ProtoMAML(0.05, 3), rows)
    body = {n: p for n, p in actual.trajectory[-1].items() if n != PROTOTYPES}
    embedding = bind(net)(body, rows.x).embedding
    expected = 10 * metric_logits(embedding, actual.trajectory[-1][PROTOTYPES][None], "cosine")
    torch.testing.assert_close(actual.predict(rows.x).logits, expected, rtol=1e-8, atol=1e-10)


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"scale=-1\.0 must be positive"):
        ProtoMAML(scale=-1.0)
