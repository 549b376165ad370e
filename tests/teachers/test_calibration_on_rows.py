import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.known_classes import KnownClasses
from lightning_metakd.models.prototypes import class_means
from lightning_metakd.teachers.heads import SlicedHead
from lightning_metakd.teachers.preparation import calibrate_on_rows, outputs_needed
from lightning_metakd.teachers.teacher_pool import TeacherPool
from tests.recipes.runs import batches, helper, single_task
from tests.tiny import Blobs, trainer

OVERSURE = 4000.0
KNOWS = 5
"""Classes of the specialist; the data have twelve."""


def specialist(sharpness=OVERSURE, unknown="least", classes=None, **settings):
    """A teacher of the nearest class mean among a few classes, which is surer than it should be."""
    torch.manual_seed(2)
    names = classes or [f"blob {c}" for c in range(3, 3 + KNOWS)]
    teacher = helper(len(names), classes=names, head=SlicedHead(None, unknown), **settings)
    rows = Blobs().all_rows()
    at = torch.tensor([rows.class_names[c] in names for c in rows.y.tolist()])
    x = Blobs().inputs(rows.x[at], rows.index[at], torch.full_like(rows.index[at], -1))
    with torch.no_grad():
        means = class_means(teacher.model(x).embedding, rows.y[at] - rows.y[at].min(), len(names))
        teacher.model.head.weight.copy_(2 * sharpness * means)
        teacher.model.head.bias.copy_(-sharpness * means.square().sum(1))
    return teacher


def trained(teacher, **settings):
    """The recipe and the data of a step by a teacher."""
    recipe = single_task(teachers=[teacher], loss=KnownClasses(Hinton()), strategy_lr=0.0)
    data = batches(**{"views": 2, **settings})
    trainer(max_steps=1).fit(recipe, datamodule=data)
    return recipe, data


def scale_of(recipe):
    return recipe.teachers[0].head.scale.item()


def likeliest(data, part):
    """The scale that scipy finds for the same logits on the rows of a part."""
    rows, teacher = data.source.all_rows(), specialist()
    at = data.parts[part]
    at = at[(rows.y[at] >= 3) & (rows.y[at] < 3 + KNOWS)]
    x = data.source.inputs(rows.x[at], rows.index[at], torch.full_like(at, -1))
    with torch.no_grad():
        logits = teacher.model(x).logits.double()
    assert (logits.argmax(1) != rows.y[at] - 3).any()

    def loss(log_scale):
        return cross_entropy(logits * 10**log_scale, rows.y[at] - 3).item()

    return 10 ** minimize_scalar(loss, bounds=(-4, 4), method="bounded").x


@pytest.mark.parametrize("unknown", ["least", "mark"])
@pytest.mark.parametrize("part", ["quiz", "val"])
def test_a_specialist_is_calibrated_on_held_out_rows_of_its_classes(unknown, part):
    shares = {"quiz_fraction": 0.25} if part == "quiz" else {"quiz_fraction": 0.0}
    recipe, data = trained(specialist(unknown=unknown), val_fraction=0.25, **shares)
    assert scale_of(recipe) == pytest.approx(likeliest(data, part), rel=1e-3)
    assert scale_of(recipe) < 0.5


def test_rows_of_a_quiz_that_trains_calibrate_nothing():
    recipe, data = trained(specialist(), val_fraction=0.25, quiz_in_training=1)
    assert scale_of(recipe) == pytest.approx(likeliest(data, "val"), rel=1e-3)


def test_with_a_cache_it_is_calibrated_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    live, cached = (scale_of(trained(specialist(cache=cache))[0]) for cache in (False, True))
    assert cached == pytest.approx(live, rel=1e-4)


def test_a_checkpoint_keeps_the_scale():
    recipe, _ = trained(specialist())
    other = single_task(teachers=[specialist()], loss=KnownClasses(Hinton()), strategy_lr=0.0)
    other.load_state_dict(recipe.state_dict())
    assert other.teachers[0].head.calibrated
    assert scale_of(other) == scale_of(recipe)


def test_a_teacher_that_is_always_right_is_left_as_it_is(caplog):
    recipe, _ = trained(specialist(classes=["blob 3"]))
    assert scale_of(recipe) == 1
    assert "right of all" in caplog.text


def test_without_rows_to_calibrate_by_nothing_begins():
    with pytest.raises(ValueError, match=r"head\.scale=null .* set data\.quiz_fraction"):
        trained(specialist(), quiz_fraction=0.0)


def test_data_of_no_class_of_the_teacher_calibrate_nothing():
    data = batches(views=2)
    teacher = specialist()
    teacher.attach_source(data.source)
    y = data.source.all_rows().y[data.parts["quiz"]]
    data.parts["quiz"] = data.parts["quiz"][(y < 3) | (y >= 3 + KNOWS)]
    with pytest.raises(ValueError, match=r"head\.scale=null calibrates .* have none"):
        calibrate_on_rows(teacher, data, torch.device("cpu"))


def test_answers_that_are_computed_ahead_have_what_calibrates():
    data = batches(views=2)
    for scale, last in ((None, range(-1, 0)), (1.0, range(2))):
        teacher = specialist(cache=True)
        teacher.head.scale.fill_(float("nan") if scale is None else scale)
        rows, views = outputs_needed(TeacherPool([teacher]), data, "fit")[-1]
        assert views == last
        assert rows.equal(data.parts["quiz" if scale is None else "train"])
