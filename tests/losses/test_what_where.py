import math

import numpy as np
import pytest
import torch
from torch.func import grad

from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.layer_pairs import LayerPair, hint_name, with_teacher_layer
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import WeightedSum
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.what_where import (
    LearnedPerChannel,
    LearnedPerMap,
    UniformChannels,
    WhatWhere,
    by_channel,
    channel_loss,
)
from tests.tiny import answered, batch, context, perturbed, student_answer

ROWS = 5
ALL = {"low": ["low", "high"], "high": ["low"]}


@pytest.fixture
def rows():
    return answered(batch(ROWS))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def of(loss, student, rows):
    return loss(student, rows, context(rows, student))


def learned_weights(layers=None):
    layers = {"low": ["low"], "high": ["low"]} if layers is None else layers
    return WhatWhere(layers, LearnedPerMap(6), LearnedPerChannel(6)).double()


def by_loops(loss, student, rows):
    """lambda / (h w) sum_c w_c sum_ij (r(F) - G)^2, with the numbers of the loss."""
    target = rows.teacher_outputs[0].features["low"].numpy()
    numbers = {name: p.detach().numpy() for name, p in loss.named_parameters()}
    actual = np.zeros(ROWS)
    for name in ("low", "high"):
        hint = student.hints[hint_name(0, name, "low")].numpy()
        size = hint.shape[-1]
        recorded = target.reshape(ROWS, 6, size, 4 // size, size, 4 // size).mean((3, 5))
        for i in range(ROWS):
            g = target[i].mean((1, 2))
            z = numbers[f"channels.{name}>low.net.weight"] @ g
            z = z + numbers[f"channels.{name}>low.net.bias"]
            w = np.exp(z) / np.exp(z).sum()
            where = numbers[f"weights.{name}>low.net.weight"][0] @ g
            where = min(max(where + numbers[f"weights.{name}>low.net.bias"][0], 0.0), 6.0)
            for c in range(6):
                squares = ((hint[i, c] - recorded[i, c]) ** 2).sum()
                actual[i] += where * w[c] * squares / size**2
    return actual


def test_it_is_the_sum_over_pairs_of_weighted_channels(rows, student):
    for loss in (learned_weights(), perturbed(learned_weights())):
        actual = of(loss, student, rows).detach()
        np.testing.assert_allclose(actual, by_loops(loss, student, rows), rtol=1e-9)


def test_it_starts_with_uniform_channels_and_weights_of_one(rows, student):
    plain = of(WhatWhere(ALL), student, rows)
    hints = [
        (student.hints[hint_name(0, s, t)], rows.teacher_outputs[0].features[t])
        for s, t in (("low", "low"), ("low", "high"), ("high", "low"))
    ]
    low = (hints[0][0] - hints[0][1]).square().mean((1, 2, 3))
    one = of(WhatWhere({"low": ["low"]}), student, rows)
    torch.testing.assert_close(one, low, rtol=1e-12, atol=0)
    start = WhatWhere(
        ALL,
        {"low": LearnedPerMap(6), "high": LearnedPerMap(7)},
        {"low": LearnedPerChannel(6), "high": LearnedPerChannel(7)},
    ).double()
    torch.testing.assert_close(of(start, student, rows), plain, rtol=1e-12, atol=0)


def test_every_kind_of_weight_stands_in_the_same_place(rows, student):
    plain = of(WhatWhere(ALL), student, rows)
    for weights in (0.5, Learned(0.5), LearnedPerSample(init=0.5)):
        actual = of(WhatWhere(ALL, weights).double(), student, rows)
        torch.testing.assert_close(actual, 0.5 * plain, rtol=1e-6, atol=0)  # raw values are single


def test_it_reads_all_pairs_at_the_teachers_width():
    assert list(WhatWhere(ALL).layer_pairs(2)) == [
        LayerPair(2, "low", "low", True),
        LayerPair(2, "low", "high", True),
        LayerPair(2, "high", "low", True),
    ]


def test_channels_are_weighed_by_the_teachers_map_alone(rows, student):
    loss = perturbed(learned_weights())
    other = student_answer(rows)
    before = {}
    for answer in (student, other):
        for name, c in loss.channels.items():
            w = c(with_teacher_layer(rows, "low"), context(rows, answer))
            torch.testing.assert_close(w.sum(1), torch.ones(ROWS).double(), rtol=1e-12, atol=0)
            assert w.std(0).min() > 0
            assert torch.equal(before.setdefault(name, w), w)


def test_every_number_of_the_strategy_has_a_gradient(rows, student):
    loss = learned_weights()
    slopes = grad(lambda p: bind_loss(loss)(p, student, rows, context(rows, student)).sum())(
        dict(loss.named_parameters())
    )
    assert all(slope.any() for slope in slopes.values())


def test_a_weight_above_six_or_below_zero_is_cut(rows):
    weight = learned_weights({"low": ["low"]}).weights["low>low"]
    for bias, expected in ((7.0, 6.0), (-1.0, 0.0), (2.5, 2.5)):
        with torch.no_grad():
            weight.net.bias.fill_(bias)
        actual = weight(with_teacher_layer(rows, "low"), context(rows, rows.teacher_outputs[0]))
        assert actual.tolist() == [expected] * ROWS


def test_a_hint_that_is_the_target_has_nothing_to_learn():
    target = torch.randn(3, 4, 2, 2).double()
    channels = torch.rand(3, 4).double()
    assert not channel_loss(target, target, channels).any()


@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (3, 4), (3, 10, 4)])
def test_maps_vectors_and_tokens_have_channels_and_positions(shape):
    x = torch.randn(shape)
    actual = by_channel(x)
    assert actual.shape[:2] == (3, 4)
    dims = {4: (2, 3), 3: (1,), 2: ()}[len(shape)]
    expected = x.mean(dims) if dims else x
    torch.testing.assert_close(actual.mean(2), expected)


def test_uniform_channels_add_up_to_one(rows):
    actual = UniformChannels()(
        with_teacher_layer(rows, "low"), context(rows, rows.teacher_outputs[0])
    )
    assert actual.tolist() == [1 / 6] * 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WhatWhere({}), "layers names no layers to compare"),
        (lambda: WhatWhere({"low": []}), "layers names no layers to compare"),
        (
            lambda: WhatWhere(ALL, channels={"middle": LearnedPerChannel(4)}),
            "channels names middle, but the teacher's layers are high, low; rename",
        ),
        (
            lambda: WhatWhere(ALL, LearnedPerMap(6, init=6.0)),
            "init=6.0 must be positive and less than 6",
        ),
        (
            lambda: WhatWhere(ALL, LearnedPerMap(6, init=-1.0)),
            "init=-1.0 must be positive and less than 6",
        ),
        (lambda: MatchGate(LearnedPerMap(6)), r"is to start at 0.5 in \(0.0, 1.0\); use it for"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [LearnedPerMap, LearnedPerChannel])
def test_another_width_is_told(kind, rows, student):
    settings = {"weights" if kind is LearnedPerMap else "channels": kind(64)}
    message = (
        rf"channels=64 of {kind.__name__} is not the width of the teacher's 'low'; set it to 6"
    )
    with pytest.raises(ValueError, match=message):
        of(WhatWhere({"low": ["low"]}, **settings).double(), student, rows)


def test_a_weight_of_layers_elsewhere_is_told(rows, student):
    loss = WeightedSum({"soft": Hinton()}, {"soft": LearnedPerMap(6)})
    with pytest.raises(
        ValueError, match=r"LearnedPerMap looks at one layer .* and there are 2; use"
    ):
        of(loss, student, rows)


def test_a_hint_of_another_shape_is_refused(as_users_run_it):
    with pytest.raises(
        ValueError, match=r"hint \(2, 4, 3, 3\) and target \(2, 5, 3, 3\) must have"
    ):
        channel_loss(torch.zeros(2, 4, 3, 3), torch.zeros(2, 5, 3, 3), torch.ones(5))


def test_it_starts_at_a_given_weight():
    weight = WhatWhere({"low": ["low"]}, LearnedPerMap(6, init=2.0)).weights["low>low"]
    assert math.isclose(weight.net.bias.item(), 2.0)
