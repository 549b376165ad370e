"""The demonstration, up to where it trains."""

import subprocess
import sys

import pytest

SAYING = """
import lightning_metakd.cli.demo as demo

def say(words):
    import logging
    import lightning.pytorch

    for text in ("GPU available: False", "Seed set to 0", words[0]):
        logging.getLogger("lightning.pytorch").warning(text)
    raise KeyboardInterrupt

demo.main = say
import sys
from lightning_metakd.cli.front_door import console
sys.argv[1:] = ["demo"]
console()
"""


@pytest.mark.thorough
def test_it_leaves_out_what_lightning_says_as_other_commands_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SAYING], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "fit"
    assert "GPU" not in done.stderr
    assert "Seed" not in done.stderr
