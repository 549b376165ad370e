"""A home without an account of W&B, and one at a server of a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import wandb
from wandb.sdk.lib import wbauth

KEY = "0123456789" * 4


def without_account(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let W&B find no credentials, and keep what it keeps below a folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CONFIG", "CACHE", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(folder / name))
    monkeypatch.chdir(folder)
    wbauth.unauthenticate_session(update_settings=False)


@contextmanager
def logged_in_at(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account at a server, which W&B asks although this process may have asked another before."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    wandb.teardown()  # it reads the environment once
    try:
        yield
    finally:
        wandb.teardown()
