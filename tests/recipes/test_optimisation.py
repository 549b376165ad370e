import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_metakd.recipes.optimisation import SCHEDULES, Optimisation, decay_groups


@pytest.mark.parametrize(
    ("schedule", "begin", "end"),
    [("constant", 1.0, 1.0), ("cosine", 1.0, 0.0), ("one_cycle", 0.04, 0.0)],
)
def test_a_schedule_has_its_ends(schedule, begin, end):
    optimisation = Optimisation(schedule=schedule)
    assert optimisation.factor(0.0) == pytest.approx(begin, abs=1e-12)
    assert optimisation.factor(1.0) == pytest.approx(end, abs=1e-12)


def test_one_cycle_peaks_at_three_tenths():
    optimisation = Optimisation(schedule="one_cycle")
    assert optimisation.factor(0.3) == 1.0
    assert optimisation.factor(0.15) == pytest.approx(0.5)


def test_cosine_is_half_way_in_the_middle():
    assert Optimisation(schedule="cosine").factor(0.5) == pytest.approx(0.5)


def test_milestones_are_those_of_torch():
    optimisation = Optimisation(lr=0.05, milestones=(0.6, 0.8), gamma=0.5)
    weight = nn.Parameter(torch.ones(1))
    oracle = torch.optim.SGD([weight], lr=1.0)
    falls = torch.optim.lr_scheduler.MultiStepLR(oracle, [60, 80], gamma=0.5)
    for step in range(100):
        assert optimisation.factor(step / 100) == pytest.approx(oracle.param_groups[0]["lr"])
        oracle.step()
        falls.step()
    assert Optimisation(milestones=(0.5,)).factor(0.5) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"milestones": (0.8, 0.6)}, r"milestones=\[0.8, 0.6\] must ascend"),
        ({"milestones": (0.6, 60.0)}, r"milestones=60.0 .*less than 1"),
        ({"milestones": (0.6,), "schedule": "cosine"}, "schedule='cosine' has it fall by itself"),
        ({"gamma": 1.5}, r"gamma=1.5 .*less than 1"),
    ],
)
def test_milestones_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Optimisation(**settings)


def test_a_warmup_rises_linearly_to_the_schedule():
    optimisation = Optimisation(warmup=0.2)
    assert [optimisation.factor(p) for p in (0.0, 0.1, 0.2, 0.9)] == [0.0, 0.5, 1.0, 1.0]


def test_a_warmup_of_n_steps_begins_at_an_nth_of_the_peak():
    optimisation = Optimisation(warmup=0.5)
    assert [optimisation.factor(k / 8, 1 / 8) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    warmup=st.sampled_from([0.0, 0.1, 0.3]),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_rate_lies_between_zero_and_its_peak_and_falls_once_it_has_risen(schedule, warmup, at):
    optimisation, (early, late) = Optimisation(schedule=schedule, warmup=warmup), sorted(at)
    factors = optimisation.factor(early), optimisation.factor(late)
    assert all(0 <= f <= 1 for f in factors)
    if early >= 0.3:
        assert factors[0] >= factors[1]


def test_weights_decay_and_norms_and_biases_do_not():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights, others = decay_groups(dict(net.named_parameters()), 0.1, 0.01)
    assert [tuple(p.shape) for p in weights["params"]] == [(3, 2)]
    assert (weights["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert len(others["params"]) == 3


@pytest.mark.parametrize(
    ("name", "kind", "setting", "value"),
    [
        ("sgd", torch.optim.SGD, "momentum", 0.7),
        ("adam", torch.optim.Adam, "betas", (0.7, 0.999)),
        ("adamw", torch.optim.AdamW, "betas", (0.7, 0.999)),
    ],
)
def test_an_optimiser_is_built_with_the_peak_rate_of_each_group(name, kind, setting, value):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.3, 0.01)]
    built = Optimisation(lr=0.3, optimiser=name, momentum=0.7).build(groups)
    assert type(built) is kind
    assert [group["peak_lr"] for group in built.param_groups] == [0.3, 0.01]
    assert built.param_groups[0][setting] == value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", 0.0, "positive and finite"),
        ("warmup", 1.0, "at least 0 and less than 1"),
        ("warmup", -0.1, "at least 0 and less than 1"),
        ("grad_clip", 0.0, "positive and finite, or null"),
        ("ema_decay", 1.0, "positive and less than 1, or null"),
    ],
)
def test_a_setting_outside_of_its_range_is_refused(name, value, message):
    with pytest.raises(ValueError, match=rf"optimisation\.{name}={value} must be {message}"):
        Optimisation(**{name: value})
