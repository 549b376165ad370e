"""What is taken away from learning to teach, and nothing else."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.coefficient import Learned, LearnedPerClass
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.losses.what_where import LearnedPerMap, WhatWhere
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.strategy.controls import (
    check_control,
    controlled,
    set_values,
    shuffled,
    shuffled_quiz,
)
from lightning_metakd.strategy.strategy_file import coefficient_values
from lightning_metakd.types import QuizEpisodes
from tests.commands import STUDENT, TEACHER, results, written
from tests.recipes.runs import batches, episodes, gate, helper, meta_kd, moved, single_task, state
from tests.tiny import answered, batch, context, episode, perturbed, student_answer, trainer

RUNS = {
    "MAML": (lambda **settings: meta_kd(MAML(0.05, 2), **settings), episodes),
    "ProtoNet": (lambda **settings: meta_kd(ProtoNet(), **settings), episodes),
    "SingleTask": (single_task, batches),
}
each_run = pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)


def pool():
    """A strategy of several teachers, with one network for all of them."""
    return MatchGate(0.5, MultiTeacher(Hinton(Learned()), LearnedPerSample()))


def fit(recipe, data, **settings):
    run = trainer(**{"max_steps": 3, "max_epochs": 3, **settings})
    run.fit(recipe, datamodule=data)
    return run


def seeded(make, **settings):
    torch.manual_seed(1)
    return make(**settings)


# --- frozen ------------------------------------------------------------------------------------------


@each_run
def test_frozen_trains_the_student_as_without_a_strategy_and_asks_no_quiz(make, data):
    frozen, without = seeded(make, control="frozen"), seeded(make, strategy_lr=0.0)
    start = state(frozen.loss)
    for recipe in (frozen, without):
        fit(recipe, data())
    assert not moved(start, state(frozen.loss))
    assert not moved(state(frozen.student), state(without.student))
    assert frozen.record.gradient_evaluations == without.record.gradient_evaluations > 0
    assert "train/quiz_loss" not in frozen.trainer.callback_metrics
    assert frozen.training_cost()["control"] == "frozen"


# --- shuffled ----------------------------------------------------------------------------------------


def test_shuffled_labels_are_a_permutation_that_the_key_decides():
    rows = batch(30)
    actual = shuffled(rows, 7, 1)
    assert torch.equal(actual.y.bincount(), rows.y.bincount())
    assert not torch.equal(actual.y, rows.y)
    assert torch.equal(shuffled(rows, 7, 1).y, actual.y)
    assert all(not torch.equal(shuffled(rows, *key).y, actual.y) for key in ((7, 2), (8, 1)))
    assert torch.equal(actual.x, rows.x)


def test_only_labels_of_the_quiz_are_shuffled():
    task = episode(3)
    y = task.query.y.clone()
    actual = shuffled_quiz(task, seed=0)
    assert not torch.equal(actual.query.y, y)
    assert torch.equal(actual.query.y.bincount(), y.bincount())
    assert torch.equal(actual.query.x, task.query.x)
    assert torch.equal(actual.support.y, task.support.y)
    assert torch.equal(task.query.y, y)
    assert torch.equal(shuffled_quiz(task, seed=0).query.y, actual.query.y)


@each_run
def test_shuffled_changes_what_the_strategy_learns_and_nothing_else(make, data):
    ends = []
    for control in ("none", "shuffled", "shuffled"):
        recipe = seeded(make, control=control, quiz=CrossEntropy())
        start = state(recipe.loss)
        run = fit(recipe, data(), max_steps=1)
        ends.append((state(recipe.student), state(recipe.loss), run.callback_metrics))
        assert moved(start, ends[-1][1])
    true, false, again = ends
    for name, tensor in true[0].items():  # one pass or two add up otherwise
        torch.testing.assert_close(false[0][name], tensor, rtol=1e-5, atol=1e-6)
    assert false[2]["train/outer_loss"] == pytest.approx(true[2]["train/outer_loss"].item())
    assert moved(true[1], false[1])
    assert not moved(false[1], again[1])


def watched(monkeypatch, name):
    """Labels of the query rows of each task that a part of the objective is given."""
    recorded, right = [], getattr(EpisodeObjective, name)

    def watching(self, theta, strategy, task):
        parts = task if isinstance(task, QuizEpisodes) else (task,)
        recorded.append(torch.cat([part.query.y for part in parts]))
        return right(self, theta, strategy, task)

    monkeypatch.setattr(EpisodeObjective, name, watching)
    return recorded


def test_a_quiz_of_other_classes_has_shuffled_labels_too(monkeypatch):
    quiz, train = (watched(monkeypatch, f"{who}_loss") for who in ("strategy", "student"))
    recipe = meta_kd(ProtoNet(), control="shuffled", quiz_classes="other")
    fit(recipe, episodes(train_split="teacher", strategy_split="strategy"), max_steps=1)
    for pair, labels in zip(quiz, train, strict=True):
        requested = pair[len(labels) :]
        assert torch.equal(pair[: len(labels)], labels)
        assert not torch.equal(requested, labels)
        assert torch.equal(requested.bincount(), labels.bincount())


@pytest.mark.parametrize("learner", [lambda: MAML(0.05, 2), ProtoNet])
def test_the_quiz_has_shuffled_labels_and_the_teaching_loss_true_ones(learner, monkeypatch):
    evaluated, train = (watched(monkeypatch, f"{who}_loss") for who in ("strategy", "student"))
    recipe = meta_kd(learner(), control="shuffled")
    fit(recipe, episodes(), max_steps=1)
    first = 0 if recipe.learner.uses_inner_loss else 6  # 2 of 4 rows of a class teach
    assert len(evaluated) == 2
    for quiz, labels in zip(evaluated, train, strict=True):
        assert torch.equal(labels, torch.arange(12) % 3)
        assert torch.equal(quiz[:first], labels[:first])
        assert not torch.equal(quiz[first:], labels[first:])
        assert torch.equal(quiz[first:].bincount(), labels[first:].bincount())


# --- one number that scales the labels ---------------------------------------------------------------


def test_step_size_scales_the_teaching_loss_by_the_one_number_that_is_learned():
    rows = answered(batch(9))
    student, plain = student_answer(rows), gate().double()
    row_context = context(rows, student)
    expected = plain(student, rows, row_context)
    loss = controlled(deepcopy(plain), "step_size", 1).double()
    torch.testing.assert_close(loss(student, rows, row_context), expected, rtol=1e-12, atol=0)
    (scale,) = [p for p in loss.parameters() if p.requires_grad]
    with torch.no_grad():
        scale.fill_(0.7)
    actual = loss(student, rows, row_context)
    torch.testing.assert_close(actual, 2 * scale.sigmoid() * expected, rtol=1e-12, atol=0)


@each_run
def test_step_size_moves_that_number_and_no_coefficient_or_teacher(make, data):
    recipe = make(control="step_size", teacher_lr=0.1, quiz=CrossEntropy())
    start = state(recipe)
    fit(recipe, data())
    actual = moved(start, state(recipe))
    assert {n for n in actual if not n.startswith("student.")} == {"loss.weights.loss.raw"}
    assert recipe.coefficient_log.values["weights.loss_mean"] != 1


def test_step_size_starts_from_the_strategy_that_its_run_starts_from(tmp_path):
    first, path = meta_kd(), tmp_path / "strategy"
    perturbed(first.loss)
    fit(first, episodes(), max_steps=1)
    first.save_strategy(path)
    recipe = meta_kd(control="step_size", strategy_file=str(path))
    fit(recipe, episodes(), max_steps=1)
    assert not moved(state(first.loss), state(recipe.loss.terms["loss"]))


# --- what another run said at its end ----------------------------------------------------------------


def said_by(make, data, path, **settings):
    """A run and the file that it leaves."""
    run = make(strategy_lr=0.5, **settings)
    perturbed(run.loss)
    fit(run, data())
    run.save_strategy(path)
    return run


@pytest.mark.thorough
@each_run
@pytest.mark.parametrize("loss", [gate, pool], ids=["gate", "shared weights"])
def test_final_constant_says_what_the_other_run_said_on_average(make, data, loss, tmp_path):
    classes = 12 if data is batches else 0
    teachers = [helper(classes), helper(classes)]
    settings = {"loss": loss(), "teachers": teachers, "quiz": CrossEntropy()}
    other = said_by(make, data, tmp_path / "strategy", **settings)
    means = {n: v for n, v in other.coefficient_log.values.items() if n.endswith("_mean")}
    assert (
        read_strategy(tmp_path / "strategy")[0]["coefficient_values"]
        == other.coefficient_log.values
    )
    recipe = make(
        **settings | {"loss": loss()},
        control="final_constant",
        strategy_file=str(tmp_path / "strategy"),
    )
    fit(recipe, data(), max_steps=1)
    start = state(recipe.loss)
    assert not any(p.requires_grad for p in recipe.loss.parameters())
    actual = {n: v for n, v in recipe.coefficient_log.values.items() if n.endswith("_mean")}
    assert actual == pytest.approx(means, rel=1e-5)
    for name, value in recipe.coefficient_log.values.items():  # the same in every row
        assert value == pytest.approx(actual[name.rpartition("_")[0] + "_mean"], rel=1e-5)
    fit(recipe, data())
    assert not moved(start, state(recipe.loss))


def test_what_is_said_is_that_of_the_end_of_the_run(tmp_path):
    recipe = said_by(meta_kd, episodes, tmp_path / "strategy")
    end = recipe.loss.gate.raw.sigmoid().item()
    assert recipe.coefficient_log.values["gate_mean"] == pytest.approx(end, rel=1e-6)


@pytest.mark.thorough
def test_final_constant_goes_on_and_is_tested_without_the_file(metakd, tmp_path):
    student = deepcopy(STUDENT)
    student["model"]["init_args"]["strategy_training"] = {"lr": 0.01, "control": "final_constant"}
    student["model"]["init_args"]["initialisation"] = {"strategy_file": "strategy"}
    student["model"]["init_args"]["teachers"][0]["init_args"]["checkpoint"] = None
    written(tmp_path, student=student)
    words = ("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    metakd(
        *words,
        "--model.strategy_training.control=none",
        "--model.initialisation.strategy_file=null",
        "--experiment=other",
    )
    Path("runs/other/0/strategy.safetensors").rename("strategy")
    first = metakd(*words)
    Path("strategy").unlink()
    second = metakd("fit", "--resume", "--config", "student.yaml")
    assert second.trainer.global_step == 2 * first.trainer.global_step
    assert not moved(state(first.model.loss), state(second.model.loss))
    metakd("test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    (row,) = results("student.test")
    assert row["control"] == "final_constant"


def test_a_resumed_run_still_knows_what_its_coefficients_said(tmp_path):
    first = meta_kd()
    fit(first, episodes(), max_steps=2, max_epochs=1).save_checkpoint(tmp_path / "end.ckpt")
    again = meta_kd()
    run = trainer(max_steps=2, max_epochs=1)
    run.fit(again, datamodule=episodes(), ckpt_path=tmp_path / "end.ckpt")
    assert again.coefficient_log.values == first.coefficient_log.values != {}


@pytest.mark.parametrize(
    "make",
    [Learned, lambda: LearnedPerClass(20), LearnedPerSample],
    ids=["one", "per class", "per sample"],
)
def test_every_kind_of_gate_can_be_settled(make):
    rows = answered(batch(9))
    student, loss = student_answer(rows), perturbed(MatchGate(make()).double())
    set_values(loss, {"gate_mean": 0.8, "match.temperature_mean": 4.0})
    actual = loss.gate(rows, context(rows, student)).detach().expand(9)
    assert actual.tolist() == pytest.approx([0.8] * 9, rel=1e-6)


def test_a_settled_share_of_nothing_is_as_near_to_it_as_can_be_learned():
    rows = answered(batch(9), 2)
    loss = controlled(MultiTeacher(Hinton(), LearnedPerSample()), "final_constant", 2)
    set_values(loss, {"weights.0_mean": 0.0, "weights.1_mean": 1.0})
    student = student_answer(rows)
    actual = coefficient_values(loss.double(), student, rows, context(rows, student))
    assert actual["weights.0_mean"] == pytest.approx(0, abs=2e-6)


def test_a_weight_of_maps_is_settled():
    rows = answered(batch(9))
    loss = perturbed(WhatWhere({"low": ["low"]}, LearnedPerMap(6)).double())
    set_values(loss, {"weights.low>low_mean": 2.5})
    student = student_answer(rows)
    actual = coefficient_values(loss, student, rows, context(rows, student))
    assert actual["weights.low>low_min"] == actual["weights.low>low_max"] == 2.5


def test_means_of_another_loss_are_refused():
    message = (
        r"strategy_file has no value of gate \(it says temperature_mean\); name the .* same loss"
    )
    with pytest.raises(ValueError, match=message):
        set_values(gate(), {"temperature_mean": 3.0})


# --- all teachers alike ------------------------------------------------------------------------------


@each_run
def test_uniform_weighs_teachers_alike_and_learns_the_rest(make, data):
    classes = 12 if data is batches else 0
    teachers = [helper(classes), helper(classes)]
    recipe = make(loss=pool(), teachers=teachers, control="uniform", quiz=CrossEntropy())
    start = state(recipe.loss)
    fit(recipe, data())
    assert set(moved(start, state(recipe.loss))) == set(start)
    assert set(start) == {"match.loss.temperature.raw"}
    assert (
        recipe.coefficient_log.values["match.weights.0_min"]
        == recipe.coefficient_log.values["match.weights.1_max"]
        == 0.5
    )


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["frozen", "shuffled", "step_size", "final_constant"])
@each_run
def test_a_control_of_nothing_is_refused(make, data, control):
    message = (
        rf"control={control} takes something away .* strategy_training\.lr=0 learns none; give the"
    )
    with pytest.raises(ValueError, match=message):
        make(control=control, strategy_lr=0.0)


def test_controls_that_say_nothing_are_refused(as_users_run_it):
    with pytest.raises(ValueError, match="control='none of it' is unknown; choose one of none, fr"):
        check_control("none of it", 0.1, 0.0)
    with pytest.raises(ValueError, match="control=step_size learns one number at the rate strat"):
        meta_kd(control="step_size", strategy_lr=0.0, teacher_lr=0.1)
    with pytest.raises(ValueError, match="control=uniform weighs teachers alike, and loss=MatchG"):
        meta_kd(control="uniform")
    with pytest.raises(ValueError, match=r"control=final_constant says from the start .* name its"):
        meta_kd(control="final_constant")


# --- what a result says of it ------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_result_says_which_control_it_is_and_what_the_training_took(metakd, tmp_path):
    student = deepcopy(STUDENT)
    student["model"]["init_args"]["teachers"][0]["init_args"]["cache"] = False
    student["model"]["init_args"]["strategy_training"]["control"] = "shuffled"
    written(tmp_path, teacher=TEACHER, student=student)
    metakd("fit", "--config", "teacher.yaml")
    metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    path = "runs/student/latest/checkpoints/final.ckpt"
    metakd("test", "--config", "student.yaml", "--ckpt_path", path, "--experiment=by_path")
    plain = ["--model.strategy_training.control=none", "--model.strategy_training.lr=0"]
    metakd(
        "test",
        "--config",
        "student.yaml",
        "--model.initialisation.checkpoint",
        path,
        "--experiment=by_init",
        *plain,
    )
    for name in ("by_path", "by_init"):
        (row,) = results(name)
        assert row["control"] == "shuffled"
        assert row["strategy"].startswith("gate.net.0.bias, gate.net.0.weight,")
        # 3 steps of 2 tasks and 2 judging them, one gradient and three of the tangent
        assert row["gradient_evaluations"] == 3 * 2 * (1 + 3)
        assert row["compiled"] is False
        # rows of the first of these, and of the 50 on which the teacher is calibrated
        assert row["teacher_forwards"] == (3 * 2 + 50) * 5 * (2 + 4)
