"""What a network was trained with goes where it goes: how it reads images, which other data it has seen."""

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils._pytree import tree_map

from lightning_metakd.data.sources.augment import normalise
from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.preprocessed import Preprocessed
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Normalisation
from tests.recipes.runs import batches, episodes, helper, meta_kd, sgd, single_task
from tests.tiny import Blobs, SmoothConv4, trainer

RUNS = {"MetaKD": (meta_kd, episodes), "SingleTask": (single_task, batches)}
each_recipe = pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)
HERE, OTHER = Blobs().normalisation(), Normalisation((0.4,), (0.1,))
ROWS = torch.arange(0, 240, 7)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))


class Elsewhere(Blobs):
    """Brighter images of the same classes."""

    def __init__(self) -> None:
        super().__init__(level=128)


class TestAlone(Blobs):
    """Images of classes to test on, and no others."""

    __test__ = False
    of_split = Blobs.of_split | dict.fromkeys(("train", "teacher", "strategy"), ())


def alone():
    """A student without teachers, which compares with class means."""
    return meta_kd(ProtoNet(), loss=None, teachers=None, strategy_lr=0.0)


def on(source, data):
    data.source = source
    return data


def fitted(recipe, data, tmp_path):
    """The checkpoint of a step of training."""
    run = trainer(max_steps=1)
    run.fit(recipe, datamodule=data)
    run.save_checkpoint(tmp_path / "it.ckpt")
    return tmp_path / "it.ckpt"


def read(recipe):
    """All batches that the student reads in a run from now on."""
    inputs = []
    recipe.student.register_forward_pre_hook(lambda net, args: inputs.append(args[0]))
    return inputs


def pixels(source, rows=ROWS, view=-1, normalisation=OTHER):
    """A view of some rows, normalised."""
    views = source.augmented(source.all_rows().x[rows], rows, torch.full_like(rows, view))
    return normalise(views, *normalisation)


@each_recipe
def test_a_student_is_saved_with_the_normalisation_of_its_training(make, data, tmp_path):
    saved = torch.load(fitted(make(), data(), tmp_path), weights_only=True)
    assert saved["reading"] == {"mean": list(HERE.mean), "std": list(HERE.std)}
    assert saved["external_data"] == []


@pytest.mark.parametrize("how", ["checkpoint", "init", "averaged"])
def test_a_student_reads_another_source_as_it_was_trained(how, tmp_path):
    settings = {"optimisation": sgd(ema_decay=0.5)} if how == "averaged" else {}
    path = fitted(alone(), episodes(), tmp_path)
    data = on(Elsewhere(), episodes(augment=False))
    init = {"init": str(path)} if how == "init" else {}
    other = meta_kd(ProtoNet(), loss=None, teachers=None, strategy_lr=0.0, **init, **settings)
    if how == "averaged":
        path = fitted(other, episodes(), tmp_path)
    recorded = read(other)
    other.eval_student.register_forward_pre_hook(lambda net, args: recorded.append(args[0]))
    named = {} if how == "init" else {"ckpt_path": path}
    trainer().test(other, datamodule=data, verbose=False, **named)
    assert other.student.reading == HERE
    lowest = (128 / 255 - HERE.mean[0]) / HERE.std[0]
    assert min(x.min() for x in recorded if x.numel()) == pytest.approx(lowest, abs=0.2)


def test_a_start_of_another_source_is_trained_as_it_was_read_there(tmp_path):
    path = fitted(alone(), on(Elsewhere(), episodes()), tmp_path)
    other = meta_kd(ProtoNet(), loss=None, teachers=None, strategy_lr=0.0, init=str(path))
    saved = torch.load(fitted(other, episodes(), tmp_path), weights_only=True)
    assert saved["reading"]["mean"] == list(Elsewhere().normalisation().mean)


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_a_teacher_reads_the_students_view_as_it_was_trained(cache, larger, tmp_path):
    path = fitted(alone(), on(Elsewhere(), episodes()), tmp_path)
    net = Preprocessed(SmoothConv4(0), size=16) if larger else SmoothConv4(0)
    teacher = Teacher(net, str(path), PrototypeHead(scale=5.0), cache=cache)
    recipe, data = meta_kd(ProtoNet(), teachers=[teacher], strategy_lr=0.0), episodes(views=2)
    trainer(max_steps=1).fit(recipe, datamodule=data)
    (train,) = recipe.teachers
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    query = tree_map(lambda leaf: leaf[0], batch.train).query
    views = Blobs().augmented(Blobs().all.x[query.index], query.index, query.view)
    assert query.x.equal(normalise(views, *HERE))
    if larger:
        views = interpolate(views.float(), (16, 16), mode="bicubic", antialias=True)
    mean, std = Elsewhere().normalisation()
    body = train.model.model if larger else train.model
    expected = body((views / 255 - mean[0]) / std[0]).embedding
    actual = train.embed(query).embedding
    assert (actual - expected).norm() < 1e-4 * expected.norm()
    assert (train.model(query.x).embedding - expected).norm() > 0.01 * expected.norm()


def test_a_teacher_of_the_same_normalisation_reads_the_very_inputs_of_the_student(tmp_path):
    teacher = helper(
        checkpoint=str(fitted(meta_kd(ProtoNet(), SmoothConv4(0, width=4)), episodes(), tmp_path))
    )
    teacher.open()
    teacher.attach_source(Blobs(), SmoothConv4())
    assert teacher.conversion is None


def test_an_embedding_network_reads_images_as_it_was_trained(tmp_path):
    path = fitted(alone(), on(Elsewhere(), episodes()), tmp_path)
    source = Embedded(Blobs(), SmoothConv4(0), str(path), views=1)
    actual = source.all_rows().x[ROWS]
    for view in (-1, 0):
        expected = source.model(
            pixels(Blobs(), view=view, normalisation=Elsewhere().normalisation())
        )
        assert (actual[:, view + 1] - expected.embedding).norm() < 1e-5 * expected.embedding.norm()


def test_classes_to_test_on_alone_are_read_by_a_trained_network_only(tmp_path):
    data, other = on(TestAlone(), episodes()), alone()
    path = fitted(alone(), episodes(), tmp_path)
    trainer().test(other, datamodule=data, ckpt_path=path, verbose=False)
    assert 0 < other.record.result["accuracy"] <= 1
    message = r"split 'train' of TestAlone has no images to take mean .*; name a checkpoint, .* Preprocessed"
    with pytest.raises(ValueError, match=message):
        trainer().test(alone(), datamodule=data, verbose=False)
    inputs = meta_kd(
        *(ProtoNet(), Preprocessed(SmoothConv4(0), mean=0.5, std=0.25)),
        **{"loss": None, "teachers": None, "strategy_lr": 0.0},
    )
    trainer().test(inputs, datamodule=data, verbose=False)
    assert 0 < inputs.record.result["accuracy"] <= 1


def test_a_network_of_colours_does_not_read_grey_images(tmp_path):
    student = Preprocessed(SmoothConv4(0), mean="imagenet", std="imagenet")
    message = r"mean=\[0\.485, .*\], by which .* is of 3 channels, and images of Blobs have 1; read them with"
    with pytest.raises(ValueError, match=message):
        trainer(max_steps=1).fit(
            meta_kd(ProtoNet(), student, loss=None, teachers=None, strategy_lr=0.0),
            datamodule=episodes(),
        )


@pytest.mark.parametrize(
    "damage",
    [{"mean": "x"}, {"mean": [0.5], "std": [0.0]}, [], {"mean": [float("nan")], "std": [1.0]}],
)
def test_a_damaged_reading_is_told(damage, tmp_path):
    path = fitted(alone(), episodes(), tmp_path)
    torch.save(torch.load(path, weights_only=True) | {"reading": damage}, path)
    with pytest.raises(
        ValueError, match=r"teacher .*it\.ckpt: what the checkpoint says of its reading.*damaged"
    ):
        Teacher(SmoothConv4(0), str(path)).open()


# --- data beside those of the experiment ----------------------------------------------------------------


def test_who_learned_from_a_network_of_other_data_says_so_for_ever(tmp_path):
    teacher = Teacher(
        Preprocessed(SmoothConv4(0, width=4), pretrained_on="ImageNet"),
        head=PrototypeHead(scale=5.0),
    )
    train = meta_kd(ProtoNet(), teachers=[teacher])
    path = fitted(train, episodes(), tmp_path)
    later = meta_kd(ProtoNet(), loss=None, teachers=None, strategy_lr=0.0, init=str(path))
    trainer().test(later, datamodule=episodes(), verbose=False)
    assert later.record.result["external_data"] == "ImageNet"
    again = meta_kd(
        ProtoNet(), teachers=[Teacher(SmoothConv4(0), str(path), PrototypeHead(scale=5.0))]
    )
    trainer().test(again, datamodule=episodes(), verbose=False)
    assert again.record.result["external_data"] == "ImageNet"
    trainer().test(untouched := alone(), datamodule=episodes(), verbose=False)
    assert untouched.record.result["external_data"] is None


def test_vectors_of_a_network_of_other_data_are_marked():
    source = Embedded(Blobs(), Preprocessed(SmoothConv4(0), pretrained_on="ImageNet"), views=0)
    assert source.external_data == ("ImageNet",)
