"""Promises of every learner; what each alone promises stands in a file of its own."""

import pytest
import torch
from torch.utils._pytree import tree_map

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.inner_loop import mean_loss
from lightning_metakd.functional.params import detach, subtree, with_prefix
from lightning_metakd.learners.imaml import IMAML
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.learners.ridge import Ridge
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from lightning_metakd.models.norm import make_episodic
from tests.recipes.runs import meta_kd
from tests.tiny import N_WAY, QUERIES, SmoothConv4, batch, episode

LEARNERS = {
    "MAML": lambda: MAML(0.1, 5),
    "MAML, recomputed": lambda: MAML(0.1, 5, recompute=True),
    "FOMAML": lambda: MAML(0.1, 5, first_order=True),
    "ANIL": lambda: MAML(0.5, 5, adapts="head"),
    "BOIL": lambda: MAML(0.1, 5, adapts="body"),
    "Meta-SGD": lambda: MetaSGD(0.1, 5),
    "MAML++": lambda: MAMLPlusPlus(0.1, 5),
    "Reptile": lambda: Reptile(0.1, 5),
    "Reptile, Adam": lambda: Reptile(0.02, 5, inner_optimiser="adam"),
    "iMAML": lambda: IMAML(0.1, 8, pull=0.5),
    "ProtoMAML": lambda: ProtoMAML(0.05, 5),
    "ProtoMAML, squared distance": lambda: ProtoMAML(0.05, 5, metric="euclidean", scale=1.0),
    "ProtoNet": ProtoNet,
    "ProtoNet, cosine": lambda: ProtoNet("cosine", 10.0, learn_scale=True),
    "ridge": lambda: Ridge(0.1),
    "logistic": Logistic,
}
each_learner = pytest.mark.parametrize("name", LEARNERS)


def plain(rows):
    return batch_loss(bind_loss(CrossEntropy()), {}, rows, torch.arange(N_WAY))


def adapt(learner, support, form="support"):
    """(network, meta parameters, adapted student)."""
    torch.manual_seed(1)
    net = make_episodic(SmoothConv4(N_WAY if learner.needs_head else 0).double(), form)
    learner.init_student_state(net)
    meta = {
        **with_prefix("student", detach(dict(net.named_parameters()))),
        **with_prefix("learner", detach(dict(learner.named_parameters()))),
    }
    return net, meta, learner.adapt(bind(net), meta, plain(support), support, N_WAY)


@each_learner
def test_an_adapted_student_answers_for_each_query_row(name):
    task = episode()
    _, _, adapted = adapt(LEARNERS[name](), task.support)
    answer = adapted.predict(task.query.x)
    assert answer.logits.shape == (N_WAY * QUERIES, N_WAY)


@each_learner
def test_adapting_makes_the_support_loss_smaller(name):
    task, learner = episode(), LEARNERS[name]()
    net, _, adapted = adapt(learner, task.support)
    loss = lambda z: torch.nn.functional.cross_entropy(z, task.support.y).item()  # noqa: E731
    after = loss(adapted.predict(task.support.x).logits)
    assert after < 0.9 * torch.tensor(float(N_WAY)).log()
    if learner.needs_head:
        assert after < 0.9 * loss(net(task.support.x).logits)


@each_learner
def test_adapting_leaves_its_arguments_as_they_are(name):
    task, learner = episode(), LEARNERS[name]()
    before = task.support.x.clone(), task.support.y.clone()
    net, meta, adapted = adapt(learner, task.support)
    kept = {n: p.clone() for n, p in meta.items()}
    state = {n: p.clone() for n, p in net.state_dict().items()}
    adapted = learner.adapt(bind(net), meta, plain(task.support), task.support, N_WAY)
    adapted.predict(task.query.x)
    assert torch.equal(task.support.x, before[0])
    assert torch.equal(task.support.y, before[1])
    assert all(torch.equal(meta[n], p) for n, p in kept.items())
    assert all(torch.equal(net.state_dict()[n], p) for n, p in state.items())


@each_learner
@pytest.mark.parametrize("form", ["support", "batch"])
def test_permuting_the_classes_permutes_the_answers(name, form):
    task, learner, order = episode(), LEARNERS[name](), torch.tensor([2, 0, 1])
    net, meta, adapted = adapt(learner, task.support, form)
    expected = adapted.predict(task.query.x).logits[:, order]
    moved = task.support._replace(y=order.argsort()[task.support.y])
    if learner.needs_head:  # a head that starts the same for all classes but permuted with them
        for part in ("weight", "bias"):
            meta[f"student.head.{part}"] = meta[f"student.head.{part}"][order]
    again = learner.adapt(bind(net), meta, plain(moved), moved, N_WAY)
    actual = again.predict(task.query.x).logits
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)  # L-BFGS stops there


@each_learner
def test_the_order_of_the_support_rows_does_not_matter(name):
    task, learner = episode(), LEARNERS[name]()
    order = torch.randperm(len(task.support.y))
    shuffled = task.support._replace(x=task.support.x[order], y=task.support.y[order])
    answers = [
        adapt(learner, rows)[2].predict(task.query.x).logits for rows in (task.support, shuffled)
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-8, atol=1e-10)


@each_learner
def test_with_support_statistics_a_query_row_does_not_see_the_others(name):
    task = episode()
    _, _, adapted = adapt(LEARNERS[name](), task.support)
    together = adapted.predict(task.query.x).logits
    alone = torch.cat([adapted.predict(row[None]).logits for row in task.query.x])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)


@each_learner
def test_in_half_precision_the_embedding_is_and_no_solver(name):
    task, learner = episode(), LEARNERS[name]()
    net = make_episodic(SmoothConv4(N_WAY if learner.needs_head else 0), "support")
    learner.init_student_state(net)
    meta = {
        **with_prefix("student", dict(net.named_parameters())),
        **with_prefix("learner", dict(learner.named_parameters())),
    }
    single = tree_map(lambda t: t.float() if t.is_floating_point() else t, task)
    losses = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            support_loss = plain(single.support)
            adapted = learner.adapt(bind(net), meta, support_loss, single.support, N_WAY)
            loss = mean_loss(plain(single.query), adapted.predict(single.query.x))
            slopes = torch.autograd.grad(loss, list(meta.values()), allow_unused=True)
        losses.append(loss.item())
        assert all(g is None or g.isfinite().all() for g in slopes)
    assert losses[1] == pytest.approx(losses[0], abs=0.4)  # the norms of six rows in 8 bits


def test_with_batch_statistics_it_does():
    task = episode()
    _, _, adapted = adapt(MAML(0.1, 2), task.support, "batch")
    together = adapted.predict(task.query.x).logits
    first = adapted.predict(task.query.x[:3]).logits
    assert (together[:3] - first).abs().max() > 1e-3


@pytest.mark.parametrize("name", [n for n in LEARNERS if LEARNERS[n]().outer_loss_is_query_loss])
def test_the_outer_loss_is_the_mean_of_what_is_asked(name):
    task, learner = episode(), LEARNERS[name]()
    _, meta, adapted = adapt(learner, task.support)
    actual = learner.outer_loss(meta, adapted, plain(task.query), task.query)
    logits = adapted.predict(task.query.x).logits
    expected = torch.nn.functional.cross_entropy(logits, task.query.y)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@each_learner
def test_only_what_adapts_the_body_changes_an_embedding(name):
    task, learner = episode(), LEARNERS[name]()
    net, meta, adapted = adapt(learner, task.support, "running")
    before = bind(net)(subtree(meta, "student"), task.query.x).embedding
    assert learner.adapts_body != torch.equal(adapted.predict(task.query.x).embedding, before)


DESCENDING = [MAML, MetaSGD, MAMLPlusPlus, Reptile, ProtoMAML]


@pytest.mark.parametrize("learner", DESCENDING)
def test_the_trajectory_has_a_point_for_each_step(learner):
    _, _, adapted = adapt(learner(0.1, 5), batch(6, (1, 8, 8)))
    assert len(adapted.trajectory) == 6


@pytest.mark.parametrize("learner", DESCENDING)
def test_evaluation_may_take_more_steps_than_training(learner):
    built = learner(0.1, 2, test_steps=4)
    rows = batch(6, (1, 8, 8))
    assert len(adapt(built.train(), rows)[2].trajectory) == 3
    assert len(adapt(built.eval(), rows)[2].trajectory) == 5
    assert len(adapt(learner(0.1, 2).eval(), rows)[2].trajectory) == 3


@pytest.mark.parametrize("learner", DESCENDING)
def test_a_student_that_takes_no_step_is_refused(learner):
    with pytest.raises(ValueError, match="inner_steps=0 must be 1 or more"):
        learner(0.1, 0, test_steps=5)
    with pytest.raises(ValueError, match="test_steps=0 must be 1 or more"):
        learner(0.1, 5, test_steps=0)


@pytest.mark.parametrize("learner", DESCENDING)
def test_a_rate_that_is_not_positive_is_refused(learner):
    with pytest.raises(ValueError, match=r"inner_lr=0\.0 must be positive"):
        learner(0.0)


def test_a_learner_that_does_not_say_what_kind_it_is_is_refused():
    class Silent(Learner):
        uses_inner_loss = needs_head = False

        def adapt(self, forward, meta, batch_loss, support, n_way):
            raise NotImplementedError

    with pytest.raises(ValueError, match="learner=Silent does not say adapts_body; set it to true"):
        meta_kd(Silent())
