"""One thread, the same random numbers for every test whatever ran before it, and the switch for real data."""

import logging
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import pytest
import torch

from tests.commands import work_in

ADVICE = [  # of the Trainer, which does not concern a dozen rows
    "ignore:.*does not have many workers",
    "ignore:.*but have no `val_dataloader`",
    "ignore:.*across ranks is zero",  # a single task without validation rows
    "ignore:It is recommended to use .self.log",  # on several processes; rows are gathered before
    "ignore:.*treespec, LeafSpec",  # Lightning 2.6.6 on torch 2.15
    "ignore:Found .* module.s. in eval mode",  # teachers are, on purpose
    "ignore:.*torch.jit.script. is deprecated",  # by torch itself, at its first forward-mode product
]


def pytest_configure(config):
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def pytest_collection_modifyitems(items):
    for item in items:
        for text in ADVICE:
            item.add_marker(pytest.mark.filterwarnings(text))
        if item.get_closest_marker("real_data") and not data_folder().is_dir():
            reason = f"{data_folder()} does not exist; name the data folder by METAKD_DATA"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def metakd(tmp_path, monkeypatch):
    """The command, run in this process in a folder of its own; returns what it ran with."""
    from lightning_metakd.cli.front_door import main

    work_in(tmp_path, monkeypatch)
    return lambda *words: main([str(word) for word in words])


@pytest.fixture
def real_data():
    """The folder of real data sets; for tests that are marked `real_data`."""
    return data_folder()


def data_folder() -> Path:
    named = os.environ.get("METAKD_DATA")
    return Path(named) if named else Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def little_room():
    """No file may grow beyond a number of bytes inside of this, as if the disk were full."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def as_users_run_it():
    """Without the run-time check of types, which answers a wrong shape before our message can."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
