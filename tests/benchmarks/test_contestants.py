"""Runs the tests of contestants.py where other libraries can be imported."""

import pytest

from tests.processes import pytest_apart


@pytest.mark.slow
def test_contestants_compute_the_same():
    pytest_apart("tests/benchmarks/contestants.py")
