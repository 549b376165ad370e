"""The table of misled gates says how far below the best each row is, and what its gate was."""

import pytest

from experiments import misled_gates
from experiments.misled_gates import COLUMNS, JUDGES, ROWS, SETTINGS, lines_of

BOTH, HELD_OUT, ALONE = SETTINGS


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Tests and curves as three seeds would leave them: each row is a point better than the one before."""
    monkeypatch.chdir(tmp_path)
    for setting in SETTINGS:
        sources = ("CIFARFS", "Omniglot") if setting != ALONE else ("CIFARFS embedded by Conv4",)
        for k, name in enumerate(ROWS):
            for seed in misled_gates.SEEDS:
                run = misled_gates.training(setting, name, seed, "")
                curve = run.mark.parents[1] / "metrics.csv"
                curve.parent.mkdir(parents=True)
                curve.write_text(f"step,{misled_gates.GATE}\n1,0.9\n2,\n3,0.8\n4,0.4\n5,0.2\n")
                for shots in misled_gates.SHOTS:
                    mark = misled_gates.test(setting, name, seed, shots, "").mark
                    mark.parent.mkdir(parents=True)
                    accuracy = 0.5 + 0.01 * k
                    rows = [f'{{"source": "{s}", "accuracy": {accuracy}}}' for s in sources]
                    mark.write_text("\n".join(rows))


def test_regret_is_to_the_best_row_and_a_gate_is_the_mean_of_the_second_half(runs):
    lines = lines_of(BOTH)
    assert [line["regret"] for line in lines] == [f"{n:.2f} ± 0.00" for n in (3, 2, 1, 0)]
    assert [line["gate"] for line in lines] == ["-", "-", *["0.30 ± 0.00"] * len(JUDGES)]


def test_one_domain_has_no_numbers_of_the_other(runs):
    first = lines_of(ALONE)[0]
    assert {title: first[title] for title in COLUMNS} == {
        "CIFARFS, 1 shot": "50.00 ± 0.00",
        "Omniglot, 1 shot": "-",
        "CIFARFS, 5 shots": "50.00 ± 0.00",
        "Omniglot, 5 shots": "-",
    }


def test_a_setting_has_its_own_tasks_and_teachers_and_a_judge_its_own_words():
    half, gate, bounded = (
        {s: set(misled_gates.training(s, name, 0, "images").options) for s in SETTINGS}
        for name in ("half", *JUDGES)
    )
    assert half[HELD_OUT] - half[BOTH] == {"--data.train_split=teacher"}
    assert half[BOTH] <= half[HELD_OUT]
    assert "--data.train_split=teacher" in half[ALONE]
    assert any("zoo:resnet12_cifar_fs_teacher" in word for word in half[ALONE])
    for setting in SETTINGS:
        (word,) = bounded[setting] - gate[setting]
        assert word == "--model.strategy_training.quiz=GeneralisedCrossEntropy"
        assert "--model.strategy_training.quiz_classes=other" in gate[setting]
        needs = misled_gates.training(setting, "half", 0, "images").needs
        assert bool(needs) == (setting != ALONE)
