"""The outer update, what surrounds it, and what is saved."""

import itertools
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, Timer, timer
from torch import nn

from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.recipes.outer_update import total_steps
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from lightning_metakd.strategy.strategy_file import load_strategy
from lightning_metakd.teachers.weight_sharing import Share
from tests.recipes.runs import (
    batches,
    episodes,
    gate,
    helper,
    meta_kd,
    moved,
    sgd,
    single_task,
    state,
    watch,
)
from tests.tiny import SmoothConv4, trainer

RUNS = {"MetaKD": (meta_kd, episodes), "SingleTask": (single_task, batches)}
each_recipe = pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)


def fit(recipe, data, **settings):
    run = trainer(**{"max_steps": 1, **settings})
    run.fit(recipe, datamodule=data)
    return run


# --- the one outer update --------------------------------------------------------------------------------


class Poisoned(CrossEntropy):
    """Finite itself; the square root has an infinite slope at 0, and 0 times that is not a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, student, batch, context):
        zero = student.logits[:, 0] - student.logits[:, 0].detach()
        return super().forward(student, batch, context) + (self.factor * zero).sqrt()


@each_recipe
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_is_told_and_changes_nothing(make, data, factor):
    settings = {"loss": Poisoned(factor), "strategy_lr": 0.0}
    recipe = make(ProtoNet(), **settings) if make is meta_kd else make(**settings)
    before = {n: p.detach().clone() for n, p in recipe.named_parameters()}
    message = (
        r"the gradient is (nan|inf) at step 0 .*; nothing was changed\. Start anew .*\.lr=0\.05"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(recipe, data())
    assert not moved(before, dict(recipe.named_parameters()))


@each_recipe
def test_clipping_bounds_student_and_strategy_apart(make, data):
    limit, ends = 1e-5, []
    for clip in (None, limit):
        torch.manual_seed(2)
        recipe = make(optimisation=sgd(lr=5.0, momentum=0.0, grad_clip=clip), strategy_lr=5.0)
        before = {n: p.detach().clone() for n, p in recipe.named_parameters()}
        fit(recipe, data())
        steps = {n: (before[n] - p.detach()).flatten() for n, p in recipe.named_parameters()}
        for start in ("student.", "loss."):
            of_part = [step for name, step in steps.items() if name.startswith(start)]
            ends.append(torch.cat(of_part) / 5.0)
    for free, clipped in zip(ends[:2], ends[2:], strict=True):
        assert free.norm() > 2 * limit
        bound = limit * free.norm() / (free.norm() + 1e-6)  # torch's guard against division by zero
        assert clipped.norm().item() == pytest.approx(bound.item(), rel=1e-2)  # float32 parameters
        assert torch.cosine_similarity(free, clipped, dim=0) > 0.99


@each_recipe
def test_rates_follow_the_schedule_step_by_step(make, data):
    recipe = make(optimisation=sgd(schedule="cosine"), strategy_lr=0.02)
    recorded = []
    update = recipe.outer_update

    def watched(*args, **kwargs):
        update(*args, **kwargs)
        recorded.append([group["lr"] for o in recipe.optimizers() for group in o.param_groups])

    watch(recipe, watched)
    fit(recipe, data(), max_steps=4, max_epochs=4)
    factors = [recipe.optimisation.factor(k / 4) for k in range(4)]
    for rates, factor in zip(recorded, factors, strict=True):
        assert rates == pytest.approx([0.05 * factor, 0.05 * factor, 0.02 * factor])


@each_recipe
@pytest.mark.parametrize(
    ("limits", "total"),
    [
        ({"max_steps": 1000, "max_epochs": 2}, 4),
        ({"max_steps": 3, "max_epochs": 50}, 3),
        ({"max_steps": 3, "max_epochs": -1}, 3),
        ({"max_steps": -1, "max_epochs": 2}, 4),
        ({"max_steps": 1000, "max_epochs": 3, "limit_train_batches": 1}, 3),
        ({"max_steps": 1000, "max_epochs": 2, "max_time": "90:00:00:00"}, 4),
    ],
)
def test_progress_is_of_the_steps_that_lightning_makes(make, data, limits, total):
    recipe, progress = make(optimisation=sgd(warmup=0.5)), []
    update = recipe.outer_update

    def watched(*args):
        progress.append(recipe.progress())
        rates.append(recipe.optimisation.factor(progress[-1], 1 / total_steps(recipe.trainer)))
        update(*args)

    watch(recipe, watched)
    rates = []
    sample = data(batch_size=48) if data is batches else data()  # two steps an epoch
    run = fit(recipe, sample, **limits)
    assert run.global_step == total
    assert progress == pytest.approx([k / total for k in range(total)], abs=1e-3)
    assert rates[0] == pytest.approx(2 / total, abs=1e-3)


def test_progress_of_a_run_without_a_number_of_steps_is_that_of_its_time():
    recipe, clock = meta_kd(), Timer(timedelta(hours=1))
    recorded, update = [], recipe.outer_update

    def watched(*args):
        clock._offset = 900 * len(recorded)
        recorded.append(recipe.progress())
        update(*args)

    watch(recipe, watched)
    fit(recipe, episodes(), max_steps=-1, max_epochs=-1, callbacks=[clock])
    assert recorded == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0], abs=0.01)


class Tick(Callback):
    """A clock on which each step takes a second before its update."""

    def __init__(self):
        self.now = 0.0

    def on_train_batch_start(self, *args):
        self.now += 1.0


@pytest.mark.parametrize("max_steps", [-1, 100])
def test_a_warm_up_in_limited_time_begins_at_the_rate_of_its_first_step(max_steps, monkeypatch):
    clock, rates = Tick(), []
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: clock.now))
    recipe = meta_kd(optimisation=sgd(warmup=0.5))
    update = recipe.outer_update

    def watched(*args):
        update(*args)
        (group, *_) = recipe.optimizers()[0].param_groups
        rates.append(group["lr"] / group["peak_lr"])

    watch(recipe, watched)
    limit = Timer(timedelta(seconds=8))
    fit(recipe, episodes(), max_steps=max_steps, max_epochs=-1, callbacks=[clock, limit])
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0], abs=0.03)


@each_recipe
def test_the_average_follows_the_student(make, data):
    recipe = make(optimisation=sgd(ema_decay=0.75))
    after: list[dict] = []
    update = recipe.outer_update

    def watched(*args, **kwargs):
        update(*args, **kwargs)
        after.append(state(recipe.student))

    watch(recipe, watched)
    fit(recipe, data(), max_steps=3, max_epochs=3)
    assert recipe.eval_student is recipe.ema.module
    assert not recipe.eval_student.training
    for name in ("convs.0.weight", "norms.2.bias", "norms.1.running_mean"):
        expected = after[0][name]
        for student in after[1:]:
            expected = 0.75 * expected + 0.25 * student[name]
        torch.testing.assert_close(recipe.eval_student.state_dict()[name], expected)


def test_without_an_average_the_student_itself_is_judged():
    recipe = meta_kd()
    assert recipe.eval_student is recipe.student


# --- when the strategy learns ---------------------------------------------------------------------------


@each_recipe
@pytest.mark.parametrize(
    ("message", "learns"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"strategy_every": 2}, [1, 0, 1, 0, 1, 0]),
        ({"strategy_warmup": 0.5}, [0, 0, 0, 1, 1, 1]),
        ({"strategy_every": 2, "strategy_warmup": 0.5}, [0, 0, 0, 0, 1, 0]),
    ],
)
def test_the_strategy_is_judged_and_moves_when_it_should_and_not_else(make, data, message, learns):
    recipe = make(**message, quiz=CrossEntropy())
    strategies, spent, update = [state(recipe.loss)], [0], recipe.outer_update

    def watched(*args):
        update(*args)
        strategies.append(state(recipe.loss))
        spent.append(recipe.record.gradient_evaluations)

    watch(recipe, watched)
    fit(recipe, data(), max_steps=6, max_epochs=6)
    changes = itertools.pairwise(strategies)
    assert [bool(moved(*pair)) for pair in changes] == [bool(x) for x in learns]
    # two tasks of MAML take two inner gradients and one, for the quiz too; the tangent three
    plain, quiz = (6, 6) if make is meta_kd else (1, 3)
    expected = [plain + quiz * trained for trained in learns]
    assert [b - a for a, b in itertools.pairwise(spent)] == expected


def test_one_pass_for_student_and_strategy_is_counted_once():
    recipe = meta_kd()
    fit(recipe, episodes(), max_steps=2)
    assert recipe.record.gradient_evaluations == 2 * 2 * 3


@each_recipe
@pytest.mark.parametrize(("way", "steps", "gradients"), [("unrolled", 2, 5), ("neumann", 3, 5)])
def test_several_pilot_steps_judge_a_strategy(make, data, way, steps, gradients):
    learner = {"learner": ProtoNet()} if make is meta_kd else {}
    count = {"neumann": "neumann_terms"}.get(way, "pilot_steps")
    recipe = make(**learner, **{"hypergradient": way, count: steps}, quiz=CrossEntropy())
    before = state(recipe.loss)
    run = fit(recipe, data(), max_steps=2)
    assert set(moved(before, state(recipe.loss))) == set(before)
    assert run.callback_metrics["strategy/pilot_gain"].isfinite()
    tasks = 2 if make is meta_kd else 1
    assert recipe.record.gradient_evaluations == 2 * tasks * (1 + gradients)


@each_recipe
def test_what_is_logged_of_the_coefficients_is_of_the_step_at_which_it_is(make, data):
    recipe = make(quiz=CrossEntropy())
    for steps in (1, 3):
        fit(recipe, data(), max_steps=steps, max_epochs=3)
        now = recipe.loss.gate.raw.sigmoid().item()
        assert recipe.coefficient_log.values["gate_mean"] == pytest.approx(now, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"strategy_warmup": 1.0},
            r"strategy_training\.warmup=1\.0 must be at least 0 and less than 1",
        ),
        ({"pilot_steps": 2}, "pilot_steps=2 with hypergradient='tangent', which looks one step"),
        ({"pilot_steps": 0}, "pilot_steps=0 must be 1 or more"),
    ],
)
@each_recipe
def test_times_and_steps_that_cannot_be_are_refused(make, data, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_validation_asks_teachers_without_counting_it():
    spent = []
    for batches_of_validation in (0, 3):
        recipe = meta_kd()
        fit(recipe, episodes(), max_steps=2, limit_val_batches=batches_of_validation)
        spent.append(recipe.training_cost()["teacher_forwards"])
    assert spent[0] == spent[1] == 2 * 2 * (6 + 12)


# --- files -------------------------------------------------------------------------------------------------


def saved(recipe, data, folder, **settings):
    run = fit(recipe, data, **settings)
    run.save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt"


@each_recipe
def test_a_checkpoint_leaves_the_teachers_out_and_knows_its_classes(make, data, tmp_path):
    recipe = make()
    checkpoint = read_checkpoint(saved(recipe, data(), tmp_path))
    names = list(checkpoint["state_dict"])
    assert not any(".model." in name for name in names)
    assert "teachers.0.head.scale" in names
    assert "loss.gate.raw" in names
    assert checkpoint["classes"] == [f"blob {c}" for c in range(12)]
    weights = student_weights(checkpoint)
    assert not moved(state(recipe.student), weights)


@each_recipe
def test_a_checkpoint_is_a_start_or_a_teacher_for_others(make, data, tmp_path):
    recipe = make()
    path = saved(recipe, data(), tmp_path)
    other = make(init=str(path), optimisation=sgd(ema_decay=0.5), strategy_lr=0.0)
    other.trainer = trainer()
    other.trainer.datamodule = data()
    other.setup("fit")
    assert not moved(state(recipe.student), state(other.student))
    assert not moved(state(recipe.student), state(other.eval_student))


@each_recipe
def test_a_checkpoint_is_tested_as_it_was_trained(make, data, tmp_path):
    recipe = make()
    path = saved(recipe, data(val_fraction=0.25) if data is batches else data(), tmp_path)
    torch.manual_seed(5)
    other = make(teachers=list(recipe.teachers))
    trainer().test(
        other,
        datamodule=data(val_fraction=0.25) if data is batches else data(),
        ckpt_path=path,
        verbose=False,
    )
    assert not moved(state(recipe.student), state(other.student))
    assert not moved(state(recipe.loss), state(other.loss))


@each_recipe
def test_a_teaching_loss_needs_its_teachers(make, data):
    hinton = {"loss": Hinton(), "strategy_lr": 0.0}
    share = {"loss": CrossEntropy(), "strategy_lr": 0.0, "share": [Share({"norms": "norms"})]}
    for settings, result in (
        (hinton, "loss=Hinton follows a teacher, but teachers is empty; .* or use CrossEntropy"),
        (
            {**hinton, "loss": CrossEntropy(), "teacher_lr": 0.1},
            r"teacher_lr=0\.1 trains teachers, and",
        ),
        (share, "share takes weights of a teacher, but teachers is empty"),
    ):
        with pytest.raises(ValueError, match=result):
            fit(make(teachers=[], **settings), data())


@each_recipe
def test_a_student_is_judged_without_its_teachers(make, data, tmp_path, caplog):
    module = partial(data, val_fraction=0.25) if data is batches else data
    share = [Share({"norms.0": "norms.0"}, how="freeze")]
    mates = [helper(12 if data is batches else 0, width=3)]
    recipe = make(teachers=mates, share=share)
    path = saved(recipe, module(), tmp_path)
    rows = []
    for settings, text in (
        ({"teachers": mates, "share": share}, None),
        ({"teachers": [], "share": share}, "of its checkpoint, teachers.0.head.scale is not used"),
        (
            {"teachers": [], "share": share, "loss": CrossEntropy(), "strategy_lr": 0.0},
            "loss.gate.raw",
        ),
    ):
        caplog.clear()
        other = make(**settings)
        trainer().test(other, datamodule=module(), ckpt_path=path, verbose=False)
        rows.append((other.record.result["accuracy"], other.record.result["nll"]))
        assert "is not used" not in caplog.text if text is None else text in caplog.text
    assert rows[0] == rows[1] == rows[2]


def test_a_student_that_adapts_by_its_teachers_is_not_judged_without_them(tmp_path):
    learner = ProtoMAML(0.05, 1)
    path = saved(meta_kd(learner), episodes(), tmp_path)
    other = meta_kd(learner, teachers=[], teacher_at_test=True)
    with pytest.raises(ValueError, match=r"teachers is empty; .* or leave teacher_at_test out"):
        trainer().test(other, datamodule=episodes(), ckpt_path=path, verbose=False)


def test_a_strategy_goes_from_one_run_to_another(tmp_path):
    recipe, path = meta_kd(), tmp_path / "strategy.safetensors"
    fit(recipe, episodes())
    recipe.save_strategy(path)
    other = meta_kd(ProtoNet(), strategy_file=str(path), strategy_lr=0.0)
    fit(other, episodes())
    assert not moved(state(recipe.loss), state(other.loss))
    plain = gate()
    load_strategy(plain, path)
    assert not moved(state(recipe.loss), state(plain))


def test_a_missing_strategy_is_told_when_training_begins(tmp_path):
    recipe = meta_kd(strategy_file=str(tmp_path / "none.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"strategy_file=.*none\.safetensors' does not exist"
    ):
        fit(recipe, episodes())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("ema_decay", [None, 0.9])
@each_recipe
def test_two_epochs_are_one_and_a_resumed_one_to_the_last_bit(make, data, ema_decay, tmp_path):
    def recipe():
        result = sgd(schedule="one_cycle", ema_decay=ema_decay, weight_decay=1e-3)
        return make(optimisation=result, teachers=[fixed])

    n_classes = 12 if data is batches else 0
    fixed = helper(n_classes)
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    through, resumed = recipe(), recipe()
    whole = {"max_steps": -1, "max_epochs": 2, "enable_checkpointing": True}
    first = fit(through, data(), callbacks=[keep], **whole)
    second = trainer(**whole, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)])
    second.fit(resumed, datamodule=data(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert first.global_step == second.global_step > 2
    assert not moved(state(through), state(resumed))
    momenta = [
        [s["momentum_buffer"] for s in run.optimizers[0].state.values()] for run in (first, second)
    ]
    assert momenta[0]
    assert all(map(torch.equal, *momenta))


def test_any_module_may_be_a_student():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))
    recipe = meta_kd(student=net)
    before = state(recipe.student)
    fit(recipe, episodes())
    assert moved(before, state(recipe.student)) == set(before)


def test_a_student_of_another_network_is_told_at_the_start(tmp_path):
    path = saved(meta_kd(), episodes(), tmp_path)
    recipe = meta_kd(student=SmoothConv4(3, width=5), init=str(path))
    with pytest.raises(
        ValueError,
        match=r"initialisation\.checkpoint=.*run\.ckpt: the checkpoint is of another network",
    ):
        fit(recipe, episodes())
