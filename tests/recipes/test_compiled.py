"""Runs the tests of compiled.py where types are not checked."""

import pytest

from tests.processes import pytest_apart

SOME = "compiles_once and MAML]"
SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]


# aot_eager traces and differentiates as any backend, and runs torch's own kernels; inductor is what users get
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backend", "which"),
    [
        ("aot_eager", SOME),
        pytest.param("aot_eager", "", marks=SLOW),
        pytest.param("inductor", "", marks=SLOW),
    ],
)
def test_compiled_steps_are_what_they_are_uncompiled(backend, which):
    pytest_apart("tests/recipes/compiled.py", "-k", which, BACKEND=backend)
