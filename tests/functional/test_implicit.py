import numpy as np
import pytest
import torch

from lightning_metakd.functional.implicit import gmres, implicit_root

SIZE = 6


def system(seed=0):
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(SIZE, SIZE, generator=draw, dtype=torch.float64)
    return a + 2 * torch.eye(SIZE).double(), torch.randn(SIZE, generator=draw, dtype=torch.float64)


def test_as_many_products_as_unknowns_solve_a_system_without_symmetry():
    a, b = system()
    expected = np.linalg.solve(a.numpy(), b.numpy())
    np.testing.assert_allclose(gmres(lambda x: a @ x, b, SIZE).numpy(), expected, rtol=1e-9)


def test_more_products_than_unknowns_do_no_harm():
    a, b = system()
    few, many = (gmres(lambda x: a @ x, b, n) for n in (SIZE, 5 * SIZE))
    torch.testing.assert_close(many, few, rtol=1e-9, atol=1e-12)


def test_what_is_left_shrinks_with_every_product():
    a, b = system()
    left = [(a @ gmres(lambda x: a @ x, b, n) - b).norm() for n in range(1, SIZE + 1)]
    assert left == sorted(left, reverse=True)


def test_nothing_is_wanted_where_the_right_side_is_zero():
    a, b = system()
    assert not gmres(lambda x: a @ x, torch.zeros_like(b), 3).any()


def root(a, b):
    """x with tanh(x) + A x = b, by Newton."""
    x = torch.zeros(SIZE, dtype=torch.float64)
    for _ in range(50):
        jacobian = torch.diag(1 - x.tanh() ** 2) + a
        x = x - torch.linalg.solve(jacobian, x.tanh() + a @ x - b)
    return x


def residual(a, b):
    """In two parts, as parameters come."""

    def of(params):
        x = torch.cat([params["u"], params["v"]])
        left = x.tanh() + a @ x - b
        return {"u": left[:2], "v": left[2:]}

    return of


def test_the_gradient_of_a_root_is_that_of_differences():
    a, b = (t.requires_grad_() for t in system())
    with torch.no_grad():
        x = root(a, b)
    actual = implicit_root(residual(a, b), {"u": x[:2], "v": x[2:]}, SIZE)
    weights = torch.randn(SIZE, dtype=torch.float64)
    value = torch.cat([actual["u"], actual["v"]]) @ weights
    slopes = torch.autograd.grad(value, (a, b))
    for p, slope in zip((a, b), slopes, strict=True):
        towards = torch.randn_like(p)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                p += sign * 1e-5 * towards
                ends.append(root(a, b) @ weights)
                p -= sign * 1e-5 * towards
        expected = ((ends[0] - ends[1]) / 2e-5).item()
        assert (slope * towards).sum().item() == pytest.approx(expected, rel=1e-8)


def test_without_gradients_it_is_the_root_and_nothing_is_asked():
    def never(params):
        raise AssertionError

    at = {"u": torch.ones(2)}
    with torch.no_grad():
        assert torch.equal(implicit_root(never, at, 3)["u"], at["u"])
