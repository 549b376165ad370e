"""Runs the tests of contestants.py where other libraries can be imported."""

from tests.processes import pytest_apart


def test_contestants_compute_the_same():
    pytest_apart("tests/benchmarks/contestants.py")
