"""What a recipe looks at when training begins, and what it says of itself on the way."""

import logging
import re
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy
from lightning_metakd.settings.run_settings import digest, training_settings
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.teachers.weight_sharing import Share
from tests.recipes.runs import (
    batches,
    episodes,
    helper,
    meta_kd,
    moved,
    sgd,
    single_task,
    state,
    watch,
)
from tests.tiny import SmoothConv4, trainer

RUNS = {"MetaKD": (meta_kd, episodes, 0), "SingleTask": (single_task, batches, 12)}
each_recipe = pytest.mark.parametrize(("make", "data", "classes"), RUNS.values(), ids=RUNS)


def fit(recipe, data, ckpt_path=None, **settings) -> None:
    trainer(**{"max_steps": 1, **settings}).fit(recipe, datamodule=data, ckpt_path=ckpt_path)


def plain(**settings):
    """A student that MAML adapts, without a teacher."""
    return meta_kd(**{"loss": None, "teachers": None, "strategy_lr": 0.0, **settings})


@each_recipe
@pytest.mark.parametrize(
    "settings",
    [{"plugins": [MixedPrecision("16-mixed", "cpu")]}, {"precision": "16-true"}],
    ids=["a scaler", "16-true"],
)
def test_half_precision_is_refused_whoever_built_the_trainer(make, data, classes, settings):
    message = (
        r"trainer\.precision=16-\w+ loses .*; use 32-true, or bf16-mixed where no second derivative"
    )
    with pytest.raises(ValueError, match=message):
        fit(make(), data(), **settings)


def test_weights_of_8_bits_are_refused_too():
    message = (
        "trainer.precision=bf16-true keeps weights and inner steps in 8 bits; use bf16-mixed or 32"
    )
    with pytest.raises(ValueError, match=message):
        fit(meta_kd(), episodes(), precision="bf16-true")


@each_recipe
def test_a_student_that_comes_in_evaluation_mode_is_trained_in_training_mode(make, data, classes):
    net = SmoothConv4(classes or 3, width=4)
    net.dropout = nn.Dropout()
    share = [Share({"norms.0": "norms.0", "convs.0": "convs.0"}, how="freeze")]
    recipe = make(student=net.eval(), share=share, teachers=[helper(classes)])
    recipe.eval()
    modes, update = set(), recipe.outer_update

    def watched(*args):
        for student in [recipe.student, *getattr(recipe, "virtual", [])]:
            modes.update((name, m.training) for name, m in student.named_modules())
        update(*args)

    watch(recipe, watched)
    fit(recipe, data())
    assert {name for name, mode in modes if not mode} == {"norms.0", "convs.0"}
    assert ("dropout", True) in modes
    assert not net.training


# --- adaptations that lead nowhere -------------------------------------------------------------------


def test_a_training_whose_adaptation_is_not_finite_names_the_episode_and_the_rate():
    message = (
        r"adapting to episode \d+ of fit led to logits .* model\.learner\.inner_lr=1e\+30 or inner"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(plain(learner=MAML(1e30, 3, first_order=True)), episodes())


@pytest.mark.parametrize("command", ["test", "predict"])
@pytest.mark.parametrize("learner", [MAML(1e30, 3), MetaSGD(1e30, 3)])
def test_an_evaluation_whose_adaptation_is_not_finite_names_the_episode_and_the_rate(
    learner, command
):
    recipe = plain(learner=learner)
    message = rf"adapting to episode 0 of {command} led to logits .*\.inner_lr=1e\+30 or inner"
    with pytest.raises(FloatingPointError, match=message):
        getattr(trainer(), command)(recipe, datamodule=episodes())


def test_weights_that_are_not_finite_are_not_blamed_on_the_adaptation():
    recipe = plain()
    nn.init.constant_(recipe.student.convs[0].weight, torch.nan)
    with pytest.raises(FloatingPointError, match="the student's answers are not finite: its train"):
        trainer().test(recipe, datamodule=episodes())


# --- what is said once -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "settings", "warns"),
    [
        (MAML(0.05, 3, first_order=True), {}, 1),
        (MetaSGD(0.05, 2, first_order=True), {}, 1),
        (Reptile(0.05, 2), {}, 1),
        (MAML(0.05, 1, first_order=True), {}, 0),
        (MAML(0.05, 2), {}, 0),
        (MAML(0.05, 3, first_order=True), {"strategy_lr": 0.0}, 0),
        (ProtoNet(), {}, 0),
    ],
)
def test_a_strategy_whose_gradient_is_cut_off_is_told_once(learner, settings, warns, caplog):
    recipe, data = meta_kd(learner, **settings), episodes()
    with caplog.at_level(logging.WARNING):
        recipe.check_data(data, "fit")  # as the command does, before there is a run
        fit(recipe, data, max_steps=2)
    assert len(re.findall(r"is first-order: .* its \d inner steps", caplog.text)) == warns


@pytest.mark.parametrize(
    ("form", "trained", "warns"),
    [("running", False, 1), ("running", True, 0), ("support", False, 0)],
)
def test_norms_whose_statistics_no_training_has_set_are_told(form, trained, warns, caplog):
    net = SmoothConv4()
    if trained:
        net(torch.rand(8, 1, 8, 8))
    with caplog.at_level(logging.WARNING):
        fit(plain(student=net, norm=form), episodes())
    message = (
        r"norm=running normalises by mean 0 and variance 1 in norms\.0, norms\.1, norms\.2 \.\."
    )
    assert len(re.findall(message, caplog.text)) == warns


@each_recipe
def test_a_quiz_without_a_slope_is_told_once(make, data, classes, caplog):
    learner = {"learner": ProtoNet()} if make is meta_kd else {}
    recipe = make(**learner, quiz=CalibratedCrossEntropy())
    for p in recipe.student.parameters():
        nn.init.zeros_(p)  # it says the same of every row
    before = recipe.loss.gate.raw.item()
    with caplog.at_level(logging.WARNING):
        fit(recipe, data())
        assert recipe.loss.gate.raw.item() == before
        fit(recipe, data())
    assert caplog.text.count("The quiz is answered no better than by chance") == 1


def test_a_quiz_with_a_slope_is_not_told(caplog):
    recipe = meta_kd(ProtoNet())
    recipe.trainer = trainer()
    recipe.coefficient_log.warn_of_flat_quiz(
        CalibratedCrossEntropy(), torch.tensor(3.0).log() - 1e-3, 3
    )
    recipe.coefficient_log.warn_of_flat_quiz(CrossEntropy(), torch.tensor(3.0).log(), 3)
    assert not caplog.text


# --- what has begun goes on ---------------------------------------------------------------------------


@each_recipe
@pytest.mark.parametrize("ema", [None, 0.5])
def test_what_a_recipe_has_trained_is_tested_and_not_the_files_it_began_from(
    make, data, classes, ema, tmp_path
):
    few = partial(data, val_fraction=0.25) if data is batches else data
    first = make()
    fit(first, few())
    path, strategy = tmp_path / "first.ckpt", tmp_path / "strategy.safetensors"
    first.trainer.save_checkpoint(path)
    first.save_strategy(strategy)
    torch.manual_seed(3)
    recipe = make(init=str(path), strategy_file=str(strategy), optimisation=sgd(ema_decay=ema))
    fit(recipe, few(), max_steps=2)
    trained, settings = state(recipe), training_settings(recipe.record.settings)
    assert moved(state(first.student), state(recipe.student))
    trainer().test(recipe, few(), verbose=False)
    assert not moved(trained, state(recipe))
    row = recipe.record.settings_fields(recipe.eval_student)["settings"]
    assert {f"train.{key}": value for key, value in settings.items()}.items() <= row.items()
    fit(recipe, few(), max_steps=1)
    assert moved(trained, state(recipe))
    assert training_settings(recipe.record.settings) == settings | {
        "trainer.max_steps": 1,
        "resumed": digest(settings),
    }


@each_recipe
def test_a_recipe_that_goes_on_from_a_checkpoint_is_of_that_training_whatever_it_did_before(
    make, data, classes, tmp_path
):
    first = make()
    fit(first, data())
    first.trainer.save_checkpoint(tmp_path / "run.ckpt")
    settings, again = training_settings(first.record.settings), make()
    for _ in range(2):
        fit(again, data(), tmp_path / "run.ckpt")
        assert training_settings(again.record.settings) == settings
    fit(again, data(), tmp_path / "run.ckpt", max_steps=2)
    assert training_settings(again.record.settings)["resumed"] == digest(settings)


def test_shared_weights_are_held_in_common_again_and_others_go_on():
    share = [Share({"convs.0": "convs.0"}), Share({"convs.1": "convs.1"}, how="tie")]
    recipe = meta_kd(ProtoNet(), student=SmoothConv4(0, 4), share=share, teacher_lr=0.1)
    fit(recipe, episodes())
    begun = state(recipe.student.convs[0])
    trainer().test(recipe, episodes(), verbose=False)
    theirs = recipe.teachers[0].model.convs
    assert recipe.student.convs[1].weight is not theirs[1].weight
    recipe.trainer.state.fn = "fit"
    recipe.setup("fit")
    assert recipe.student.convs[1].weight is theirs[1].weight
    assert not moved(begun, state(recipe.student.convs[0]))
    assert moved(begun, state(theirs[0]))


@each_recipe
@pytest.mark.parametrize("ema", [False, True])
def test_a_checkpoint_of_another_network_is_told(make, data, classes, ema, tmp_path):
    few = partial(data, val_fraction=0.25) if data is batches else data
    recipe = make()
    fit(recipe, few())
    recipe.trainer.save_checkpoint(tmp_path / "run.ckpt")
    settings = {"optimisation": sgd(ema_decay=0.5)} if ema else {}
    other = make(student=SmoothConv4(classes or 3, width=3 if ema else 5), **settings)
    name = "ema.n_averaged is missing" if ema else r"student.convs.0.weight is \[3, 1, 3, 3\] in"
    message = (
        rf"^ckpt_path=.*run.ckpt: the checkpoint is of another network: .*{name} .*Build the model"
    )
    for run in (trainer().test, trainer(limit_val_batches=1).validate):
        with pytest.raises(ValueError, match=message):
            run(other, few(), ckpt_path=tmp_path / "run.ckpt", verbose=False)


def test_numbers_of_numpy_train_and_are_read_back(tmp_path, as_users_run_it):
    recipe = meta_kd(
        ProtoNet(scale=np.float64(2.0)),
        optimisation=sgd(lr=np.float64(0.05)),
        strategy_lr=np.float32(0.05),
        pilot_lr=np.float64(0.01),
    )
    fit(recipe, episodes())
    AtomicCheckpointIO().save_checkpoint(
        recipe.trainer._checkpoint_connector.dump_checkpoint(), tmp_path / "run.ckpt"
    )
    checkpoint = read_checkpoint(tmp_path / "run.ckpt")
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["peak_lr"] == 0.05
    assert checkpoint["settings"]["model.learner.scale"] == 2.0
