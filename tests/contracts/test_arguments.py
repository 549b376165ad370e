"""Constructors change nothing that they are given, nor does a training what a recipe was given."""

import pytest
import torch
from torch import nn

from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import CalibratedCrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.wrapped import Wrapped
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from tests.commands import Net
from tests.recipes.runs import batches, episodes, gate, helper, meta_kd, moved, single_task, state
from tests.tiny import N_WAY, Blobs, SmoothConv4, perturbed, trainer

KEPT = [Share({"convs.0": "convs.0"}, how="freeze")]
CONSTRUCTORS = {
    "MetaKD.student": (SmoothConv4, lambda it: meta_kd(student=it)),
    "MetaKD.student, wrapped": (Net, lambda it: meta_kd(student=it, norm="batch")),
    "MetaKD.student, shared": (
        SmoothConv4,
        lambda it: meta_kd(student=it, share=KEPT, teachers=[Teacher(SmoothConv4(0))]),
    ),
    "MetaKD.learner": (lambda: MetaSGD(0.1), meta_kd),
    "MetaKD.learner, compiled": (
        lambda: MAML(recompute=True),
        lambda it: meta_kd(it, compile_step=True),
    ),
    "MetaKD.loss": (gate, lambda it: meta_kd(loss=it, strategy_lr=0.0)),
    "MetaKD.loss, a control": (gate, lambda it: meta_kd(loss=it, control="step_size")),
    "MetaKD.teachers": (helper, lambda it: meta_kd(teachers=[it], teacher_lr=0.1)),
    "MetaKD.quiz": (CalibratedCrossEntropy, lambda it: meta_kd(quiz=it)),
    "SingleTask.student": (lambda: SmoothConv4(12), single_task),
    "Teacher.model": (SmoothConv4, Teacher),
    "Teacher.head": (lambda: PrototypeHead(scale=5.0), lambda it: Teacher(SmoothConv4(0), head=it)),
    "Teacher.top": (lambda: MLP(4), lambda it: Teacher(SmoothConv4(0, width=4), top=it)),
    "Embedded.model": (SmoothConv4, lambda it: Embedded(Blobs(), it)),
    "Wrapped.module": (Net, Wrapped),
    "MatchGate.gate": (LearnedPerSample, MatchGate),
    "Hinton.temperature": (Learned, Hinton),
    "MultiTeacher.weights": (Learned, lambda it: MultiTeacher(Hinton(), [it, 1.0])),
}


def traits(module: nn.Module) -> dict:
    """All of a module that could be changed but its values."""
    parts = {
        name: (
            *(type(part), part.training, len(part._forward_hooks)),
            *(getattr(part, what, None) for what in ("interval", "form", "compiled")),
        )
        for name, part in module.named_modules()
    }
    return parts | {f"{name} learns": p.requires_grad for name, p in module.named_parameters()}


@pytest.mark.parametrize(("make", "build"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_a_constructor_changes_nothing_that_it_is_given(make, build):
    inputs = perturbed(make())
    before, values = traits(inputs), state(inputs)
    build(inputs)
    assert traits(inputs) == before
    assert not moved(values, state(inputs))


@pytest.mark.parametrize(
    ("make", "data", "n_classes"), [(meta_kd, episodes, 0), (single_task, batches, 12)]
)
def test_a_training_changes_nothing_that_the_recipe_was_given(make, data, n_classes):
    settings = {"loss": gate(), "student": SmoothConv4(n_classes or N_WAY)}
    teachers, learner = [helper(n_classes)], MAMLPlusPlus(0.05, 2)
    everything = nn.ModuleList([*settings.values(), *teachers, learner])
    before, values = traits(everything), state(everything)
    result = {"learner": learner} if make is meta_kd else {}
    recipe = make(**settings, **result, teachers=teachers, teacher_lr=0.1)
    trainer(max_steps=2).fit(recipe, datamodule=data())
    assert traits(everything) == before
    assert not moved(values, state(everything))
    assert moved(state(settings["student"]), state(recipe.student))


def test_a_loss_that_was_kept_in_one_recipe_learns_in_another():
    loss = gate()
    meta_kd(loss=loss, strategy_lr=0.0)
    recipe = meta_kd(loss=loss)
    trainer(max_steps=1).fit(recipe, datamodule=episodes())
    assert moved(state(loss), state(recipe.loss))


def test_a_network_teaches_in_one_recipe_and_learns_in_another():
    net = SmoothConv4()
    recipe = meta_kd(student=net, teachers=[Teacher(net, head=PrototypeHead(scale=5.0))])
    trainer(max_steps=1).fit(recipe, datamodule=episodes())
    assert moved(state(net), state(recipe.student))
    assert not moved(state(net), state(recipe.teachers[0].model))


def test_rates_of_one_recipe_stay_when_another_begins_with_the_same_learner():
    learner = MetaSGD(0.05)
    recipe = meta_kd(learner)
    trainer(max_steps=1).fit(recipe, datamodule=episodes())
    before = state(recipe.learner)
    meta_kd(learner)
    assert before
    assert not moved(before, state(recipe.learner))


def test_what_one_recipe_trained_begins_another():
    first = meta_kd()
    trainer(max_steps=1).fit(first, datamodule=episodes())
    second = meta_kd(student=first.student, norm="batch")
    assert torch.equal(first.student.convs[0].weight, second.student.convs[0].weight)
    assert {m.form for m in first.student.norms} == {"support"}
