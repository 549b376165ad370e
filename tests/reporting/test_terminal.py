import re

import pytest

from lightning_metakd.reporting.report import narrow_tables, report
from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.reporting.terminal import broken, fitted, paragraph, result_table
from tests.left_results import BASE, cell, leave, leave_seeds

LONG = "meta_kd_cifar_fs_5w5s_match_gate_temperature_with_a_very_long_name_that_goes_on_and_on"


def test_a_table_that_fits_is_as_markdown_has_it():
    rows = [{"name": "a", "accuracy": "1.00"}]
    assert fitted(rows) == "| name | accuracy |\n| ---- | -------: |\n| a    |     1.00 |"


@pytest.mark.parametrize("name", [LONG, "x" * 150, LONG.replace("_", " ")])
def test_a_long_name_stands_on_several_lines(name):
    rows = [{"name": name, "control": LONG, "learner": "ProtoNet", "accuracy": "63.33 ± 0.51"}]
    lines = fitted(rows).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= 100
    assert "".join(line.split("|")[1].strip() for line in lines[2:]).replace(" ", "") == (
        name.replace(" ", "")
    )
    assert sum("ProtoNet" in line for line in lines) == 1


def test_names_are_broken_where_words_end():
    assert broken("one_two three", 8) == ["one_two", "three"]
    assert broken("", 8) == [""]
    assert broken("x" * 10, 4) == ["xxxx", "xxxx", "xx"]


def test_texts_stand_on_lines_and_lists_are_indented():
    text = paragraph("- " + "word " * 30)
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[1].startswith("  word")


def test_the_report_fits_a_terminal_and_has_the_rest_when_wide(tmp_path, capsys):
    leave_seeds(tmp_path, (0.25, 0.5, 0.5), LONG)
    leave_seeds(tmp_path, (0.5, 0.625, 0.75), "kd", control="shuffled")
    leave_seeds(tmp_path, (0.5, 0.625, 0.75), "kd")
    report(tmp_path, LONG)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert cell(printed, "kd", "difference").startswith("+20.83 ±")
    assert cell(printed, "kd", "parameters") == "113 k"
    assert cell(printed, "kd", "latency") == "1.23 ms"
    assert "Controls (difference: name minus control):" in printed
    assert "FLOPs |" not in printed
    report(tmp_path, LONG, wide=True)
    wide = capsys.readouterr().out
    assert cell(wide, "kd", "FLOPs") == "57 M"
    assert cell(wide, "kd", f"minus {LONG}") == cell(printed, "kd", "difference")


def test_both_tables_say_the_same(tmp_path):
    leave(tmp_path / "a" / "0")
    table = narrow_tables(read_results(tmp_path))
    assert cell(table, "maml", "accuracy") == "50.00 ± 1.00"
    assert "difference" not in re.split(r"\n\n", table)[1]  # nothing is compared


def test_without_a_baseline_the_difference_is_that_to_the_teacher(tmp_path):
    leave(tmp_path / "a" / "0", paired_difference=-0.05, paired_ci95=0.01)
    assert cell(narrow_tables(read_results(tmp_path)), "maml", "difference") == "-5.00 ± 1.00"
    leave(tmp_path / "b" / "0", train_seed=1, paired_difference=-0.04, paired_ci95=0.01)
    table = narrow_tables(read_results(tmp_path))
    assert cell(table, "maml", "difference").startswith("-4.50 ± 6.35")
    assert "Difference: name minus the row's teacher" in table


def test_a_test_says_what_it_measured_in_a_table():
    nothing = dict.fromkeys(
        ("teacher_accuracy", "teacher_ci95", "paired_difference", "paired_ci95", "domain")
    )
    row = {**BASE, **nothing, "accuracy": 0.5}
    table = result_table([row, {**row, "domain": "birds", "teacher_accuracy": 0.75}])
    assert cell(table, "maml", "accuracy") == "50.00 ± 1.00"
    assert cell(table, "maml, birds", "teacher") == "75.00"
    assert "difference" not in table
