"""Runs the tests of compiled.py where types are not checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


SOME = "again or not_compiled or nor_is or recomputed or [MAML] or (cosine and ProtoNet)"


@pytest.mark.parametrize(
    ("backend", "which"),
    [
        (
            "aot_eager",
            SOME,
        ),  # traces and differentiates as any backend, and runs torch's own kernels
        pytest.param("aot_eager", "", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param(
            "inductor", "", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]
        ),  # as users
    ],
)
def test_compiled_steps_are_what_they_are_uncompiled(backend, which):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-o", "timeout=0", "tests/recipes/compiled.py", "-k", which]
    told = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "BACKEND": backend}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout[-5000:] + told.stderr[-2000:]
    assert " passed" in told.stdout
