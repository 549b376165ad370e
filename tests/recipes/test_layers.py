"""Losses that compare layers, and the adapters that they want."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy

from lightning_metakd.functional.bind import bind
from lightning_metakd.learners.imaml import IMAML
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.losses.attention_transfer import AttentionTransfer
from lightning_metakd.losses.coefficient import Learned, Scheduled
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.loss import CrossEntropy, WeightedSum
from lightning_metakd.losses.multi_teacher import MultiTeacher, OfTeacher
from lightning_metakd.losses.similarity_preserving import SimilarityPreserving
from lightning_metakd.losses.what_where import LearnedPerChannel, LearnedPerMap, WhatWhere
from lightning_metakd.models.resnet import ResNet
from lightning_metakd.models.vit import ViT
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher
from tests.recipes import definition
from tests.recipes.runs import batches, episodes, helper, meta_kd, moved, sgd, single_task, state
from tests.recipes.test_meta_gradient import INNER_RATE, RATE, TOLERANCE, relative_error, together
from tests.tiny import N_WAY, Fixed, SmoothConv4, episode, perturbed, teacher, trainer

MAP = {"norms.1": "norms.1"}  # 3 channels of the student, 4 of the teacher
ADAPTER = "projections.0:norms/1>norms/1."


def hints(weights=1.0):
    return WeightedSum({"targets": CrossEntropy(), "hints": FitNets(MAP, weights)})


def fit(recipe, data=None, **settings):
    run = trainer(**{"max_steps": 1, **settings})
    run.fit(recipe, datamodule=data or episodes())
    return run


def with_layers(loss=None, **settings):
    return {"loss": loss or hints(), "strategy_lr": 0.0, **settings}


RUNS = {
    "ProtoNet": lambda **s: meta_kd(ProtoNet(), **with_layers(**s)),
    "MAML": lambda **s: meta_kd(MAML(0.05, 2), **with_layers(**s)),
    "SingleTask": lambda **s: single_task(**with_layers(**s)),
}
each_run = pytest.mark.parametrize("name", RUNS)


def data_of(name, **settings):
    return batches(quiz_fraction=0.25, **settings) if name == "SingleTask" else episodes(**settings)


# --- what is trained ---------------------------------------------------------------------------------------


@each_run
@pytest.mark.parametrize("strategy_lr", [0.0, 0.05])
def test_adapters_are_trained_beside_the_student_and_the_strategy_beside_both(name, strategy_lr):
    loss = hints(Learned() if strategy_lr else 1.0)
    recipe = RUNS[name](loss=loss, strategy_lr=strategy_lr, quiz=CrossEntropy())
    fit(recipe, data_of(name), max_steps=0)  # the adapters are made, nothing moves
    before = state(recipe)
    fit(recipe, data_of(name))
    actual = moved(before, state(recipe))
    assert {n for n in actual if n.startswith("adapters.")} == {
        f"adapters.{ADAPTER}{part}" for part in ("weight", "bias")
    }
    strategy = {n for n in actual if n.startswith("loss.")}
    assert strategy == ({"loss.terms.hints.weights.norms/1>norms/1.raw"} if strategy_lr else set())
    assert {n for n in actual if n.startswith("student.convs.")}
    assert not any(n.startswith("teachers.") for n in actual)


def distance(recipe, data):
    """Mean hint loss over the rows of an episode."""
    task = data.on_after_batch_transfer(data.evaluation_episodes("val")[0], 0)
    rows = recipe.evaluator.with_teacher_outputs(task).query
    with torch.no_grad():
        answer = recipe.adapters(
            bind(recipe.student)(dict(recipe.student.named_parameters()), rows.x)
        )
    (hint,), target = answer.hints.values(), rows.teacher_outputs[0].features["norms.1"]
    return (hint - target).square().mean().item()


@pytest.mark.parametrize("learner", [ProtoNet(), MAML(0.05, 1, first_order=True)])
def test_training_brings_hints_nearer(learner):
    recipe = meta_kd(learner, **with_layers(optimisation=sgd(lr=0.2)))
    data = episodes(augment=False)
    fit(recipe, data, max_steps=0)
    before = distance(recipe, data)
    fit(recipe, data, max_steps=12, max_epochs=12)
    assert distance(recipe, data) < 0.7 * before


def test_a_large_gradient_of_adapters_does_not_shorten_the_step_of_the_student():
    ends = []
    for weight in (1.0, 1e4):
        torch.manual_seed(1)
        clipped = sgd(grad_clip=1e-3, momentum=0.0)
        # at the start of each task the hints have no weight, so the student feels none
        loss = hints(Scheduled(0.0, weight))
        recipe = meta_kd(MAML(0.05, 1), **with_layers(loss, optimisation=clipped))
        fit(recipe)
        ends.append(state(recipe.student))
    assert not moved(*ends)


def test_equal_layers_bring_no_parameters():
    recipe = meta_kd(
        ProtoNet(), **with_layers(teachers=[Teacher(SmoothConv4(0), head=PrototypeHead(scale=5.0))])
    )
    fit(recipe)
    assert recipe.adapters.layer_pairs
    assert not any(name.startswith("adapters.") for name in recipe.state_dict())


# --- the inner loop --------------------------------------------------------------------------------------


def one_update(learner, loss):
    """(recipe, before, gradients as the difference of one step, episodes with their teacher's answers)."""
    torch.manual_seed(3)
    guide = teacher()
    optimisation = sgd(lr=RATE, momentum=0.0)
    needs = N_WAY if learner.needs_head else 0
    recipe = MetaKD(
        SmoothConv4(needs).double(),
        learner.double(),
        loss.double(),
        [guide],
        optimisation=optimisation,
        strategy_training=StrategyTraining(lr=RATE),
    )
    tasks = [episode(i) for i in range(2)]
    data = Fixed([together(tasks)])
    trainer(max_steps=0, precision="64-true").fit(recipe, datamodule=data)
    recipe.double()
    perturbed(recipe.adapters)
    before = {n: p.detach().clone() for n, p in recipe.named_parameters()}
    trainer(max_steps=1, precision="64-true").fit(recipe, datamodule=data)
    after = dict(recipe.named_parameters())
    slopes = {n: (p - after[n].detach()) / RATE for n, p in before.items()}
    return recipe, before, slopes, [recipe.evaluator.with_teacher_outputs(task) for task in tasks]


def of_part(tensors, prefix):
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


EMBEDDINGS = {"embedding": "embedding"}
WEIGHT = "loss.terms.hints.weights.embedding>embedding.raw"


def teaching_loss(theta, adapters, raw, task):
    """Mean over support rows of CE + w / 2 |A e + b - e_T|^2 / d, written down once more; and norms."""
    e, used = definition.embed(theta, task.support.x)
    hint = e @ adapters["weight"].T + adapters["bias"]
    difference = hint - task.support.teacher_outputs[0].embedding
    hint_loss = difference.pow(2).sum(1) / (2 * difference.shape[1])
    ce = definition.cross_entropy(definition.linear(theta, e), task.support.y)
    return (ce + raw.exp() * hint_loss).mean(), used


def after_steps(theta, adapters, raw, task, steps=2):
    """Query loss after a few steps on the support rows, in which the adapters are constants."""
    at = {n: p.detach().requires_grad_() for n, p in theta.items()}
    for _ in range(steps):
        loss, _ = teaching_loss(at, adapters, raw, task)
        grads = torch.autograd.grad(loss, list(at.values()))
        at = {
            n: (p - INNER_RATE * g).detach().requires_grad_()
            for (n, p), g in zip(at.items(), grads, strict=True)
        }
    _, used = definition.embed(at, task.support.x)
    e, _ = definition.embed(at, task.query.x, used)
    return cross_entropy(definition.linear(at, e), task.query.y).item()


def test_in_the_inner_loop_adapters_are_constants_and_learn_from_a_loss_of_their_own():
    loss = WeightedSum({"targets": CrossEntropy(), "hints": FitNets(EMBEDDINGS, Learned(0.7))})
    recipe, before, slopes, tasks = one_update(MAML(INNER_RATE, 2), loss)
    theta, raw = of_part(before, "student."), before[WEIGHT]
    adapters = of_part(before, "adapters.projections.0:embedding>embedding.")

    def mean(**other):
        at = {"theta": theta, "adapters": adapters, "raw": raw, **other}
        return sum(after_steps(task=task, **at) for task in tasks) / len(tasks)

    of_strategy = {WEIGHT: slopes[WEIGHT]}
    assert relative_error(of_strategy, lambda p: mean(raw=p[WEIGHT]), {WEIGHT: raw}, 0) < TOLERANCE
    of_student = of_part(slopes, "student.")
    assert relative_error(of_student, lambda p: mean(theta=p), theta, 1) < TOLERANCE

    def adapter_loss(p):
        return sum(teaching_loss(theta, p, raw, task)[0].item() for task in tasks) / len(tasks)

    of_adapters = of_part(slopes, "adapters.projections.0:embedding>embedding.")
    assert relative_error(of_adapters, adapter_loss, adapters, 1) < TOLERANCE
    assert recipe.trainer.callback_metrics["train/outer_loss"] == pytest.approx(mean(), rel=1e-6)


@pytest.mark.parametrize(
    "learner",
    [
        MAML(0.05, 2, recompute=True),
        MAML(0.05, 2, first_order=True),
        MAML(0.05, 2, adapts="body"),
        ProtoMAML(0.05, 2),
        IMAML(0.05, 4),
        Reptile(0.05, 2),
    ],
    ids=["recomputed", "first order", "BOIL", "ProtoMAML", "iMAML", "Reptile"],
)
def test_every_learner_that_descends_teaches_by_layers(learner):
    loss = WeightedSum({"targets": CrossEntropy(), "hints": FitNets(MAP, Learned(0.7))})
    recipe, _, slopes, _ = one_update(learner, loss)
    assert slopes["loss.terms.hints.weights.norms/1>norms/1.raw"].any()
    assert all(slope.any() for slope in of_part(slopes, "adapters.").values())
    assert recipe.coefficient_log.values["terms.hints.weights.norms/1>norms/1_mean"] > 0


def test_tasks_together_have_the_gradients_of_one_by_one():
    ends = []
    for at_once in (1, 2):
        torch.manual_seed(1)
        recipe = meta_kd(
            MAML(0.05, 2), loss=hints(Learned()), strategy_lr=0.05, tasks_at_once=at_once
        )
        fit(recipe)
        ends.append(dict(recipe.named_parameters()))
    for name, p in ends[0].items():  # single precision, through two inner steps
        torch.testing.assert_close(p, ends[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "learner", [MAML(0.05, 2, adapts="head"), Logistic()], ids=["ANIL", "logistic"]
)
def test_a_learner_whose_body_stays_has_nothing_to_learn_from_layers(learner):
    with pytest.raises(
        ValueError, match=r"loss=WeightedSum compares layers, and learner=.* the head"
    ):
        meta_kd(learner, **with_layers())


# --- files -------------------------------------------------------------------------------------------------


@each_run
def test_adapters_are_in_the_checkpoint_and_do_not_ship(name, tmp_path):
    recipe = RUNS[name]()
    fit(recipe, data_of(name)).save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = read_checkpoint(tmp_path / "run.ckpt")
    assert f"adapters.{ADAPTER}weight" in checkpoint["state_dict"]
    assert student_weights(checkpoint).keys() == recipe.student.state_dict().keys()


@each_run
def test_the_student_is_tested_without_them(name, tmp_path):
    recipe = RUNS[name]()
    settings = {"val_fraction": 0.25} if name == "SingleTask" else {}
    fit(recipe, data_of(name, **settings)).save_checkpoint(tmp_path / "run.ckpt")
    other = RUNS[name](teachers=list(recipe.teachers))
    trainer().test(
        other, datamodule=data_of(name, **settings), ckpt_path=tmp_path / "run.ckpt", verbose=False
    )
    assert not other.adapters.layer_pairs
    assert other.student.taps == other.teachers[0].model.taps == ()
    assert not moved(state(recipe.student), state(other.student))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@each_run
def test_two_epochs_are_one_and_a_resumed_one_to_the_last_bit(name, tmp_path):
    fixed = helper(12 if name == "SingleTask" else 0)

    def recipe():
        return RUNS[name](teachers=[fixed], optimisation=sgd(weight_decay=1e-3, schedule="cosine"))

    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = {"max_steps": -1, "max_epochs": 2, "enable_checkpointing": True}
    through, resumed = recipe(), recipe()
    first = fit(through, data_of(name), callbacks=[keep], **whole)
    second = trainer(**whole, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)])
    second.fit(resumed, datamodule=data_of(name), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert not moved(state(through), state(resumed))
    momenta = [
        [s["momentum_buffer"] for s in run.optimizers[0].state.values()] for run in (first, second)
    ]
    assert all(map(torch.equal, *momenta))


def test_a_training_starts_from_the_adapters_of_another(tmp_path):
    recipe = RUNS["ProtoNet"]()
    fit(recipe).save_checkpoint(tmp_path / "run.ckpt")
    other = RUNS["ProtoNet"](init=str(tmp_path / "run.ckpt"))
    fit(other, max_steps=0)
    assert not moved(state(recipe.adapters), state(other.adapters))


# --- evaluation with the teacher ---------------------------------------------------------------------------


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_with_its_teacher_at_test_the_student_adapts_by_hints(ema_decay, tmp_path):
    def recipe(**settings):
        optimisation = sgd(ema_decay=ema_decay)
        return RUNS["MAML"](teacher_at_test=True, optimisation=optimisation, **settings)

    trained = recipe()
    fit(trained).save_checkpoint(tmp_path / "run.ckpt")
    path, data, fixed = str(tmp_path / "run.ckpt"), episodes(), list(trained.teachers)
    trainer().test(trained, datamodule=data, verbose=False)
    resumed, begun = recipe(teachers=fixed), recipe(teachers=fixed, init=path)
    trainer().test(resumed, datamodule=data, ckpt_path=path, verbose=False)
    trainer().test(begun, datamodule=data, verbose=False)
    for other in (resumed, begun):
        assert torch.equal(trained.record.episode_rows["nll"], other.record.episode_rows["nll"])
    alone = RUNS["MAML"](teachers=fixed, init=path, optimisation=sgd(ema_decay=ema_decay))
    trainer().test(alone, datamodule=data, verbose=False)
    assert not torch.equal(trained.record.episode_rows["nll"], alone.record.episode_rows["nll"])


def test_with_its_teacher_at_test_it_wants_the_adapters_of_its_training(tmp_path):
    fit(RUNS["MAML"](loss=CrossEntropy())).save_checkpoint(tmp_path / "run.ckpt")
    recipe = RUNS["MAML"](teacher_at_test=True, init=str(tmp_path / "run.ckpt"))
    with pytest.raises(
        ValueError,
        match=r"initialisation\.checkpoint='.*run\.ckpt' has no adapters .* or leave out",
    ):
        trainer().test(recipe, datamodule=episodes(), verbose=False)


# --- teachers ----------------------------------------------------------------------------------------------


def test_teachers_of_different_kinds_each_have_a_loss_of_their_own():
    networks = [
        ResNet(8, widths=(4, 6, 8), stem=4, in_channels=1),
        ViT(8, depth=2, n_heads=2, image_size=8, in_channels=1),
    ]
    pool = [Teacher(net, head=PrototypeHead(scale=5.0)) for net in networks]
    of_resnet = WeightedSum(
        {
            "hints": FitNets({"norms.0": "layer1", "embedding": "embedding"}),
            "attention": AttentionTransfer({"norms.1": "layer2.0.conv1"}),
            "similarity": SimilarityPreserving({"norms.2": "layer3"}),
        }
    )
    pairs = WhatWhere(
        {"norms.0": ["blocks.0", "blocks.1"], "norms.1": ["blocks.1"]},
        LearnedPerMap(8),
        LearnedPerChannel(8),
    )
    loss = WeightedSum(
        {"targets": CrossEntropy(), "resnet": OfTeacher(0, of_resnet), "vit": OfTeacher(1, pairs)}
    )
    recipe = meta_kd(ProtoNet(), loss=loss, teachers=pool, optimisation=sgd(lr=0.01))
    fit(recipe, max_steps=0)
    before = state(recipe)
    assert len(recipe.adapters.projections) == 5
    assert recipe.teachers[0].model.taps == ("layer1", "layer2.0.conv1", "layer3")
    assert recipe.teachers[1].model.taps == ("blocks.0", "blocks.1")
    fit(recipe)
    actual = moved(before, state(recipe))
    assert {n for n in before if n.startswith("adapters.")} <= actual
    assert {n for n in actual if n.startswith("loss.")}


def test_a_loss_of_every_teacher_has_adapters_for_each():
    pool = [helper(), Teacher(SmoothConv4(0, width=6), head=PrototypeHead(scale=5.0))]
    recipe = meta_kd(ProtoNet(), **with_layers(MultiTeacher(FitNets(MAP)), teachers=pool))
    fit(recipe)
    shapes = [tuple(p.weight.shape[:2]) for p in recipe.adapters.projections.values()]
    assert shapes == [(4, 3), (6, 3)]


def test_a_teacher_that_is_not_there_is_told_when_training_begins():
    recipe = meta_kd(ProtoNet(), **with_layers(OfTeacher(1, FitNets(MAP))))
    with pytest.raises(ValueError, match=r"teacher=1 is not among the 1 of model\.teachers"):
        fit(recipe)


def test_a_layer_that_is_not_there_is_told_when_training_begins():
    recipe = meta_kd(ProtoNet(), **with_layers(FitNets({"norms.1": "block3"})))
    with pytest.raises(
        ValueError, match=r"layer 'block3' is no module; choose from convs, convs\.0"
    ):
        fit(recipe)


def test_a_step_that_listens_to_modules_runs_uncompiled_and_says_so(caplog):
    recipe = meta_kd(ProtoNet(), **with_layers(compile_step=True))
    fit(recipe)
    assert recipe.training_cost()["compiled"] is False
    told_so = "compile_step=true compiles nothing: the loss listens to norms.1 of the student."
    assert any(told_so in message for message in caplog.messages)


def test_a_cache_is_left_alone_where_layers_are_read(caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    ends = []
    for cache in (False, True):
        torch.manual_seed(1)
        recipe = meta_kd(ProtoNet(), **with_layers(teachers=[helper(cache=cache)]))
        fit(recipe)  # views without number, which a cache could not keep
        ends.append(state(recipe.student))
    assert not moved(*ends)
    assert recipe.teachers[0].output_cache is None
    (text,) = (r.getMessage() for r in caplog.records if "cache" in r.getMessage())
    assert text.startswith("teachers[0] keeps a cache, which has no layers but the embedding")
    assert "reads norms.1: this teacher is asked live" in text


def test_embeddings_are_compared_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    recipe = meta_kd(ProtoNet(), **with_layers(FitNets(EMBEDDINGS), teachers=[helper(cache=True)]))
    fit(recipe, episodes(views=2))
    assert recipe.teachers[0].output_cache is not None
    assert recipe.adapters.layer_pairs
