"""A class is known by its name: to teachers, heads, strategies and checkpoints, whatever its number is."""

import zlib
from pathlib import Path

import pytest
import torch

from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.coefficient import LearnedPerClass
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.storage.read_checkpoint import class_names, read_checkpoint
from lightning_metakd.strategy.strategy_file import load_strategy, save_strategy
from lightning_metakd.teachers.heads import SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from lightning_metakd.types import Batch
from tests.recipes.runs import episodes, grouped, helper, meta_kd, sgd
from tests.tiny import Blobs, SmoothConv4, trainer

GARDEN, MARKET = ["apple", "bean", "cherry", "date"], ["bean", "cherry", "date", "elder"]


def pattern(name):
    """What a class looks like wherever it is met."""
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand(1, 8, 8, generator=draw)


class Pictures(Source):
    """Grey images of named classes, all of them in one split."""

    splits = ("train",)

    def __init__(self, names):
        y = torch.arange(len(names)).repeat_interleave(8)
        noise = torch.rand(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(3))
        x = 255 * (0.9 * torch.stack([pattern(name) for name in names])[y] + 0.1 * noise)
        self.all = Labelled(x.to(torch.uint8), y, torch.arange(len(y)), tuple(names))

    def all_rows(self):
        return self.all

    def select(self, split):
        return self.all.index


class Expert(Model):
    """Knows some classes perfectly."""

    def __init__(self, names):
        super().__init__()
        self.embedding_width, self.head = 64, torch.nn.Linear(64, len(names))
        templates = torch.stack([pattern(name).flatten() for name in names])
        with torch.no_grad():
            self.head.weight.copy_(templates - templates.mean(1, keepdim=True))
            self.head.bias.zero_()

    def body(self, x):
        return x.flatten(1), {}


def data(names, **settings):
    return SupervisedData(Pictures(names), **{"batch_size": 16, "augment": False, **settings})


def of_expert(names, folder):
    """The checkpoint of a run that hardly moved an expert."""
    run = trainer(max_steps=1)
    student = SingleTask(Expert(names), optimisation=sgd(lr=1e-9, momentum=0.0))
    run.fit(student, datamodule=data(names))
    run.save_checkpoint(folder / "expert.ckpt")
    return str(folder / "expert.ckpt")


def pupil(n, **settings):
    return SingleTask(SmoothConv4(n), Hinton(), optimisation=sgd(), **grouped(settings))


def fit(recipe, module):
    trainer(max_steps=1).fit(recipe, datamodule=module)
    return recipe


def all_rows(source):
    x, y, index, _ = source.all_rows()
    view = torch.full_like(index, -1)
    return Batch(source.inputs(x, index, view), y, index, view)


# --- teachers ----------------------------------------------------------------------------------------


def test_a_checkpoint_names_its_classes(tmp_path):
    assert class_names(read_checkpoint(Path(of_expert(GARDEN, tmp_path)))) == tuple(GARDEN)


@pytest.mark.parametrize("names", [MARKET[:3], MARKET[2::-1], ["date", "apple"]])
def test_a_teacher_is_right_about_its_classes_under_other_numbers(names, tmp_path):
    teacher = Teacher(Expert(GARDEN), of_expert(GARDEN, tmp_path), SlicedHead())
    recipe = fit(pupil(len(names), teachers=[teacher]), data(names))
    rows = all_rows(Pictures(names))
    (answer,) = recipe.with_teacher_outputs(rows).teacher_outputs
    assert torch.equal(answer.logits.argmax(1), rows.y)


def test_a_class_that_a_teacher_does_not_know_is_refused_by_name(tmp_path):
    teacher = Teacher(Expert(GARDEN), of_expert(GARDEN, tmp_path), SlicedHead())
    message = (
        r"cannot answer for elder: the teacher was trained on 4 other classes \(apple, bean, cher"
    )
    with pytest.raises(ValueError, match=message):
        fit(pupil(4, teachers=[teacher]), data(MARKET))


def test_classes_can_be_named_for_weights_that_do_not(tmp_path):
    torch.save(Expert(GARDEN).state_dict(), tmp_path / "plain.pt")
    teacher = Teacher(Expert(GARDEN), str(tmp_path / "plain.pt"), SlicedHead(), classes=GARDEN)
    fit(pupil(3, teachers=[teacher]), data(MARKET[:3]))
    nameless = Teacher(Expert(GARDEN), str(tmp_path / "plain.pt"), SlicedHead())
    message = "nothing says which classes they stand for; name them in the teacher's classes"
    with pytest.raises(ValueError, match=message):
        fit(pupil(3, teachers=[nameless]), data(MARKET[:3]))


def test_classes_that_are_not_those_of_the_checkpoint_are_refused(tmp_path):
    path = of_expert(GARDEN, tmp_path)
    Teacher(Expert(GARDEN), path, SlicedHead(), classes=GARDEN).open()
    message = r"classes of the teacher begin with bean, .* records apple, .*; leave classes out"
    with pytest.raises(ValueError, match=message):
        Teacher(Expert(GARDEN), path, SlicedHead(), classes=MARKET).open()


def test_a_head_of_other_width_than_the_classes_is_refused():
    teacher = Teacher(Expert(GARDEN[:2]), head=SlicedHead(), classes=GARDEN)
    message = (
        "one logit for each of the 4 classes that the teacher was trained on, .* network has 2"
    )
    with pytest.raises(ValueError, match=message):
        fit(pupil(3, teachers=[teacher]), data(MARKET[:3]))


class Renamed(Blobs):
    """The same rows, numbered the other way round."""

    def __init__(self):
        super().__init__()
        self.all = self.all._replace(class_names=tuple(reversed(self.all.class_names)))


@pytest.mark.parametrize(
    ("trained_on", "refused"), [(range(9), "blob 8"), (range(8), None), (range(12, 20), "blob 19")]
)
def test_a_teacher_that_has_seen_what_judges_a_strategy_is_found_by_name(trained_on, refused):
    recipe = meta_kd(teachers=[helper(classes=[f"blob {c}" for c in trained_on])])
    module = episodes()
    module.source = Renamed()  # trains on the numbers 0 to 11: blob 19 to blob 8
    if refused is None:
        fit(recipe, module)
    else:
        with pytest.raises(ValueError, match=rf"would be judged \({refused}[,)]"):
            fit(recipe, module)


def test_that_a_teacher_without_a_record_cannot_be_checked_is_said_once(caplog):
    message = "teachers[0] has no record of the classes it was trained on"
    fit(meta_kd(), episodes())
    assert caplog.text.count(message) == 1
    caplog.clear()
    fit(meta_kd(strategy_lr=0.0), episodes())
    fit(meta_kd(teachers=[helper(classes=["elder"])]), episodes())
    assert message not in caplog.text


def test_what_the_student_began_with_counts_among_what_it_knows(tmp_path, caplog):
    run = trainer(max_steps=1)
    run.fit(first := meta_kd(ProtoNet(), strategy_lr=0.0), datamodule=episodes())
    run.save_checkpoint(tmp_path / "first.ckpt")
    settings = {"quiz_classes": "other", "student": first.student}
    module = {"train_split": "teacher", "strategy_split": "strategy"}
    fit(meta_kd(ProtoNet(), **settings), episodes(**module))
    assert "The student is trained on" not in caplog.text
    fit(meta_kd(ProtoNet(), init=str(tmp_path / "first.ckpt"), **settings), episodes(**module))
    assert "The student is trained on 3 of the 3 classes" in caplog.text


# --- heads of students -------------------------------------------------------------------------------


def accuracy(recipe, names):
    trainer().test(recipe, datamodule=data(names, val_fraction=0.5), verbose=False)
    return recipe.record.result["accuracy"]


def test_a_head_of_the_same_classes_in_another_order_is_put_in_theirs(tmp_path):
    path, names = of_expert(GARDEN, tmp_path), GARDEN[::-1]
    assert accuracy(SingleTask(Expert(MARKET), initialisation=Initialisation(path)), names) == 1.0


def test_a_head_of_other_classes_is_dropped_and_said(tmp_path, caplog):
    path, student = of_expert(GARDEN, tmp_path), Expert(MARKET)
    recipe = fit(
        SingleTask(student, optimisation=sgd(lr=1e-9), initialisation=Initialisation(path)),
        data(MARKET),
    )
    torch.testing.assert_close(recipe.student.head.weight, Expert(MARKET).head.weight)
    message = "the head was not loaded: it knows apple, bean, cherry .. (4 in all), and not elder."
    assert message in caplog.text
    with pytest.raises(
        ValueError,
        match=r"with a head that nobody has trained\. initialisation\.checkpoint=.*not elder",
    ):
        accuracy(SingleTask(Expert(MARKET), initialisation=Initialisation(path)), MARKET)


@pytest.mark.parametrize("names", [MARKET, GARDEN[::-1]])
def test_a_checkpoint_is_not_tested_on_other_classes(names, tmp_path):
    path = of_expert(GARDEN, tmp_path)
    message = (
        r"the student of this checkpoint tells apple, .* apart, and the classes of Pictures are"
    )
    with pytest.raises(ValueError, match=message):
        trainer().test(
            SingleTask(Expert(names)),
            datamodule=data(names, val_fraction=0.5),
            ckpt_path=path,
            weights_only=True,
            verbose=False,
        )


def test_a_head_of_other_classes_is_not_shared():
    teacher = Teacher(Expert(GARDEN), head=SlicedHead(), classes=GARDEN)
    share = [Share({"head": "head"}, how="copy")]
    message = r"share names 'head' .*, which tells apple, .* the classes of the data are bean"
    student = Expert(MARKET)
    with pytest.raises(ValueError, match=message):
        fit(SingleTask(student, Hinton(), [teacher], **grouped({"share": share})), data(MARKET))


# --- strategies --------------------------------------------------------------------------------------


def per_class(*values):
    loss = MatchGate(LearnedPerClass(len(values)))
    with torch.no_grad():
        loss.gate.raw.copy_(torch.tensor(values))
    return loss


@pytest.fixture
def written(tmp_path):
    """The file of a strategy with a number for each class of the garden."""
    numbers, path = {name: k for k, name in enumerate(GARDEN)}, tmp_path / "strategy.safetensors"
    save_strategy(per_class(1.0, 2.0, 3.0, 4.0), path, [], [], classes=numbers)
    return path


def test_numbers_of_each_class_go_by_name(written):
    other = per_class(0.0, 0.0, 0.0)
    load_strategy(other, written, classes={"date": 0, "bean": 2})
    assert other.gate.raw.tolist() == [4.0, 0.0, 2.0]


def test_a_strategy_of_other_classes_is_refused_by_name(written):
    with pytest.raises(
        ValueError, match=r"has no gate for elder: it was learned on apple, bean, c"
    ):
        load_strategy(per_class(0.0, 0.0), written, classes={"bean": 0, "elder": 1})


def test_a_strategy_of_each_class_goes_to_data_that_number_them_otherwise(tmp_path):
    def run(names, **settings):
        teacher = Teacher(Expert(GARDEN), head=SlicedHead(), classes=GARDEN)
        options = {"teachers": [teacher], "optimisation": sgd(), "strategy_lr": 0.0, **settings}
        return fit(
            SingleTask(SmoothConv4(len(names)), per_class(0.0, 0.0, 0.0), **grouped(options)),
            data(names),
        )

    first = run(MARKET[:3])
    with torch.no_grad():
        first.loss.gate.raw.copy_(torch.tensor([1.0, 2.0, 3.0]))
    first.save_strategy(path := tmp_path / "strategy")
    assert run(MARKET[2::-1], strategy_file=str(path)).loss.gate.raw.tolist() == [3.0, 2.0, 1.0]
