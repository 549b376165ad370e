import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metakd.losses.hinton import kd_loss
from lightning_metakd.losses.logit_standardisation import (
    LogitStandardisation,
    logit_standardisation_loss,
    standardised,
)

TWO = torch.tensor(2.0, dtype=torch.float64)


def logits(n=6, c=4):
    return 3 * torch.randn(n, c, dtype=torch.float64)


def by_numpy(student, teacher, temperature):
    def softened(z):
        e = np.exp((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True) / temperature)
        return e / e.sum(1, keepdims=True)

    p, q = softened(teacher.numpy()), softened(student.numpy())
    return temperature**2 * np.sum(p * np.log(p / q), axis=1)


@pytest.mark.parametrize("temperature", [0.7, 2.0, 10.0])
def test_it_is_the_divergence_of_softened_z_scores(temperature):
    student, teacher = logits(), logits()
    actual = logit_standardisation_loss(student, teacher, TWO.new_tensor(temperature))
    expected = by_numpy(student, teacher, temperature)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_papers_toy_case():
    """Figure 2: a wrong student near the teacher's logits loses 0.0995, one with its relations nothing."""
    teacher = torch.tensor(
        [[-1.162, 1.162, 0.387, -0.387]], dtype=torch.float64
    )  # cat dog bird frog
    wrong = torch.tensor([[-1.320, 0.660, 0.880, -0.22]], dtype=torch.float64)
    t = TWO.new_tensor((4 / 3) ** 0.5)  # the figure's deviations are divided by c - 1
    wrong_loss = logit_standardisation_loss(wrong, teacher, t) / t**2
    assert wrong_loss.item() == pytest.approx(0.0995, abs=1e-4)
    assert logit_standardisation_loss(3 * teacher - 7, teacher, t).abs() < 1e-12


@given(shift=st.floats(-20, 20), scale=st.floats(0.05, 50))
@settings(max_examples=20, deadline=None)
def test_shift_and_scale_of_a_row_do_not_matter(shift, scale):
    torch.manual_seed(0)
    student, teacher = logits(), logits()
    actual = logit_standardisation_loss(scale * student + shift, teacher, TWO)
    expected = logit_standardisation_loss(student, teacher, TWO)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-12)


def test_it_is_hintons_loss_with_temperatures_of_each_row_and_network():
    student, teacher = logits(), logits()
    scaled = [z / z.std(1, correction=0, keepdim=True) for z in (student, teacher)]
    actual = logit_standardisation_loss(student, teacher, TWO)
    torch.testing.assert_close(actual, kd_loss(*scaled, TWO), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.3, 1e4])
def test_a_row_of_equal_logits_is_pulled_to_the_teacher_as_hintons_loss_would(dtype, level):
    teacher = standardised(logits(1).to(dtype))
    flat = torch.full((1, 4), level, dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(
        logit_standardisation_loss(flat, teacher, TWO.to(dtype)).sum(), flat, create_graph=True
    )
    (curvature,) = torch.autograd.grad(slope.square().sum(), flat)
    expected = 2 * (0.25 - (teacher / 2).softmax(1))
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-5, atol=1e-5)  # float32
    assert curvature.isfinite().all()


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"temperature=0.0 must be positive and finite"):
        LogitStandardisation(0.0)
