import pytest

from lightning_metakd.cli.front_door import main
from lightning_metakd.cli.parser import with_flags
from lightning_metakd.reporting.report import report
from tests.left_results import leave


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("report --wide", "report --wide=true"),
        ("report --wide --folder a", "report --wide=true --folder a"),
        ("report --wide false --by_seed", "report --wide false --by_seed=true"),
        ("report --wide=false --folder --by_seed", "report --wide=false --folder --by_seed=true"),
    ],
)
def test_a_flag_alone_is_true(words, expected):
    assert with_flags(words.split(), report) == expected.split()


def test_the_report_is_wide_where_that_is_asked_for(tmp_path, capsys):
    leave(tmp_path / "a" / "0")
    main(["report", "--folder", str(tmp_path)])
    assert "FLOPs |" not in capsys.readouterr().out
    main(["report", "--folder", str(tmp_path), "--wide"])
    assert "FLOPs |" in capsys.readouterr().out
