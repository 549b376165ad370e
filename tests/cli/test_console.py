"""What stands in the terminal of somebody who has typed a command."""

import logging
import warnings

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lightning_metakd.cli.console import tidy_terminal
from lightning_metakd.loggers import run_logger


@pytest.mark.parametrize("rank", [0, 1])
def test_what_all_processes_would_say_is_said_by_the_first(rank, monkeypatch, capsys):
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    ours, theirs = (logging.getLogger(name) for name in ("lightning_metakd", "lightning.pytorch"))
    before = [list(ours.handlers), *(list(handler.filters) for handler in theirs.handlers)]
    with warnings.catch_warnings():
        tidy_terminal()
    assert run_logger.first_process() == (rank == 0)
    logging.getLogger("lightning_metakd.models.wrapped").warning("its classifier is 'fc'.")
    ours.handlers[:] = before[0]
    for handler, filters in zip(theirs.handlers, before[1:], strict=True):
        handler.filters[:] = filters
    assert capsys.readouterr().err == ("its classifier is 'fc'.\n" if rank == 0 else "")
