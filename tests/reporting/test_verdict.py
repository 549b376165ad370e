from lightning_metakd.reporting.comparison import comparisons
from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.reporting.verdict import verdict
from tests.left_results import leave, leave_seeds


def sentence(folder, *words):
    (task,) = comparisons(read_results(folder), *words)
    return verdict(task)


def test_one_row_wins_nothing(tmp_path):
    leave(tmp_path / "a" / "0")
    assert sentence(tmp_path).endswith("it is the only row, and nothing is compared.")


def test_a_difference_over_three_seeds_is_a_claim(tmp_path):
    leave_seeds(tmp_path, (0.25, 0.26, 0.24), "maml")
    leave_seeds(tmp_path, (0.5, 0.52, 0.51), "kd")
    assert sentence(tmp_path, "maml") == (
        "kd (MAML) has the highest accuracy, 51.00 ± 2.48 %, of 2 rows. It is 26.00 ± 2.48 points above the "
        "baseline maml, paired by episode or row over 3 training seeds: the interval lies above 0, which "
        "is a claim."
    )
    assert "the next row, maml (MAML), paired" in sentence(tmp_path)
    leave_seeds(tmp_path, (0.1, 0.1, 0.1), "other")
    assert sentence(tmp_path, "maml").endswith("that it is the best of 3 by this very table.")


def test_one_seed_is_no_claim(tmp_path):
    leave(tmp_path / "a" / "0", (0.25, 0.5, 0.25))
    leave(tmp_path / "b" / "0", (0.5, 0.76, 0.5), experiment="kd")
    text = sentence(tmp_path)
    assert "better on these, but no claim, which needs 3 training seeds" in text
    assert "over 1 training seed:" in text


def test_an_interval_that_holds_0_has_no_winner(tmp_path):
    leave(tmp_path / "a" / "0", (0.25, 0.5, 0.5))
    leave(tmp_path / "b" / "0", (0.5, 0.25, 0.51), experiment="kd")
    assert sentence(tmp_path).endswith("the interval holds 0, and nobody has won.")


def test_rows_of_other_episodes_are_no_claim(tmp_path):
    leave(tmp_path / "a" / "0", eval_seed=None)
    leave(tmp_path / "b" / "0", (0.9,), experiment="kd", eval_seed=None)
    assert sentence(tmp_path).endswith("so that no difference is paired, and this is no claim.")


def test_trainings_that_share_no_episodes_are_no_claim(tmp_path):
    leave(tmp_path / "a" / "0")
    leave(tmp_path / "b" / "0", (0.95, 0.97), [7, 8], experiment="kd")
    assert sentence(tmp_path).endswith(
        "No training shares its episodes with the next row, maml (MAML), so that this is no claim."
    )


def test_an_accuracy_that_nobody_measured_is_said(tmp_path):
    leave(tmp_path / "a" / "0", accuracy=None)
    assert sentence(tmp_path) == "No accuracy was measured."
