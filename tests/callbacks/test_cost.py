import math
import time

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lightning_metakd.callbacks.cost import CostReport
from lightning_metakd.metrics.cost import (
    Shape,
    count_bytes,
    count_flops,
    count_macs,
    count_parameters,
    evaluating,
    input_shapes,
    latency,
    measure,
    one_like,
)
from tests.callbacks.tiny import Tiny, batches, trainer


def test_a_convolution_costs_its_textbook_count():
    # (out positions) * (out channels) * (in channels) * kernel^2
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert count_parameters(conv) == 8 * 3 * 9 + 8
    assert count_macs(conv, torch.zeros(1, 3, 10, 12)) == 10 * 12 * 8 * 3 * 9
    assert count_bytes(conv) == 4 * (8 * 3 * 9 + 8)


def test_macs_grow_with_the_rows_and_flops_are_two_macs():
    layer = nn.Linear(6, 4)
    assert count_macs(layer, torch.zeros(5, 6)) == 5 * 24
    assert count_flops(lambda: layer(torch.zeros(5, 6))) == 2 * 5 * 24


def test_an_inner_step_costs_its_backward_too():
    # one linear layer: forward x W (n*d*c), gradient in W (n*d*c); none in x
    layer, x = nn.Linear(6, 4), torch.zeros(5, 6)

    def step():
        torch.autograd.grad(layer(x).sum(), layer.weight)

    assert count_flops(step) == 2 * 2 * 5 * 24


def test_shared_weights_count_once_and_buffers_are_bytes_only():
    layer = nn.Linear(4, 4, bias=False)
    norm = nn.BatchNorm1d(4)  # weight, bias; running mean, variance in float32, count in int64
    assert count_parameters(nn.Sequential(layer, layer, norm)) == 16 + 8
    assert count_bytes(nn.Sequential(layer, layer, norm)) == 4 * (16 + 8 + 8) + 8


def test_latency_is_the_time_that_passes():
    def wait(x):
        time.sleep(0.002)
        return x

    median, p95 = latency(wait, torch.zeros(1))
    assert 2 <= median <= p95 < 200
    with pytest.raises(ValueError, match="repeats=5 must be 30 or more, as fewer have no 95th"):
        latency(wait, torch.zeros(1), repeats=5)


def test_measuring_leaves_modes_statistics_and_random_state_alone():
    net = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    cost = measure(net, torch.randn(1, 5, generator=torch.Generator().manual_seed(0)))
    assert [m.training for m in net] == [True, False, True]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert cost.macs == 25
    assert cost.flops == 50


def test_modes_come_back_after_an_error_too():
    net = nn.Dropout()
    with pytest.raises(KeyError), evaluating(net):
        raise KeyError
    assert net.training


def test_one_input_keeps_shape_and_type():
    image = one_like(Shape((7, 3, 2), torch.float64, torch.device("cpu")))
    assert (image.shape, image.dtype) == ((1, 3, 2), torch.float64)
    tokens = one_like(Shape((7, 4), torch.long, torch.device("cpu")))
    assert tokens.dtype == torch.long
    assert tokens.tolist() == [[1, 1, 1, 1]]  # zero would be padding


STUDENT_PARAMS, STUDENT_MACS = 5 * 4 + 4 * 3 + 3, 5 * 4 + 4 * 3


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_costs_reach_the_result_row_and_the_log(stage, tmp_path):
    module = Tiny()
    runner = trainer(tmp_path, CostReport())
    getattr(runner, stage)(module, batches())
    record = module.record.result
    assert record["student_params"] == STUDENT_PARAMS
    assert record["student_macs"] == STUDENT_MACS
    assert record["student_flops"] == 2 * STUDENT_MACS
    assert record["student_bytes"] == 4 * STUDENT_PARAMS
    assert record["teacher_params"] == 5 * 8 + 8 * 3 + 3
    assert record["teacher_macs"] == 5 * 8 + 8 * 3
    # 7 rows: both layers forward; head backward in weight and input, first layer in its weight
    assert record["adapt_flops"] == 2 * 7 * (20 + 12 + 12 + 12 + 20)
    assert record["latency_batch"] == 1
    assert 0 < record["latency_ms"] <= record["latency_p95_ms"]
    assert record["teacher_latency_ms"] > 0
    assert record["adapt_ms"] > 0
    assert record["peak_memory_bytes"] > 1e7
    logged = (tmp_path / "tiny" / "0" / "metrics.csv").read_text()
    assert logged.count("cost/student_flops") == 1
    assert f"{2 * STUDENT_MACS}" in logged


def test_costs_are_those_of_the_model_in_evaluation_mode_and_it_trains_on(tmp_path):
    class Modes(Tiny):
        def training_step(self, batch, index):
            assert self.student.training
            super().training_step(batch, index)

    module = Modes()
    trainer(tmp_path, CostReport()).fit(module, batches())
    assert not module.student._forward_pre_hooks
    assert math.isfinite(module.record.result["latency_ms"])


def test_a_rehearsal_measures_nothing(tmp_path):
    module = Tiny()
    trainer(tmp_path, CostReport(), fast_dev_run=True).fit(module, batches())
    assert module.record.result == {}


def test_too_few_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats=3 must be 30 or more, as fewer have no 95th"):
        CostReport(repeats=3)


@pytest.mark.parametrize("mapped", [False, True])
def test_input_shapes_are_seen_through_an_inner_loop(mapped):
    net, settings = Tiny().student, {}
    params = dict(net.named_parameters())

    def loss(p, x):
        return functional_call(net, p, (x,)).logits.square().mean()

    step = vmap(grad(loss), in_dims=(None, 0)) if mapped else grad(loss)
    with input_shapes([net], settings):
        step(params, torch.ones(2, 7, 5) if mapped else torch.ones(7, 5))
    assert settings[net] == (torch.Size([7, 5]), torch.float32, torch.device("cpu"))
    assert one_like(settings[net]).shape == (1, 5)
    assert not net._forward_pre_hooks
