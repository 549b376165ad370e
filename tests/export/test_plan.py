"""What can be exported, and what is refused in one line."""

import pytest

from lightning_metakd.export.plan import check_norms, learner_for, plan_for
from lightning_metakd.learners import MAML, Logistic, ProtoNet, Ridge
from lightning_metakd.losses import LearnedPerSample
from lightning_metakd.models import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.types import Normalisation
from tests.recipes.runs import batches, episodes, meta_kd, single_task


def student(n_classes=0, width=4):
    return Conv4(width=width, n_classes=n_classes, in_channels=1, pooling="average")


@pytest.mark.parametrize(
    "learner", [ProtoNet(), Ridge(), Logistic()], ids=lambda x: type(x).__name__
)
def test_heads_that_adapt_in_a_graph_are_exported_as_they_are(learner):
    recipe = meta_kd(learner, student=student(), norm="running")
    plan = plan_for(recipe, episodes(), "auto")
    assert (plan.kind, type(plan.learner)) == ("adaptable", type(learner))
    assert (plan.size, plan.channels, len(plan.reading.mean)) == (8, 1, 1)
    assert plan.row_by_row


def test_a_single_task_is_a_classifier_of_its_classes():
    data = batches()
    plan = plan_for(single_task(student=student(12)), data, "auto")
    assert (plan.kind, plan.learner) == ("classifier", None)
    assert list(plan.classes) == data.train_class_names()


def test_the_head_may_be_chosen():
    recipe = single_task(student=student(12))
    assert plan_for(recipe, batches(), "none").kind == "features"
    assert isinstance(plan_for(recipe, batches(), "prototypes").learner, ProtoNet)
    ridge = meta_kd(Ridge(), student=student(), norm="running")
    assert plan_for(ridge, episodes(), "prototypes").learner.metric == "cosine"


def test_pixels_are_normalised_as_in_the_training_of_the_weights():
    recipe = meta_kd(ProtoNet(), student=student(), norm="running")
    reading = Normalisation((0.25,), (0.125,))
    recipe.student.read_as(reading, "it")
    assert plan_for(recipe, episodes(), "auto").reading == reading


def test_gradient_descent_is_refused_with_what_can_be_done():
    recipe = meta_kd(MAML(0.1, 1), student=student(3))
    with pytest.raises(ValueError, match=r"learner=MAML adapts by gradients .* --head prototypes"):
        learner_for(recipe, "auto")
    assert isinstance(learner_for(recipe, "prototypes"), ProtoNet)
    assert learner_for(recipe, "none") is None


def test_a_learner_that_asks_for_more_than_labels_is_refused():
    weighed = meta_kd(ProtoNet(support_weight=LearnedPerSample()), student=student())
    with pytest.raises(ValueError, match=r"ProtoNet .*(asks a teacher|weighs its support rows)"):
        learner_for(weighed, "auto")
    assert learner_for(weighed, "prototypes").support_weight is None
    assert learner_for(weighed, "none") is None


def test_norms_by_the_query_rows_are_refused():
    with pytest.raises(ValueError, match=r"norm='batch' of 'norms.0' .* one by one"):
        check_norms(make_episodic(student(), "batch"))


def test_features_need_norms_that_have_statistics():
    recipe = meta_kd(ProtoNet(), student=student(), norm="support")
    assert not plan_for(recipe, episodes(), "auto").row_by_row
    with pytest.raises(ValueError, match="norm=support"):
        plan_for(recipe, episodes(), "none")


def test_rows_that_are_no_pictures_are_refused(monkeypatch):
    recipe, data = meta_kd(ProtoNet(), student=student(), norm="running"), episodes()
    monkeypatch.setattr(data.source, "reading", lambda reading: None)  # as an embedded source
    with pytest.raises(ValueError, match="rows that are neither pictures nor texts"):
        plan_for(recipe, data, "auto")
