import numpy as np
import pytest
import torch

from lightning_metakd.losses.pkt import pkt_loss

ROWS = 7


def embeddings():
    """Of a student and of a wider teacher."""
    return torch.randn(ROWS, 3, dtype=torch.float64), torch.randn(ROWS, 5, dtype=torch.float64)


def by_loops(student, teacher):
    def chances(f, i):
        others = [g for j, g in enumerate(f) if j != i]
        cosines = [f[i] @ g / np.linalg.norm(f[i]) / np.linalg.norm(g) for g in others]
        kernel = (np.array(cosines) + 1) / 2 + 1e-7
        return kernel / kernel.sum()

    recorded = []
    for i in range(len(student)):
        q, p = chances(student.numpy(), i), chances(teacher.numpy(), i)
        recorded.append(np.sum(p * np.log(p / q)))
    return np.array(recorded)


def test_it_is_the_divergence_of_each_rows_neighbours():
    student, teacher = embeddings()
    actual = pkt_loss(student, teacher).numpy()
    np.testing.assert_allclose(actual, by_loops(student, teacher), rtol=1e-9)


def test_lengths_and_rotations_do_not_matter():
    student, teacher = embeddings()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    lengths = torch.rand(ROWS, 1, dtype=torch.float64) + 0.5
    moved = pkt_loss(lengths * student @ turn, teacher)
    torch.testing.assert_close(moved, pkt_loss(student, teacher), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["opposite", "dead", "identical"])
def test_extreme_embeddings_have_finite_derivatives(case, dtype):
    student, teacher = (e.to(dtype) for e in embeddings())
    student[1] = {"opposite": -student[0], "dead": 0 * student[0], "identical": student[0]}[case]
    student.requires_grad_()
    value = pkt_loss(student, teacher)
    (slope,) = torch.autograd.grad(value.sum(), student, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), student)
    assert all(actual.isfinite().all() for actual in (value, slope, curvature))


def test_a_single_row_has_no_neighbours():
    assert pkt_loss(torch.randn(1, 3), torch.randn(1, 5)).tolist() == [0.0]
