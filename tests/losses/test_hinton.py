import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton, kd_loss
from lightning_metakd.types import Output
from tests.tiny import answered, batch, context

ROWS, CLASSES = 6, 4


def logits(seed, n=ROWS, c=CLASSES, scale=3.0):
    return scale * torch.randn(
        n, c, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def by_numpy(student, teacher, temperature):
    def softened(z):
        e = np.exp((z - z.max(1, keepdims=True)) / temperature)
        return e / e.sum(1, keepdims=True)

    p, q = softened(teacher.numpy()), softened(student.numpy())
    return temperature**2 * np.sum(p * np.log(p / q), axis=1)


def at(temperature):
    return torch.tensor(temperature, dtype=torch.float64)


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.3, 30))
@settings(max_examples=30, deadline=None)
def test_it_is_the_divergence_summed_over_classes_times_the_squared_temperature(seed, temperature):
    student, teacher = logits(seed), logits(seed + 1)
    actual = kd_loss(student, teacher, at(temperature)).numpy()
    np.testing.assert_allclose(
        actual, by_numpy(student, teacher, temperature), rtol=1e-9, atol=1e-12
    )


def test_a_hot_temperature_matches_centred_logits():
    # T^2 KL -> |centred difference|^2 / (2 C), whose gradient is that difference over C
    student, teacher = logits(0), logits(1)
    slope = grad(lambda z: kd_loss(z, teacher, at(1e6)).sum())(student)
    centred = [z - z.mean(1, keepdim=True) for z in (student, teacher)]
    expected = (centred[0] - centred[1]) / CLASSES
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-5)  # O(|z|^2 / T)


def test_its_gradient_is_the_temperature_times_the_difference_of_softened_distributions():
    student, teacher = logits(0), logits(1)
    slope = grad(lambda z: kd_loss(z, teacher, at(3.0)).sum())(student)
    expected = 3 * ((student / 3).softmax(1) - (teacher / 3).softmax(1))
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0])
def test_a_student_that_answers_as_its_teacher_loses_nothing(temperature):
    same = logits(0)
    loss = kd_loss(same, same, at(temperature))
    slope = grad(lambda z: kd_loss(z, same, at(temperature)).sum())(same)
    assert loss.abs().max() < 1e-14
    assert slope.abs().max() < 1e-12


def test_a_constant_on_all_logits_of_a_row_changes_nothing():
    student, teacher = logits(0), logits(1)
    moved = kd_loss(student + 7, teacher - 3, at(2.0))
    torch.testing.assert_close(moved, kd_loss(student, teacher, at(2.0)), rtol=1e-12, atol=0)


def test_each_row_may_have_its_own_temperature():
    student, teacher = logits(0), logits(1)
    temperatures = torch.linspace(0.5, 5, ROWS, dtype=torch.float64)
    single = [
        kd_loss(student[i : i + 1], teacher[i : i + 1], t) for i, t in enumerate(temperatures)
    ]
    torch.testing.assert_close(kd_loss(student, teacher, temperatures), torch.cat(single))


def test_the_order_of_the_classes_does_not_matter():
    student, teacher, order = logits(0), logits(1), torch.randperm(CLASSES)
    actual = kd_loss(student[:, order], teacher[:, order], at(2.0))
    torch.testing.assert_close(actual, kd_loss(student, teacher, at(2.0)), rtol=1e-12, atol=0)


def test_teacher_and_student_must_answer_for_the_same_classes(as_users_run_it):
    with pytest.raises(ValueError, match=r"student_logits \(6, 4\) and teacher_logits \(6, 3\)"):
        kd_loss(logits(0), logits(1, c=3), at(1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_logits_give_finite_values_and_gradients(dtype):
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype=dtype)
    teacher = -student
    value = kd_loss(student, teacher, student.new_tensor(1.0))
    by_logits = grad(lambda z: kd_loss(z, teacher, z.new_tensor(1.0)).sum())(student)
    by_temperature = grad(lambda t: kd_loss(student, teacher, t).sum())(student.new_tensor(1.0))
    assert all(actual.isfinite().all() for actual in (value, by_logits, by_temperature))


def test_half_precision_comes_close():
    student, teacher = logits(0), logits(1)
    half = kd_loss(student.bfloat16(), teacher.bfloat16(), torch.tensor(2.0))
    exact = kd_loss(student.bfloat16().double(), teacher.bfloat16().double(), at(2.0))
    torch.testing.assert_close(half.double(), exact, rtol=2e-2, atol=2e-2)  # bf16 keeps 8 bits


def test_it_can_be_mapped_over_tasks_and_differentiated_in_the_temperature():
    students, teachers = (torch.stack([logits(s), logits(s + 1)]) for s in (0, 5))

    def slope(student, teacher):
        return grad(lambda t: kd_loss(student, teacher, t).mean())(at(2.0))

    mapped = vmap(slope)(students, teachers)
    one_by_one = torch.stack([slope(s, t) for s, t in zip(students, teachers, strict=True)])
    torch.testing.assert_close(mapped, one_by_one, rtol=1e-12, atol=0)


def test_it_follows_the_first_teacher():
    rows = answered(batch(6), teachers=2)
    student = Output(logits(3, c=3), logits(4))
    actual = Hinton(Learned(2.5)).double()(student, rows, context(rows, student))
    expected = kd_loss(student.logits, rows.teacher_outputs[0].logits, at(2.5))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)  # log 2.5 is born in float32


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"temperature=0.0 must be positive and finite"):
        Hinton(0.0)
