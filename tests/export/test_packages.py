"""An optional package that is missing is named, with the command that installs it."""

import sys
from typing import get_args

import pytest

from lightning_metakd.export.export import WRITERS, Format
from lightning_metakd.export.packages import INSTALL, NEEDED, check_packages


@pytest.mark.parametrize("format", [name for name, packages in NEEDED.items() if packages])
def test_a_missing_package_is_named(format, monkeypatch):
    for name in NEEDED[format]:
        monkeypatch.setitem(sys.modules, name, None)
    name = NEEDED[format][0]
    with pytest.raises(ImportError, match=f"format={format} needs the package {name}") as error:
        check_packages(format)
    assert INSTALL[name] in str(error.value)


def test_every_format_is_written_and_knows_its_packages():
    assert set(get_args(Format)) == set(NEEDED) == set(WRITERS)
    check_packages("safetensors")
    assert {name for names in NEEDED.values() for name in names} <= set(INSTALL)
