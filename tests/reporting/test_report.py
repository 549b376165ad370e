import math

import numpy as np
import pytest
from scipy.stats import t as student

from lightning_metakd.reporting.report import report, tables
from lightning_metakd.reporting.result_rows import read_results
from tests.left_results import cell, leave, leave_seeds


def test_a_row_says_what_it_measured(tmp_path):
    leave(tmp_path / "maml" / "0")
    table = tables(read_results(tmp_path))
    assert "### CIFARFS, test, 5-way 1-shot" in table
    assert cell(table, "maml", "learner") == "MAML"
    assert cell(table, "maml", "accuracy") == "50.00 ± 1.00"
    assert cell(table, "maml", "parameters") == "113 k"
    assert cell(table, "maml", "MACs") == "28.5 M"
    assert cell(table, "maml", "FLOPs") == "57 M"
    assert cell(table, "maml", "latency") == "1.23 ms"
    assert cell(table, "maml", "training") == "1 h 02 min"
    assert "minus" not in table


def test_machine_seed_and_code_are_said_once(tmp_path):
    leave(tmp_path / "a" / "0", device="cpu (Some)", threads=2, git="0123456789abcdef")
    leave(tmp_path / "b" / "0", device="cpu (Some)", threads=2, git="0123456789abcdef", k_shot=5)
    message = "Made with device cpu (Some), threads 2, seed 0, commit 0123456789."
    assert tables(read_results(tmp_path)).endswith(message)


def test_the_difference_to_a_baseline_is_paired_by_episode(tmp_path):
    leave(tmp_path / "maml" / "0", (0.5, 0.75, 0.25), ids=[0, 1, 2])
    leave(tmp_path / "kd" / "0", (0.5, 0.5, 1.0), ids=[2, 0, 1], experiment="kd")
    table = tables(read_results(tmp_path), "maml")
    differences = np.array([0.5 - 0.5, 1.0 - 0.75, 0.5 - 0.25])
    half_width = 1.96 * differences.std(ddof=1) / math.sqrt(3)
    expected = f"{100 * differences.mean():+.2f} ± {100 * half_width:.2f}"
    assert cell(table, "kd", "minus maml") == expected
    assert cell(table, "maml", "minus maml") == "-"


def test_columns_of_which_nothing_is_known_are_left_out(tmp_path):
    leave(tmp_path / "a" / "0", experiment="a", adapt_ms=2.0)
    leave(tmp_path / "b" / "0", experiment="b", latency_ms=None)
    table = tables(read_results(tmp_path))
    assert cell(table, "b", "latency") == "-"
    assert cell(table, "b", "adapting") == "-"
    assert "teacher" not in table
    bare = dict.fromkeys(
        ("student_params", "student_macs", "student_flops", "wall_s", "latency_ms")
    )
    for name in "ab":
        leave(tmp_path / name / "0", experiment=name, **bare)
    assert tables(read_results(tmp_path)).count("| name ") == 1


# --- several training seeds --------------------------------------------------------------------


def test_seeds_are_one_row_with_the_interval_over_seeds(tmp_path):
    means = (0.5, 0.25, 0.625)
    leave_seeds(tmp_path, means, "maml")
    leave(tmp_path / "one" / "0", experiment="one")
    table = tables(read_results(tmp_path))
    half_width = student.ppf(0.975, 2) * np.std(means, ddof=1) / math.sqrt(3)
    assert cell(table, "maml", "accuracy") == f"{100 * np.mean(means):.2f} ± {100 * half_width:.2f}"
    assert cell(table, "maml", "seeds") == "3"
    assert cell(table, "one", "accuracy") == "50.00 ± 1.00"
    assert cell(table, "one", "seeds") == "1"
    assert "over training seeds (Student's t) in rows of several `seeds`; in rows of one" in table
    assert "seeds 0 1 2" in table


def test_each_seed_is_shown_where_that_is_asked_for(tmp_path):
    leave_seeds(tmp_path, (0.5, 0.25), "maml")
    leave_seeds(tmp_path, (0.75, 0.75), "kd")
    table = tables(read_results(tmp_path), "maml", by_seed=True)
    assert cell(table, "maml, seed 1", "accuracy") == "25.00 ± 1.00"
    assert cell(table, "kd, seed 0", "minus maml") == "+25.00 ± 0.00"
    assert cell(table, "kd, seed 1", "minus maml") == "+50.00 ± 0.00"


def test_rows_of_one_name_say_in_what_they_differ(tmp_path):
    leave(tmp_path / "a" / "0", loss="Hinton")
    leave(tmp_path / "b" / "0", loss="MatchGate")
    table = tables(read_results(tmp_path))
    assert cell(table, "maml, loss Hinton", "seeds") == "1"
    assert cell(table, "maml, loss MatchGate", "seeds") == "1"


def test_students_of_other_classes_are_not_one_result(tmp_path):
    leave(tmp_path / "all" / "0", (0.5, 0.7), train_classes=64)
    leave(tmp_path / "some" / "0", (0.2, 0.4), train_classes=48)
    table = tables(read_results(tmp_path))
    assert cell(table, "maml, classes 64", "accuracy").startswith("60.00")
    assert cell(table, "maml, classes 48", "accuracy").startswith("30.00")


def test_costs_are_means_over_seeds(tmp_path):
    for seed, seconds in enumerate((60.0, 120.0)):
        cost = {"wall_s": seconds, "teacher_forwards": 1000 * (1 + seed)}
        leave(tmp_path / str(seed), train_seed=seed, gradient_evaluations=[300, None][seed], **cost)
    table = tables(read_results(tmp_path))
    assert cell(table, "maml", "training") == "1 min 30 s"
    assert cell(table, "maml", "teacher forwards") == "1.5 k"
    assert cell(table, "maml", "gradients") == "300"


def test_a_teacher_that_all_seeds_share_keeps_its_interval_over_episodes(tmp_path):
    shared = {"teacher_accuracy": 0.75, "teacher_ci95": 0.02}
    leave_seeds(tmp_path, (0.5, 0.25), "maml", **shared)
    assert cell(tables(read_results(tmp_path)), "maml", "teacher") == "75.00 ± 2.00"
    leave(tmp_path / "third" / "0", train_seed=2, **shared | {"teacher_accuracy": 0.5})
    assert cell(tables(read_results(tmp_path)), "maml", "teacher") == "66.67 ± 35.86"


def test_the_difference_over_seeds_is_in_the_table_and_says_what_it_leaves_out(tmp_path):
    leave_seeds(tmp_path, (0.25, 0.5, 0.5), "maml", seeds=(0, 1, 3))
    leave_seeds(tmp_path, (0.5, 0.625, 0.75, 0.875), "kd")
    table = tables(read_results(tmp_path), "maml")
    differences = (0.5 - 0.25, 0.625 - 0.5, 0.875 - 0.5)
    half_width = student.ppf(0.975, 2) * np.std(differences, ddof=1) / math.sqrt(3)
    expected = f"{100 * np.mean(differences):+.2f} ± {100 * half_width:.2f}"
    assert cell(table, "kd", "minus maml") == expected
    assert "- kd minus maml leaves out seed 2 of kd: no partner on the same episodes." in table


# --- tasks and files ---------------------------------------------------------------------------


def test_shots_have_tables_of_their_own_with_the_best_first(tmp_path):
    leave(tmp_path / "a" / "0", (0.1, 0.1), experiment="a")
    leave(tmp_path / "b" / "0", (0.2, 0.2), experiment="b")
    leave(tmp_path / "c" / "0", experiment="c", k_shot=5)
    leave(tmp_path / "d" / "0", experiment="d", learner="ProtoNet", control="frozen")
    table = tables(read_results(tmp_path))
    assert [line for line in table.splitlines() if line.startswith("###")] == [
        "### CIFARFS, test, 5-way 1-shot",
        "### CIFARFS, test, 5-way 5-shot",
    ]
    assert table.index("| b ") < table.index("| a ")
    assert cell(table, "d, control frozen", "learner") == "ProtoNet"


def test_a_row_that_owes_something_to_other_data_says_so(tmp_path):
    leave(tmp_path / "a" / "0", (0.5, 0.5), experiment="a", external_data="ImageNet")
    assert "a, external data ImageNet" in tables(read_results(tmp_path))


def test_a_row_whose_support_is_partly_wrong_says_so(tmp_path):
    leave(tmp_path / "a" / "0", (0.5, 0.5), experiment="a", wrong_support=0.4)
    leave(tmp_path / "b" / "0", (0.5, 0.5), experiment="b", wrong_support=0.0)
    table = tables(read_results(tmp_path))
    assert "| a, wrong support 0.4 " in table
    assert "b, wrong support" not in table


def test_one_experiment_may_be_tested_by_two_learners_and_a_transductive_one_says_so(tmp_path):
    leave(tmp_path / "a" / "0", (0.1, 0.1), experiment="a")
    leave(tmp_path / "b" / "0", (0.2, 0.2), experiment="a", learner="Ridge", transductive=True)
    table = tables(read_results(tmp_path))
    assert cell(table, "a", "learner") == "MAML"
    assert cell(table, "a, transductive", "learner") == "Ridge"


def test_no_results_say_how_to_make_some(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results\.jsonl; run `metakd test"):
        report(tmp_path)


def test_an_unknown_baseline_or_control_names_the_known(tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd")
    with pytest.raises(ValueError, match="baseline='mam' has no result; choose one of kd, maml"):
        report(tmp_path, baseline="mam")
    with pytest.raises(ValueError, match="controls='b' has no result; choose one of kd, maml"):
        report(tmp_path, controls="kd, b")


def test_the_report_is_printed_and_put_between_the_markers(tmp_path, capsys):
    leave(tmp_path / "maml" / "0")
    page = tmp_path / "README.md"
    other = "<!-- results:begin b -->\nold b\n<!-- results:end -->\n"
    page.write_text(f"# A\n<!-- results:begin a -->\nold a\n<!-- results:end -->\nafter\n{other}")
    report(tmp_path, output=page, section="a", wide=True)
    printed = capsys.readouterr().out.strip()
    assert page.read_text() == (
        f"# A\n<!-- results:begin a -->\n\n{printed}\n\n<!-- results:end -->\nafter\n{other}"
    )
    report(tmp_path, output=page, section="a", wide=True)
    assert page.read_text().count(printed) == 1


def test_a_page_that_is_no_text_is_refused(tmp_path):
    leave(tmp_path / "maml" / "0")
    (tmp_path / "page").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"page' is no text; name a Markdown file"):
        report(tmp_path, output=tmp_path / "page")
