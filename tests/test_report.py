import json
import math

import numpy as np
import pytest

from lightning_metakd.report import latest, read_results, report, tables

BASE = {
    "experiment": "maml",
    "recipe": "MetaKD",
    "learner": "MAML",
    "source": "CIFARFS",
    "split": "test",
    "stage": "test",
    "n_way": 5,
    "k_shot": 1,
    "n_query": 15,
    "eval_seed": 7,
    "train_seed": 0,
    "episodes": 3,
    "ci95": 0.01,
    "student_params": 113000,
    "student_macs": 28_500_000,
    "student_flops": 57_000_000,
    "latency_ms": 1.234,
    "wall_s": 3725.0,
}


def leave(folder, accuracies=(0.5, 0.75, 0.25), ids=None, **changes):
    """What a test run leaves in its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    row = BASE | {"accuracy": float(np.mean(accuracies))} | changes
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    lines = [f"{i},{a!r},1.0" for i, a in zip(ids or range(99), accuracies, strict=False)]
    (folder / "episodes.test.csv").write_text("\n".join(["id,accuracy,nll", *lines]) + "\n")


def cell(table, name, column):
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    header = next(line for line in lines if line[0] == "name")
    return next(line for line in lines if line[0] == name)[header.index(column)]


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
    assert cell(table, "maml", "adapting") == "-"
    assert "minus" not in table


def test_machine_seed_and_code_are_said_once(tmp_path):
    leave(tmp_path / "a" / "0", device="cpu (Some)", threads=2, git="0123456789abcdef")
    leave(tmp_path / "b" / "0", device="cpu (Some)", threads=2, git="0123456789abcdef", k_shot=5)
    said = "Made with device cpu (Some), threads 2, seed 0, commit 0123456789."
    assert tables(read_results(tmp_path)).endswith(said)


def test_the_difference_to_a_baseline_is_paired_by_episode(tmp_path):
    leave(tmp_path / "maml" / "0", (0.5, 0.75, 0.25), ids=[0, 1, 2])
    leave(tmp_path / "kd" / "0", (0.5, 0.5, 1.0), ids=[2, 0, 1], experiment="kd")
    table = tables(read_results(tmp_path), "maml")
    differences = np.array([0.5 - 0.5, 1.0 - 0.75, 0.5 - 0.25])
    half_width = 1.96 * differences.std(ddof=1) / math.sqrt(3)
    expected = f"{100 * differences.mean():+.2f} ± {100 * half_width:.2f}"
    assert cell(table, "kd", "minus maml") == expected
    assert cell(table, "maml", "minus maml") == "-"


@pytest.mark.parametrize("key", ["source", "split", "n_way", "k_shot", "n_query", "eval_seed"])
@pytest.mark.parametrize("value", ["other", None])
def test_results_over_other_episodes_are_not_compared(key, value, tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd", **{key: value})
    assert cell(tables(read_results(tmp_path), "maml"), "kd", "minus maml") == "-"


def test_episodes_that_are_gone_or_overwritten_are_not_compared(tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd")
    leave(tmp_path / "kd" / "0", (0.9, 0.9, 0.9), experiment="later")
    leave(tmp_path / "gone" / "0", experiment="gone")
    (tmp_path / "gone" / "0" / "episodes.test.csv").unlink()
    leave(tmp_path / "fewer" / "0", (0.5, 0.25), experiment="fewer")
    table = tables(read_results(tmp_path), "maml")
    for name in ("kd", "gone", "fewer"):
        assert cell(table, name, "minus maml") == "-"
    assert cell(table, "later", "minus maml").startswith("+40.00")


def test_a_baseline_of_the_same_seed_is_preferred(tmp_path):
    leave(tmp_path / "maml" / "0", (0.0, 0.0, 0.0), train_seed=0)
    leave(tmp_path / "maml" / "1", (0.25, 0.25, 0.25), train_seed=1)
    leave(tmp_path / "kd" / "0", (1.0, 1.0, 1.0), experiment="kd", train_seed=1)
    table = tables(read_results(tmp_path), "maml")
    assert cell(table, "kd", "minus maml") == "+75.00 ± 0.00"
    assert cell(table, "maml, seed 1", "accuracy") == "25.00 ± 1.00"


def test_the_latest_test_of_an_experiment_counts(tmp_path):
    leave(tmp_path / "maml" / "9", (0.1, 0.1, 0.1))
    leave(tmp_path / "maml" / "10", (0.2, 0.2, 0.2))
    leave(tmp_path / "maml" / "10", (0.3, 0.3, 0.3))
    (tmp_path / "maml" / "latest").symlink_to("10", target_is_directory=True)
    results = read_results(tmp_path)
    assert len(results) == 3
    assert [round(r.row["accuracy"], 6) for r in latest(results)] == [0.3]


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


def test_one_experiment_may_be_tested_by_two_learners_and_a_transductive_one_says_so(tmp_path):
    leave(tmp_path / "a" / "0", (0.1, 0.1), experiment="a")
    leave(tmp_path / "b" / "0", (0.2, 0.2), experiment="a", learner="Ridge", transductive=True)
    table = tables(read_results(tmp_path))
    assert cell(table, "a", "learner") == "MAML"
    assert cell(table, "a, transductive", "learner") == "Ridge"


def test_a_damaged_line_is_left_out_with_a_warning(tmp_path):
    leave(tmp_path / "maml" / "0")
    with (tmp_path / "maml" / "0" / "results.jsonl").open("a") as file:
        file.write('{"experiment": "half')
    with pytest.warns(UserWarning, match=r"results\.jsonl:2 is no JSON .* it is left out"):
        assert len(read_results(tmp_path)) == 1


def test_no_results_say_how_to_make_some(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results\.jsonl; run `metakd test"):
        report(tmp_path)


def test_an_unknown_baseline_names_the_known(tmp_path):
    leave(tmp_path / "maml" / "0")
    leave(tmp_path / "kd" / "0", experiment="kd")
    with pytest.raises(ValueError, match="baseline='mam' has no result; choose one of kd, maml"):
        report(tmp_path, baseline="mam")


def test_the_report_is_printed_and_put_between_the_markers(tmp_path, capsys):
    leave(tmp_path / "maml" / "0")
    page = tmp_path / "README.md"
    other = "<!-- results:begin b -->\nold b\n<!-- results:end -->\n"
    page.write_text(f"# A\n<!-- results:begin a -->\nold a\n<!-- results:end -->\nafter\n{other}")
    report(tmp_path, output=page, section="a")
    printed = capsys.readouterr().out.strip()
    assert page.read_text() == (
        f"# A\n<!-- results:begin a -->\n\n{printed}\n\n<!-- results:end -->\nafter\n{other}"
    )
    report(tmp_path, output=page, section="a")
    assert page.read_text().count(printed) == 1
