import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torchvision.models import VisionTransformer

from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.inner_loop import descend, inner_gradient, mean_loss, step
from lightning_metakd.functional.params import (
    detach,
    detach_tree,
    select_rows,
    subtree,
    with_prefix,
)
from lightning_metakd.losses.loss import batch_loss
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.prototypes import class_means, one_hot
from lightning_metakd.models.wrapped import Wrapped
from lightning_metakd.types import BatchLoss, Forward, Output
from tests.tiny import N_WAY, SmoothConv4, answered, batch, gate_and_temperature


@pytest.fixture
def net():
    return make_episodic(SmoothConv4().double(), "support")


@pytest.fixture
def images():
    return answered(batch(9, (1, 8, 8)))


def leaves(module):
    return {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- bind ----------------------------------------------------------------------------------------


def test_a_bound_network_answers_with_the_parameters_that_it_is_given(net, images):
    other = {name: p + 0.1 for name, p in leaves(net).items()}
    actual = bind(net)(other, images.x).logits
    assert torch.equal(actual, functional_call(net, other, (images.x,)).logits)
    assert not torch.equal(actual, net(images.x).logits)
    assert isinstance(bind(net), Forward)


def test_a_bound_network_and_its_parameters_stay_as_they_are(net, images):
    state = {name: t.clone() for name, t in net.state_dict().items()}
    params = leaves(net)
    before = {name: p.detach().clone() for name, p in params.items()}
    bind(net).observe(params, images.x)
    assert equal(dict(net.state_dict()), state)
    assert equal(detach(params), before)
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_the_head_can_be_called_alone(net, images):
    params = leaves(net)
    answer = bind(net)(params, images.x)
    assert torch.equal(bind(net).classify(params, answer.embedding), answer.logits)


def test_a_batch_norm_that_would_remember_is_refused():
    with pytest.raises(
        ValueError, match=r"'norms.0' is a batch norm in training mode.*make_episodic"
    ):
        bind(SmoothConv4())
    bind(SmoothConv4().eval())


def test_with_the_statistics_of_the_support_each_row_is_answered_alone(net, images):
    forward, params = bind(net), leaves(net)
    _, statistics = forward.observe(params, images.x)
    fixed, query = {**params, **statistics}, batch(6, (1, 8, 8)).x
    together = forward(fixed, query).logits
    alone = torch.cat([forward(fixed, row[None]).logits for row in query])
    assert len(statistics) == 8  # mean and variance at each of four norms
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_the_support_rows_see_their_own_statistics_as_before(net, images):
    forward, params = bind(net), leaves(net)
    answer, statistics = forward.observe(params, images.x)
    again = forward({**params, **statistics}, images.x)
    torch.testing.assert_close(again.logits, answer.logits, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["batch", "running"])
def test_other_forms_have_no_statistics_to_hand_over(images, form):
    net = make_episodic(SmoothConv4().double(), form)
    assert bind(net).observe(leaves(net), images.x)[1] == {}


# --- dictionaries and rows -------------------------------------------------------------------------


def test_part_and_under_are_inverse():
    flat = {
        "student.a.b": torch.ones(1),
        "student.c": torch.zeros(1),
        "learner.rate": torch.ones(2),
    }
    assert list(subtree(flat, "student")) == ["a.b", "c"]
    assert equal(
        {
            **with_prefix("student", subtree(flat, "student")),
            **with_prefix("learner", subtree(flat, "learner")),
        },
        flat,
    )


def test_rows_takes_the_teachers_answers_along(images):
    chosen = select_rows(images, slice(2, 5))
    assert torch.equal(chosen.y, images.y[2:5])
    assert torch.equal(
        chosen.teacher_outputs[0].embedding, images.teacher_outputs[0].embedding[2:5]
    )


def test_stop_keeps_values_and_drops_graphs():
    leaf = torch.ones(2, 3, requires_grad=True)
    stopped = detach_tree(Output(2 * leaf, leaf, {"a": 3 * leaf}))
    assert not any(
        t.requires_grad for t in (stopped.logits, stopped.embedding, stopped.features["a"])
    )
    assert torch.equal(stopped.features["a"], 3 * leaf)


def test_class_means_are_means_of_classes():
    e, y = torch.randn(10, 4).double(), torch.tensor([0, 1, 2, 2, 1, 0, 0, 2, 1, 2])
    expected = torch.stack([e[y == c].mean(0) for c in range(3)])
    torch.testing.assert_close(class_means(e, y, 3), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(one_hot(y, 3), nn.functional.one_hot(y, 3).bool())


# --- steps -----------------------------------------------------------------------------------------


def test_a_step_takes_one_rate_or_one_per_name():
    params, grads = (
        {"a": torch.ones(2), "b": torch.ones(1)},
        {"a": torch.ones(2), "b": torch.ones(1)},
    )
    for rate in (0.5, torch.tensor(0.5), {"a": torch.tensor(0.5), "b": torch.tensor([0.5])}):
        assert equal(
            step(params, grads, rate), {"a": torch.full((2,), 0.5), "b": torch.full((1,), 0.5)}
        )


def told_by(loss, images):
    return batch_loss(bind_loss(loss), dict(loss.named_parameters()), images, torch.arange(N_WAY))


def test_the_gradient_of_a_teaching_loss_is_that_of_its_mean_with_the_coefficients_looking_on(
    net, images
):
    support_loss, params = told_by(gate_and_temperature(), images), leaves(net)
    progress = torch.tensor(0.2, dtype=torch.float64)
    output = bind(net)(params, images.x)
    loss = support_loss(output, detach_tree(output), progress).mean()
    expected = torch.autograd.grad(loss, list(params.values()))
    actual = inner_gradient(lambda p: bind(net)(p, images.x), params, support_loss, progress)
    for slope, other in zip(actual.values(), expected, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-9, atol=1e-12)


def test_descent_is_the_loop_that_one_would_write(net, images):
    support_loss, params = told_by(gate_and_temperature(), images), leaves(net)
    trajectory = descend(lambda p: bind(net)(p, images.x), params, support_loss, [0.1] * 3)
    at = params
    for k in range(3):
        output = bind(net)(at, images.x)
        loss = support_loss(
            output, detach_tree(output), torch.tensor(k / 3, dtype=torch.float64)
        ).mean()
        grads = torch.autograd.grad(loss, list(at.values()))
        at = {
            n: (p - 0.1 * g).detach().requires_grad_()
            for (n, p), g in zip(at.items(), grads, strict=True)
        }
        for name, p in trajectory[k + 1].items():
            torch.testing.assert_close(p, at[name], rtol=1e-9, atol=1e-12)
    assert equal(detach(trajectory[0]), detach(params))


def test_first_order_descent_goes_the_same_way(net, images):
    support_loss, params = told_by(gate_and_temperature(), images), leaves(net)
    ways = [
        descend(lambda p: bind(net)(p, images.x), params, support_loss, [0.1] * 3, first)[-1]
        for first in (False, True)
    ]
    for name in params:
        torch.testing.assert_close(ways[0][name], ways[1][name], rtol=1e-12, atol=1e-14)


def test_the_mean_of_a_teaching_loss_is_asked_at_the_end_of_a_task_unless_told_otherwise():
    output = Output(torch.zeros(2, 3), torch.zeros(2, 1))
    two = batch(2)
    requested = BatchLoss(
        lambda s, student, batch, context: context.progress.expand(2), {}, two, two.y
    )
    assert mean_loss(requested, output) == 1
    assert mean_loss(requested, output, torch.tensor(0.25)) == 0.25


def test_fused_attention_has_a_second_derivative():
    network = VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16)
    model = make_episodic(Wrapped(network, n_classes=3), "support").double()
    forward, x, y = bind(model), torch.randn(4, 3, 16, 16).double(), torch.tensor([0, 1, 2, 0])
    params = detach(dict(model.named_parameters()))
    name = "module.encoder.layers.encoder_layer_0.self_attention.in_proj_weight"

    def loss(at):
        return cross_entropy(forward(at, x).logits, y)

    def after_a_step(weight):
        at = {**params, name: weight}
        slopes = torch.func.grad(loss)(at)
        return loss({n: p - 0.1 * slopes[n] for n, p in at.items()})

    weight, direction = params[name], torch.randn_like(params[name])
    slope = (torch.func.grad(after_a_step)(weight) * direction).sum()
    ahead, behind = (after_a_step(weight + e * direction) for e in (1e-5, -1e-5))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)
