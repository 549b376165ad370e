"""A folder for each test, and how much memory it takes."""

import os
from pathlib import Path

import pytest

MOST = 5e8
"""Bytes beyond the start; what is promised is twice as much."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def memory(name):
    """A line of what the system knows of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


@pytest.fixture
def thrifty(request):
    """Fails where the test took much memory beyond the start; appends how much to the file METAKD_PEAKS."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    yield
    taken = memory("VmHWM") - before
    if path := os.environ.get("METAKD_PEAKS"):
        with Path(path).open("a") as file:
            file.write(f"{taken} {request.node.name}\n")
    assert taken < MOST
