import csv
import json
import math
import re
from pathlib import Path

import lightning
import pytest
import torch

import lightning_metakd
from lightning_metakd.callbacks.results import (
    KEYS,
    Results,
    code_version,
    file_sha256,
    plain,
    result_row,
    sentence,
    write_episodes,
)
from tests.callbacks.tiny import Tiny, batches, trainer

DESIGN = """
"experiment", "recipe", "learner", "loss", "strategy", "control", "stage", "source", "domain", "split",
"n_way", "k_shot", "n_query", "wrong_support", "support_views", "episodes", "train_steps", "train_seed",
"eval_seed",
"accuracy", "ci95", "accuracy_within", "teacher_accuracy", "teacher_ci95", "paired_difference", "paired_ci95",
"nll", "ece", "agreement",
"transductive", "teacher_at_test", "teacher_head", "train_classes", "external_data", "student_params",
"student_macs", "student_flops", "student_bytes", "latency_ms", "latency_p95_ms", "latency_batch",
"adapt_ms", "adapt_flops", "teacher_params", "teacher_macs", "teacher_flops", "teacher_latency_ms",
"teacher_forwards", "gradient_evaluations", "compiled", "wall_s", "episodes_per_s", "peak_memory_bytes",
"device", "threads", "world_size", "precision", "checkpoint_sha256", "init_sha256", "teacher_sha256",
"strategy_sha256", "git", "versions", "settings_sha256", "settings"
"""


def results(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_the_keys_are_those_of_the_documented_line():
    assert list(KEYS) == re.findall(r'"(\w+)"', DESIGN)


def test_a_test_leaves_one_complete_line_and_one_row_per_episode(tmp_path, capsys):
    module = Tiny()
    trainer(tmp_path, Results()).test(module, batches(), verbose=False)
    run = tmp_path / "tiny" / "0"
    (row,) = results(run)
    assert list(row) == list(KEYS)
    assert row["experiment"] == "tiny"
    assert (row["stage"], row["split"], row["episodes"]) == ("test", "test", 3)
    assert (row["accuracy"], row["teacher_accuracy"], row["learner"]) == (0.5, 0.75, None)
    assert row["world_size"] == 1
    assert row["threads"] == torch.get_num_threads()
    assert row["device"].startswith("cpu")
    assert row["precision"] == "32-true"
    assert row["episodes_per_s"] > 0
    assert row["versions"]["torch"] == torch.__version__
    assert row["versions"]["lightning"] == lightning.__version__
    assert row["versions"]["lightning_metakd"] == lightning_metakd.__version__
    with (run / "episodes.test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["id"]) for r in rows] == [0, 1, 2]
    assert [float(r["accuracy"]) for r in rows] == module.record.episode_rows["accuracy"].tolist()
    assert capsys.readouterr().out == (
        "tiny: test accuracy 50.00 +- 1.00 %, teacher 75.00 % (3 episodes, 95% interval); "
        f"written to {run / 'results.jsonl'}\n"
        "| name |     accuracy | teacher |\n"
        "| ---- | -----------: | ------: |\n"
        "| tiny | 50.00 ± 1.00 |   75.00 |\n"
    )


def test_validation_alone_leaves_a_line_and_validation_inside_fit_none(tmp_path):
    runner = trainer(tmp_path, Results())
    runner.fit(Tiny(), batches(), batches())
    run = tmp_path / "tiny" / "0"
    assert not (run / "results.jsonl").exists()
    runner.validate(Tiny(), batches(), verbose=False)
    assert [row["stage"] for row in results(run)] == ["val"]
    assert (run / "episodes.val.csv").exists()


def test_a_rehearsal_leaves_nothing(tmp_path, capsys):
    trainer(tmp_path, Results(), fast_dev_run=True).test(Tiny(), batches(), verbose=False)
    assert not (tmp_path / "tiny").exists()
    assert "accuracy" not in capsys.readouterr().out


def test_training_time_seed_and_steps_come_from_the_checkpoint_and_add_up(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 10))  # every look at the clock costs 10 s
    monkeypatch.setattr("lightning_metakd.callbacks.results.time.monotonic", lambda: next(clock))
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    first, later = tmp_path / "first.ckpt", tmp_path / "later.ckpt"
    runner = trainer(tmp_path, Results())
    runner.fit(Tiny(), batches())
    runner.save_checkpoint(first)
    once = torch.load(first, weights_only=True)["callbacks"]["Results"]
    assert once["wall_s"] > 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    runner = trainer(tmp_path, Results(), max_epochs=2)
    runner.fit(Tiny(), batches(), ckpt_path=first)
    runner.save_checkpoint(later)
    twice = torch.load(later, weights_only=True)["callbacks"]["Results"]
    assert twice["wall_s"] > once["wall_s"]
    monkeypatch.setenv("PL_GLOBAL_SEED", "99")
    trainer(tmp_path, Results()).test(Tiny(), batches(), ckpt_path=later, verbose=False)
    (row,) = results(tmp_path / "tiny" / "2")
    assert row["wall_s"] == twice["wall_s"]
    assert (row["train_seed"], row["train_steps"]) == (11, 12)
    assert row["checkpoint_sha256"] == file_sha256(later)
    assert len(row["checkpoint_sha256"]) == 64


def test_what_the_recipe_says_comes_first_and_what_nobody_says_is_null():
    row = result_row(
        {"accuracy": 0.5, "k_shot": None, "unknown": 1}, {"accuracy": 0.1, "k_shot": 5}
    )
    assert row["accuracy"] == 0.5
    assert row["k_shot"] == 5
    assert row["nll"] is None
    assert tuple(row) == KEYS


def test_false_and_zero_are_known_values():
    row = result_row({"teacher_at_test": False, "train_steps": 0}, {"teacher_at_test": True})
    assert row["teacher_at_test"] is False
    assert row["train_steps"] == 0


def test_values_become_plain_json():
    support_loss = plain(
        {"a": torch.tensor(0.5), "b": math.nan, "c": [Path("x"), torch.tensor([1, 2])]}
    )
    assert support_loss == {"a": 0.5, "b": None, "c": ["x", [1, 2]]}
    assert plain(math.inf) is None
    assert plain(True) is True
    json.dumps(support_loss, allow_nan=False)


@pytest.mark.filterwarnings("ignore:.*metrics.csv waits")
@pytest.mark.parametrize("room", [-1000, 0, 100])
def test_a_result_that_cannot_be_written_is_said_all_the_same(room, tmp_path, capsys, little_room):
    earlier = tmp_path / "tiny" / "0" / "results.jsonl"
    runner = trainer(tmp_path, Results())
    runner.test(Tiny(), batches(), verbose=False)
    kept = earlier.read_bytes()
    capsys.readouterr()
    message = rf"{earlier} could not be written \(File too large\); free some space"
    with little_room(len(kept) + room), pytest.raises(OSError, match=message):
        runner.test(Tiny(), batches(), verbose=False)
    assert capsys.readouterr().out.startswith("tiny: test accuracy 50.00 +- 1.00 %")
    assert earlier.read_bytes() == kept  # and not half a line more
    assert json.loads(kept)["accuracy"] == 0.5


def test_episodes_keep_every_digit(tmp_path):
    values = torch.rand(20, dtype=torch.float64)
    write_episodes(tmp_path / "e.csv", {"id": range(20), "accuracy": values.tolist()})
    with (tmp_path / "e.csv").open() as file:
        actual = [(int(r["id"]), float(r["accuracy"])) for r in csv.DictReader(file)]
    assert actual == list(enumerate(values.tolist()))


def test_the_code_version_is_that_of_the_checkout():
    result = code_version()
    assert result is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", result)


def test_a_package_outside_of_its_checkout_has_no_code_version(tmp_path, monkeypatch):
    (tmp_path / "site" / "lightning_metakd").mkdir(parents=True)
    monkeypatch.setattr(lightning_metakd, "__file__", str(tmp_path / "site" / "x" / "__init__.py"))
    assert code_version() is None


@pytest.mark.parametrize("ci95", [None, 0.02])
def test_the_sentence_says_intervals_where_there_are_some(ci95):
    row = result_row(
        {"experiment": "a", "stage": "test", "accuracy": 0.5, "ci95": ci95, "episodes": 9},
        {"teacher_accuracy": 0.6, "paired_difference": -0.1, "paired_ci95": 0.005},
    )
    shown = "50.00 %" if ci95 is None else "50.00 +- 2.00 %"
    assert sentence(row) == (
        f"a: test accuracy {shown}, teacher 60.00 %, student - teacher -10.00 +- 0.50 % "
        "(9 episodes, 95% interval)"
    )
    assert sentence(row | {"accuracy": None}) == "a: test reported no accuracy"
