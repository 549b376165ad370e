import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A Trainer without a logger writes to the working directory."""
    monkeypatch.chdir(tmp_path)
