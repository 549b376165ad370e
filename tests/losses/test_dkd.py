import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad

from lightning_metakd.losses.dkd import DKD, dkd_terms
from lightning_metakd.losses.hinton import kd_loss
from tests.tiny import answered, batch, context, student_answer

ROWS, CLASSES = 6, 4
Y = torch.arange(ROWS) % CLASSES


def logits(seed):
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(ROWS, CLASSES, dtype=torch.float64, generator=draw)


def at(temperature):
    return torch.tensor(temperature, dtype=torch.float64)


def by_numpy(student, teacher, temperature):
    """Row by row, with logarithms of probabilities."""
    recorded = []
    for s, t, true in zip(student.numpy(), teacher.numpy(), Y.numpy(), strict=True):
        q, p = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (s, t))
        pair = [np.array([x[true], 1 - x[true]]) for x in (q, p)]
        rest = [np.delete(x, true) / (1 - x[true]) for x in (q, p)]
        recorded.append([np.sum(b * np.log(b / a)) for a, b in (pair, rest)])
    return temperature**2 * np.array(recorded).T


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_its_terms_are_the_divergences_of_the_pair_and_of_the_rest(temperature):
    actual = dkd_terms(logits(0), logits(1), Y, at(temperature))
    expected = by_numpy(logits(0), logits(1), temperature)
    np.testing.assert_allclose(torch.stack(actual).numpy(), expected, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.3, 30))
@settings(max_examples=30, deadline=None)
def test_the_whole_divergence_is_that_of_the_pair_and_the_rest_where_the_class_is_not_true(
    seed, temperature
):
    student, teacher, t = logits(seed), logits(seed + 1), at(temperature)
    target, rest = dkd_terms(student, teacher, Y, t)
    untrue = 1 - (teacher / t).softmax(1)[torch.arange(ROWS), Y]
    torch.testing.assert_close(
        target + untrue * rest, kd_loss(student, teacher, t), rtol=1e-9, atol=1e-12
    )


def test_two_classes_have_no_others_to_be_told_apart():
    student, teacher = logits(0)[:, :2], logits(1)[:, :2]
    target, rest = dkd_terms(student, teacher, Y % 2, at(2.0))
    assert (rest == 0).all()
    torch.testing.assert_close(target, kd_loss(student, teacher, at(2.0)))


def test_a_sure_teacher_does_not_silence_what_it_says_of_the_others():
    student, teacher = (logits(seed) + 1e4 * torch.eye(CLASSES)[Y] for seed in (0, 1))
    of_rest = grad(lambda z: dkd_terms(z, teacher, Y, at(1.0))[1].sum())(student)
    of_whole = grad(lambda z: kd_loss(z, teacher, at(1.0)).sum())(student)
    assert of_rest.abs().max() > 0.1
    assert of_whole.abs().max() == 0


def test_it_weighs_the_two_terms():
    rows = answered(batch(9))
    student = student_answer(rows)
    actual = DKD(0.5, 3.0, 2.0)(student, rows, context(rows, student))
    target, rest = dkd_terms(student.logits, rows.teacher_outputs[0].logits, rows.y, at(2.0))
    torch.testing.assert_close(actual, 0.5 * target + 3 * rest, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_negative_weight_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}=-1.0 must be at least 0 and finite"):
        DKD(**{name: -1.0})
