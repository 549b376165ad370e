from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from lightning_metakd.functional.bind import bind
from lightning_metakd.models.model import Maps, Model
from lightning_metakd.models.norm import (
    EpisodicNorm,
    LayerNorm,
    NormForm,
    make_episodic,
    norm_and_pool,
    untrained_statistics,
)
from lightning_metakd.models.norm_contexts import fused_norms, update_running_statistics
from lightning_metakd.types import Params

N_WAY, TASKS, LR = 3, 3, 0.5
Task = tuple[Tensor, Tensor, Tensor, Tensor]
Objective = Callable[[Params, Task], Tensor]


class Smooth(Model):
    """Convolution, norm, softplus, average pooling: differences need a net without kinks."""

    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1), norm()
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), norm()
        self.head = nn.Linear(4, N_WAY)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        x = nn.functional.softplus(self.norm1(self.conv1(x)))
        x = nn.functional.avg_pool2d(x, 2)
        x = nn.functional.softplus(self.norm2(self.conv2(x)))
        return x.mean((2, 3)), {}


def batch_norm() -> nn.Module:
    """With weights and statistics that are not the trivial ones."""
    norm = nn.BatchNorm2d(4)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


def network(norm: Callable[[], nn.Module] = batch_norm, form: NormForm | None = None) -> Smooth:
    torch.manual_seed(0)
    net = Smooth(norm).double()
    if form:
        make_episodic(net, form)
    return net


def episodes() -> Task:
    torch.manual_seed(1)
    y = torch.arange(N_WAY).repeat(TASKS, 2)
    x = torch.randn(2, TASKS, 2 * N_WAY, 1, 8, 8, dtype=torch.float64)
    return x[0], y, x[1], y


def adapts(net: Model) -> Objective:
    """The query loss after one inner step, with the statistics which the form prescribes."""
    forward = bind(net)

    def objective(params: Params, task: Task) -> Tensor:
        x, y, query_x, query_y = task
        slope = grad(lambda p: cross_entropy(forward(p, x).logits, y))(dict(params))
        adapted = {name: p - LR * slope[name] for name, p in params.items()}
        _, statistics = forward.observe(adapted, x)
        return cross_entropy(forward({**adapted, **statistics}, query_x).logits, query_y)

    return objective


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().requires_grad_() for name, p in net.named_parameters()}


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def by_loop(objective: Objective, params: Params) -> Tensor:
    single = [tuple(leaf[k] for leaf in episodes()) for k in range(TASKS)]
    total = torch.stack([objective(params, task) for task in single]).sum()
    return flat(torch.autograd.grad(total, list(params.values())))


def by_vmap(objective: Objective, params: Params) -> Tensor:
    total = vmap(objective, (None, 0))(params, episodes()).sum()
    return flat(torch.autograd.grad(total, list(params.values())))


def difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("form", ["support", "running", "batch"])
def test_meta_gradient_equals_central_differences(form: NormForm) -> None:
    net = network(form=form)
    objective, params = adapts(net), parameters(net)
    direction = {name: torch.randn_like(p) for name, p in params.items()}

    def at(h: float) -> float:
        moved = {name: (p + h * direction[name]).detach() for name, p in params.items()}
        single = [tuple(leaf[k] for leaf in episodes()) for k in range(TASKS)]
        return sum(objective(moved, task).item() for task in single)

    h = 1e-5
    slope = by_loop(objective, params) @ flat(tuple(direction.values()))
    assert slope.item() == pytest.approx((at(h) - at(-h)) / (2 * h), rel=1e-7)


@pytest.mark.parametrize("form", ["support", "running", "batch"])
def test_vmap_gives_the_meta_gradient_of_the_loop(form: NormForm) -> None:
    net = network(form=form)
    objective, params = adapts(net), parameters(net)
    assert difference(by_vmap(objective, params), by_loop(objective, params)) < 1e-10


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


NORMS_OF_TORCH: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": ChannelNorm,
}


@pytest.mark.parametrize("kind", NORMS_OF_TORCH)
def test_converted_norms_of_torch_agree_with_the_loop_under_vmap(kind: str) -> None:
    plain = network(NORMS_OF_TORCH[kind])
    expected = by_loop(adapts(plain), parameters(plain))
    net = network(NORMS_OF_TORCH[kind], "batch")
    assert difference(by_vmap(adapts(net), parameters(net)), expected) < 1e-10


@pytest.mark.parametrize("kind", ["batch", "instance", "layer"])
def test_unconverted_norms_of_torch_are_wrong_under_vmap(kind: str) -> None:
    """Why this file exists; the day this fails, torch has been repaired and `nn` norms will do."""
    net = network(NORMS_OF_TORCH[kind])
    objective, params = adapts(net), parameters(net)
    assert difference(by_vmap(objective, params), by_loop(objective, params)) > 1e-6


def test_support_form_answers_each_query_row_alone() -> None:
    net = network(form="support")
    forward, params = bind(net), parameters(net)
    x, _, query, _ = (leaf[0] for leaf in episodes())
    _, statistics = forward.observe(params, x)
    together = forward({**params, **statistics}, query).logits
    alone = torch.cat([forward({**params, **statistics}, row[None]).logits for row in query])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert difference(forward(params, query).logits, together) > 1e-3


def test_observe_answers_the_support_as_the_joined_statistics_do() -> None:
    net = network(form="support")
    forward, params = bind(net), parameters(net)
    x = episodes()[0][0]
    output, statistics = forward.observe(params, x)
    assert set(statistics) == {"norm1.mean", "norm1.var", "norm2.mean", "norm2.var"}
    torch.testing.assert_close(forward({**params, **statistics}, x).logits, output.logits)


def test_running_form_equals_batch_norm_in_eval_mode() -> None:
    x = episodes()[0][0]
    expected = network().eval()(x).logits
    torch.testing.assert_close(network(form="running")(x).logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["support", "batch"])
def test_batch_statistics_equal_those_of_torch_in_training(form: NormForm) -> None:
    torch.manual_seed(0)
    norm = batch_norm().double()
    x = torch.randn(5, 4, 6, 6, dtype=torch.float64)
    expected = nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    actual = make_episodic(norm, form)(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def halves(x: Tensor) -> Tensor:
    return nn.functional.max_pool2d(x, 2)


@pytest.mark.parametrize("form", ["support", "running", "batch"])
def test_maxima_are_the_same_before_weights_of_either_sign(form: NormForm) -> None:
    norm = batch_norm().double()
    with torch.no_grad():  # a weight of 0 would leave every value as the largest
        norm.weight.copy_(torch.tensor([1.3, -0.7, 0.4, -1.1]))
    norm = make_episodic(norm, form)
    x, to = torch.randn(5, 4, 6, 6).double().requires_grad_(), torch.randn(5, 4, 3, 3).double()
    leaves, recorded = (x, norm.weight, norm.bias), []
    for answer in (halves(norm(x)), norm_and_pool(norm, x, halves)):
        slopes = torch.autograd.grad((answer * to).sin().sum(), leaves, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in slopes), leaves)
        recorded.append((answer, *slopes, *again))
    for one, other in zip(*recorded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_other_norms_are_pooled_after_them() -> None:
    norm, x = batch_norm().eval(), torch.randn(5, 4, 6, 6)
    assert torch.equal(norm_and_pool(norm, x, halves), halves(norm(x)))


@pytest.mark.parametrize("form", ["support", "running", "batch"])
@pytest.mark.parametrize("training", [True, False])
def test_no_form_mutates_a_buffer(form: NormForm, training: bool) -> None:
    net = network(form=form).train(training)
    before = {name: b.clone() for name, b in net.named_buffers()}
    by_vmap(adapts(net), parameters(net))
    net(episodes()[0][0])
    assert all(torch.equal(b, before[name]) for name, b in net.named_buffers())


def test_bind_refuses_a_batch_norm_that_would_write_its_statistics() -> None:
    with pytest.raises(
        ValueError, match=r"'norm1' is a batch norm in training mode.*make_episodic"
    ):
        bind(network())
    bind(network().eval())


@pytest.mark.parametrize("form", ["support", "running", "batch"])
def test_a_converted_network_loads_an_unconverted_checkpoint(form: NormForm) -> None:
    checkpoint = network().state_dict()
    net = make_episodic(Smooth(lambda: nn.BatchNorm2d(4)).double(), form)
    assert net.state_dict().keys() == checkpoint.keys()
    net.load_state_dict(checkpoint)
    x = episodes()[0][0]
    assert torch.equal(net(x).logits, network(form=form)(x).logits)
    Smooth(lambda: nn.BatchNorm2d(4)).double().load_state_dict(net.state_dict())


def test_converting_again_changes_the_form() -> None:
    net = make_episodic(network(form="support"), "running")
    x = episodes()[0][0]
    assert torch.equal(net(x).logits, network(form="running")(x).logits)


def test_conversion_reaches_nested_shared_and_outermost_norms() -> None:
    norm = nn.BatchNorm1d(2)
    net = make_episodic(nn.Sequential(norm, nn.Sequential(nn.Linear(2, 2), norm)), "batch")
    kinds = [type(layer) for layer in net.modules()]
    assert kinds.count(EpisodicNorm) == 2
    assert isinstance(make_episodic(nn.BatchNorm2d(3), "batch"), EpisodicNorm)


def test_a_norm_without_weights_is_converted() -> None:
    x = torch.randn(4, 3)
    norm = nn.BatchNorm1d(3, affine=False)
    expected = norm(x)
    torch.testing.assert_close(make_episodic(norm, "batch")(x), expected)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_layer_norm_is_that_of_torch(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm((5, 4), **options)
    for p in norm.parameters():
        nn.init.uniform_(p)
    x = torch.randn(3, 5, 4)
    converted = make_episodic(norm, "support")
    assert isinstance(converted, LayerNorm)
    torch.testing.assert_close(converted(x), norm(x))


def test_hard_sigmoid_is_that_of_torch_and_twice_differentiable() -> None:
    x = torch.linspace(-5, 5, 50, dtype=torch.float64, requires_grad=True)
    hard = make_episodic(nn.Sequential(nn.Hardsigmoid()), "support")
    torch.testing.assert_close(hard(x), nn.functional.hardsigmoid(x))
    assert torch.autograd.gradgradcheck(lambda x: hard(x).square(), (x,))
    with pytest.raises(RuntimeError, match="hardsigmoid_backward is not implemented"):
        torch.autograd.gradgradcheck(lambda x: nn.functional.hardsigmoid(x).square(), (x,))


@pytest.mark.parametrize("passing", [fused_norms, nullcontext])
def test_tracked_statistics_are_those_that_torch_keeps(passing) -> None:
    norm = nn.BatchNorm2d(4)
    tracked = make_episodic(deepcopy(norm), "tracked")
    x, other = 2 + torch.randn(8, 4, 6, 6), torch.randn(8, 4, 6, 6)
    with update_running_statistics(tracked, lambda mean: mean), passing(tracked):
        torch.testing.assert_close(tracked(x), norm(x))
    tracked(other)  # outside nothing is remembered
    torch.testing.assert_close(tracked.running_mean, norm.running_mean)
    torch.testing.assert_close(tracked.running_var, norm.running_var)
    torch.testing.assert_close(tracked.eval()(other), norm.eval()(other))


@pytest.mark.parametrize("momentum", [0.01, 0.5, None])
def test_tracked_statistics_follow_by_the_momentum_of_the_norm(momentum) -> None:
    norm = nn.BatchNorm2d(4, momentum=momentum)
    tracked = make_episodic(deepcopy(norm), "tracked")
    for _ in range(3):
        x = 2 + torch.randn(8, 4, 6, 6)
        with update_running_statistics(tracked, lambda mean: mean):
            torch.testing.assert_close(tracked(x), norm(x))
    for name, expected in norm.state_dict().items():
        torch.testing.assert_close(tracked.state_dict()[name], expected)


@pytest.mark.parametrize("form", ["support", "batch", "tracked"])
def test_a_single_value_is_its_own_mean_in_one_kernel_too(form: NormForm) -> None:
    episodic = make_episodic(nn.BatchNorm1d(4), form)
    with fused_norms(episodic):
        assert episodic(torch.randn(1, 4)).equal(torch.zeros(1, 4))


def test_statistics_that_no_training_has_set_are_named() -> None:
    net = make_episodic(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), "running")
    net[1].running_mean.fill_(0.1)
    assert untrained_statistics(net) == ["0"]
    assert untrained_statistics(make_episodic(net, "support")) == []


def test_tracked_statistics_go_one_way_for_all_passes_of_a_step() -> None:
    tracked = make_episodic(nn.BatchNorm2d(4), "tracked")
    x = torch.randn(2, 8, 4, 6, 6)
    with update_running_statistics(tracked, lambda mean: mean):
        for part in x:
            tracked(part)
    torch.testing.assert_close(tracked.running_mean, 0.1 * x.mean((0, 1, 3, 4)))


@pytest.mark.parametrize("passing", [fused_norms, nullcontext])
def test_half_precision_takes_its_statistics_in_single(passing) -> None:
    x = 30 + torch.randn(8, 4, 6, 6).bfloat16()
    expected = nn.BatchNorm2d(4)(x)
    episodic = make_episodic(nn.BatchNorm2d(4), "batch")
    with passing(episodic):
        actual = episodic(x)
    assert actual.dtype == torch.bfloat16
    # one unit in the last place of bfloat16
    torch.testing.assert_close(actual, expected, rtol=2**-7, atol=2**-7)


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_form_names_the_choices() -> None:
    with pytest.raises(
        ValueError, match="norm='frozen' is unknown; choose one of support, running"
    ):
        make_episodic(network(), "frozen")


def test_norms_without_a_form_for_inner_loops_are_refused_before_anything_changes() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"norm='running' needs .* but '1' tracks none"):
        make_episodic(net, "running")
    assert isinstance(net[0], nn.BatchNorm2d)
    with pytest.raises(ValueError, match="'0' is an instance norm with running statistics"):
        make_episodic(nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True)), "batch")

    class Odd(nn.LayerNorm):
        pass

    with pytest.raises(ValueError, match=r"'0' is a Odd.*models.norm.LayerNorm"):
        make_episodic(nn.Sequential(Odd(4)), "batch")
