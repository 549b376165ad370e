"""When a training compiles its steps without being asked, and what happens where that fails."""

import logging

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from lightning_metakd.functional import regions
from lightning_metakd.learners.maml import MAML
from lightning_metakd.recipes import compilation, meta_step
from tests.learners.test_learners import LEARNERS
from tests.recipes.runs import episodes, meta_kd
from tests.tiny import trainer

STEPS = 10


@pytest.fixture
def compiled(monkeypatch):
    """For each step whether it was compiled; none is, in truth."""
    steps, mean = [], meta_step.mean_over_tasks

    def noted(loss, theta, strategy, tasks, at_once, compiled):
        steps.append(compiled or regions.active)
        with regions.compiled_regions(False):
            return mean(loss, theta, strategy, tasks, at_once)

    monkeypatch.setattr(meta_step, "mean_over_tasks", noted)
    monkeypatch.setattr(compilation, "compiler", lambda: "/usr/bin/g++")
    return steps


def fit(learner=None, steps=STEPS, **settings):
    torch.manual_seed(1)
    recipe = meta_kd(learner or MAML(0.05, 2), **settings)
    trainer(max_steps=steps, max_epochs=-1).fit(recipe, datamodule=episodes())
    return recipe


def cheap(monkeypatch):
    monkeypatch.setattr(compilation, "SECONDS_PER_OPERATOR", 0.0)


def test_a_long_training_compiles_after_its_first_steps(compiled, monkeypatch, caplog):
    cheap(monkeypatch)
    with caplog.at_level(logging.WARNING):
        recipe = fit()
    first = 1 + compilation.TIMED
    assert compiled == [False] * first + [True] * (STEPS - first)
    assert recipe.training_cost()["compiled"] is True
    (line,) = [m for m in caplog.messages if "compiles" in m]
    assert line.startswith(f"compiles its steps: {STEPS - first} of ")


def test_a_short_training_does_not(compiled):
    recipe = fit()  # some steps of milliseconds, beside seconds of compiling
    assert compiled == [False] * STEPS
    assert recipe.training_cost()["compiled"] is False


@pytest.mark.parametrize("chosen", [True, False])
def test_what_is_configured_holds(chosen, compiled, monkeypatch):
    cheap(monkeypatch)
    recipe = fit(compile_step=chosen)
    assert compiled == [chosen] * STEPS
    assert recipe.training_cost()["compiled"] is chosen


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["iMAML", "logistic", "FOMAML", "ProtoNet"])
def test_what_cannot_be_compiled_or_gains_nothing_is_not(name, compiled, monkeypatch):
    cheap(monkeypatch)
    recipe = fit(LEARNERS[name]())
    assert not any(compiled)
    assert recipe.training_cost()["compiled"] is False


def test_without_a_compiler_nothing_is_compiled(compiled, monkeypatch):
    cheap(monkeypatch)
    monkeypatch.setattr(compilation, "compiler", lambda: None)
    fit()
    assert not any(compiled)


def test_a_training_that_was_cut_goes_on_as_it_was_decided(compiled, monkeypatch, tmp_path):
    cheap(monkeypatch)
    recipe = meta_kd(MAML(0.05, 2))
    run = trainer(max_steps=8, max_epochs=-1)
    run.fit(recipe, datamodule=episodes())
    run.save_checkpoint(tmp_path / "cut.ckpt")
    compiled.clear()
    again = meta_kd(MAML(0.05, 2))
    trainer(max_steps=10, max_epochs=-1).fit(
        again, datamodule=episodes(), ckpt_path=tmp_path / "cut.ckpt"
    )
    assert compiled == [True] * 2


@pytest.mark.parametrize("error", [TorchDynamoException, FailOnRecompileLimitHit])
def test_where_compiling_fails_the_training_goes_on_with_a_warning(
    error, compiled, monkeypatch, caplog
):
    cheap(monkeypatch)
    noted = meta_step.mean_over_tasks

    def failing(*at):
        if regions.active:
            raise error("no such header")
        return noted(*at)

    monkeypatch.setattr(meta_step, "mean_over_tasks", failing)
    recipe = fit()
    assert compiled == [False] * STEPS
    assert recipe.training_cost()["compiled"] is False
    assert "goes on without compiling its steps, which failed: no such header" in caplog.messages
    with pytest.raises(error, match="no such header"):
        fit(compile_step=True)


@pytest.mark.parametrize(
    ("learner", "settings", "reason"),
    [
        ("iMAML", {}, "IMAML takes as many steps as its solver needs"),
        ("logistic", {}, "Logistic takes as many steps as its solver needs"),
        ("ProtoNet", {"norm": "tracked"}, "norm=tracked looks at each pass"),
    ],
)
def test_what_cannot_be_compiled_says_so(learner, settings, reason, compiled, caplog):
    recipe = fit(LEARNERS[learner](), steps=1, compile_step=True, **settings)
    assert f"execution.compile_step=true compiles nothing: {reason}." in caplog.messages
    assert not any(compiled)
    assert recipe.training_cost()["compiled"] is False


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_choice_is_refused():
    with pytest.raises(
        ValueError, match=r"execution.compile_step='yes' is unknown; choose one of auto, true"
    ):
        meta_kd(MAML(), compile_step="yes")
