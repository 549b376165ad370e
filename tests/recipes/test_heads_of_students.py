"""The head of a student has one logit for each class, or is left out where the learner brings its own."""

import pytest
import torch
from torchvision.models import resnet18

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.model import head_width
from lightning_metakd.models.preprocessed import Preprocessed
from lightning_metakd.models.wrapped import Wrapped, as_model
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.single_task import SingleTask
from tests.commands import Net
from tests.tiny import Blobs, trainer


class Grey(Net):
    """A network of somebody who does not know this project, for grey images."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__(n_classes)
        self.conv = torch.nn.Conv2d(1, 6, 3, stride=2)


def episodes(**settings):
    settings = {
        "n_way": 3,
        "k_shot": 2,
        "n_query": 2,
        "meta_batch_size": 1,
        "n_episodes": 2,
    } | settings
    return EpisodicData(Blobs(), steps_per_epoch=1, **settings)


@pytest.mark.parametrize("learner", [MAML(inner_steps=1), MetaSGD()], ids=["MAML", "MetaSGD"])
@pytest.mark.parametrize("head", [10, 0, 3])
@pytest.mark.parametrize("around", [as_model, Preprocessed], ids=["plain", "preprocessed"])
def test_a_wrapped_network_is_given_a_logit_for_each_class(around, learner, head, caplog):
    student = around(Wrapped(Grey(), n_classes=head))
    recipe = MetaKD(student, learner, optimisation=Optimisation(ema_decay=0.5))
    run = trainer()
    run.fit(recipe, episodes())
    assert head_width(recipe.student) == head_width(recipe.eval_student) == 3
    assert ("replaced by one of 3" in caplog.text) == (head != 3)
    assert run.global_step == 1
    run.test(recipe, episodes(), verbose=False)


@pytest.mark.parametrize("student", [Grey(), Preprocessed(Grey(), size=12)])
def test_a_classifier_that_the_learner_does_not_use_is_left_out(student, caplog):
    recipe = MetaKD(student, ProtoNet())
    trainer().fit(recipe, episodes())
    assert head_width(recipe.student) == 0
    assert "ProtoNet brings its own classifier: the student's is left out." in caplog.text


def test_a_single_task_gives_a_logit_to_each_class_of_its_data(caplog):
    recipe = SingleTask(Grey(), optimisation=Optimisation(ema_decay=0.5))
    trainer().fit(recipe, SupervisedData(Blobs(), batch_size=24))
    assert [head_width(network) for network in recipe.students()] == [12, 12, 12]
    assert "head of 10 logits is replaced by one of 12" in caplog.text


def test_a_torchvision_network_is_a_student_as_it_is():
    recipe = MetaKD(resnet18(num_classes=7), ProtoNet())
    assert recipe.student.classifier == "fc"
    assert head_width(recipe.student) == 0


def test_a_network_of_the_project_says_which_size_it_needs():
    student = Conv4(4, n_classes=3, in_channels=1, image_size=16)
    with pytest.raises(
        ValueError, match=r"has 3 logits for the 4 classes of the data; set the n_classes"
    ):
        trainer().fit(MetaKD(student, MAML()), episodes(n_way=4))


def test_one_head_cannot_have_two_sizes():
    student = Conv4(4, n_classes=3, in_channels=1, image_size=16)
    with pytest.raises(
        ValueError, match=r"train_n_way=4 and n_way=3 want heads of two sizes, and MAML"
    ):
        trainer().fit(MetaKD(student, MAML()), episodes(train_n_way=4))
