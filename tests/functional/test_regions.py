"""Where a part of a computation is compiled; what it computes then is in tests/recipes/compiled.py."""

import pytest
import torch

from lightning_metakd.functional import regions
from lightning_metakd.functional.regions import compiled_regions, region


@pytest.fixture
def calls(monkeypatch):
    """The arguments of every compiled call."""
    calls = []

    def compiled(function):
        return lambda *args: calls.append(args) or function(*args)

    monkeypatch.setattr(regions, "compiled", compiled)
    return calls


@region
def double(x, by):
    return by * x["x"]


def test_a_region_is_compiled_inside_the_context_alone(calls):
    x = {"x": torch.ones(2)}
    double(x, 2)
    with compiled_regions(True):
        double(x, 2)
        with compiled_regions(False):
            double(x, 2)
        double(x, 2)
    double(x, 2)
    assert len(calls) == 2


def test_the_context_ends_with_an_error(calls):
    with pytest.raises(RuntimeError), compiled_regions(True):
        raise RuntimeError
    double({"x": torch.ones(2)}, 2)
    assert not calls


def test_a_leaf_goes_in_as_what_a_step_makes_of_one_does(calls):
    x = torch.ones(2, requires_grad=True)
    with compiled_regions(True):
        (slope,) = torch.autograd.grad(double({"x": x}, 3).sum(), x)
    assert slope.tolist() == [3, 3]
    assert not calls[0][0]["x"].is_leaf
    assert calls[0][1] == 3
