import copy

import pytest
import torch

from lightning_metakd.data.sources.augment import augment
from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.prototypes import class_means, leave_one_out_means, metric_logits
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.teachers.heads import PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import without_counting
from lightning_metakd.types import Batch
from tests import tiny
from tests.tiny import N_WAY, SHOTS, Blobs, SmoothConv4, batch, episode, teacher

CLASSES = [f"blob {c}" for c in (2, 4, 5, 9, 11, 13)]


@pytest.fixture
def checkpoint(tmp_path):
    """A file of a trained network with a head for six classes, and the network."""
    net = SmoothConv4(6)
    state = {f"student.{name}": p for name, p in net.state_dict().items()}
    torch.save({"state_dict": state, "classes": CLASSES}, tmp_path / "teacher.ckpt")
    return str(tmp_path / "teacher.ckpt"), net


def test_it_answers_support_rows_leave_one_out_and_query_rows_by_class_means():
    helper, task = teacher(), episode()
    support, query = helper.predict_episode(task.support, task.query, task.classes)
    e, qe = helper.model(task.support.x).embedding, helper.model(task.query.x).embedding
    means = leave_one_out_means(e, task.support.y, N_WAY)
    expected = [
        5 * metric_logits(e, means, "cosine"),
        5 * metric_logits(qe, class_means(e, task.support.y, N_WAY)[None], "cosine"),
    ]
    for answer, logits, embedding in zip((support, query), expected, (e, qe), strict=True):
        torch.testing.assert_close(answer.logits, logits, rtol=1e-10, atol=1e-12)
        assert torch.equal(answer.embedding, embedding)
        assert not answer.logits.requires_grad


def test_one_shot_is_answered_on_a_view_that_it_was_not_fitted_on():
    helper, task = teacher(), episode()
    support = batch(N_WAY, (1, 8, 8))
    actual, _ = helper.predict_episode(support, task.query, task.classes)
    other = helper.model(augment(support.x, support.index, support.view + 1)).embedding
    e = helper.model(support.x).embedding
    expected = 5 * metric_logits(e, class_means(other, support.y, N_WAY)[None], "cosine")
    torch.testing.assert_close(actual.logits, expected, rtol=1e-10, atol=1e-12)
    assert SHOTS > 1  # the other tests have more than one


def augmented(n, views=1):
    """Rows as a student reads them, in its first view."""
    rows = batch(n, (1, 8, 8))
    return rows._replace(view=torch.arange(n) % views)


def test_it_may_look_at_another_view_than_the_student():
    helper, same = teacher(second_view=True), teacher()
    same.load_state_dict(helper.state_dict())
    support, query = augmented(N_WAY), augmented(4)
    moved = [b._replace(x=augment(b.x, b.index, b.view + 1)) for b in (support, query)]
    e, e_moved = (helper.model(x).embedding for x in (support.x, moved[0].x))
    on_support, on_query = helper.predict_episode(support, query, torch.arange(N_WAY))
    assert torch.equal(on_query.embedding, helper.model(moved[1].x).embedding)
    # of one shot the row itself is what the head was fitted on, and not the view that is answered
    expected = 5 * metric_logits(e_moved, class_means(e, support.y, N_WAY)[None], "cosine")
    torch.testing.assert_close(on_support.logits, expected, rtol=1e-10, atol=1e-12)
    plain = [batch(4, (1, 8, 8))] * 2
    answers = (
        t.predict_episode(*plain, torch.arange(N_WAY))[1].logits.detach() for t in (helper, same)
    )
    assert torch.equal(*answers)  # in a test nothing is augmented


def test_its_cache_has_the_other_view():
    helper = teacher(second_view=True, cache=True).float()
    helper.open()
    source = Blobs()
    helper.attach_source(source)
    rows = source.all_rows().index[:6]
    helper.output_cache.folder = None
    helper.fill_cache(rows, range(2))
    at = Batch(source.all_rows().x[rows].float(), torch.arange(6), rows, torch.zeros_like(rows))
    stored = helper.output_cache.look_up(rows, torch.ones_like(rows)).embedding
    assert torch.equal(helper.embed(at).embedding, stored)
    assert torch.equal(helper.embed(at, other=True).embedding, helper.output_cache(at).embedding)


@pytest.mark.parametrize("top", [None, lambda: MLP(4, [5], residual=True).double()])
@pytest.mark.parametrize("shots", [1, 2])
def test_its_answers_are_a_function_of_what_it_learns(top, shots):
    helper, task = teacher(top=top and top()), episode()
    support = batch(N_WAY * shots, (1, 8, 8))
    helper.unfreeze()
    present = {n: p.detach().clone() for n, p in helper.trained_parameters().items()}
    there = {n: (p + 0.1 * torch.randn_like(p)).requires_grad_() for n, p in present.items()}
    requested = (support, task.query, task.classes)
    actual = helper.predict_episode(*requested, there)
    assert any(s.any() for s in torch.autograd.grad(actual[0].logits.sum(), list(there.values())))
    before = helper.predict_episode(*requested)
    helper.learning.load_state_dict(there, strict=False)
    for by_function, itself, earlier in zip(
        actual, helper.predict_episode(*requested), before, strict=True
    ):
        torch.testing.assert_close(by_function.logits, itself.logits, rtol=1e-12, atol=0)
        assert (itself.logits - earlier.logits).abs().max() > 1e-5


def test_what_it_is_asked_is_counted_but_where_it_does_not_count():
    helper, task = teacher(), episode()
    with without_counting([helper]):
        helper.predict_episode(task.support, task.query, task.classes)
    assert helper.forwards == 0
    helper.predict_episode(task.support, task.query, task.classes)
    assert helper.forwards == len(task.support.y) + len(task.query.y)


@pytest.mark.parametrize("cache", [False, True])
def test_it_centres_on_the_base_classes_alone(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    monkeypatch.setattr("lightning_metakd.teachers.teacher.CENTRED", 40)
    source, helper = Blobs(), Teacher(SmoothConv4(0), head=PrototypeHead(centre=True), cache=cache)
    helper.open()
    helper.attach_source(source)
    helper.centre(source)
    index = source.rows("train")[::4]  # 36 of 144
    x = source.inputs(source.all.x[index], index, torch.full_like(index, -1))
    expected = helper.model(x).embedding.mean(0)
    torch.testing.assert_close(helper.head.mean, expected, rtol=1e-5, atol=1e-6)
    requested = helper.forwards
    helper.centre(source)
    assert helper.forwards == requested
    source.all.x[source.rows("test")] = 0
    again = Teacher(helper.model, head=PrototypeHead(centre=True))
    again.open()
    again.centre(source)
    assert again.head.mean.equal(helper.head.mean)


def test_a_mean_of_what_changes_is_refused():
    head = PrototypeHead(centre=True)
    message = r"head\.centre=true takes a mean of embeddings, .*; set head\.centre to false, or teacher_lr"
    with pytest.raises(ValueError, match=message):
        Teacher(SmoothConv4(0), head=head).unfreeze()
    with pytest.raises(
        ValueError, match=r"head\.centre=true .*top has others; .* or leave top out"
    ):
        Teacher(SmoothConv4(0), head=head, top=MLP(3, [4]))


def test_a_mean_over_no_images_is_refused(monkeypatch):
    monkeypatch.setattr(Blobs, "of_split", Blobs.of_split | {"train": ()})
    helper = Teacher(SmoothConv4(0), head=PrototypeHead(centre=True))
    with pytest.raises(
        ValueError, match=r"mean over split 'train' of Blobs, which is empty; set head"
    ):
        helper.centre(Blobs())


def test_it_stays_frozen_and_in_evaluation_mode():
    helper = teacher()
    helper.train()
    helper.open()
    assert not any(module.training for module in helper.modules())
    assert not any(p.requires_grad for p in helper.parameters())


def test_answering_leaves_it_as_it_was():
    helper, task = teacher(), episode()
    helper.open()
    helper.predict_episode(task.support, task.query, task.classes)
    assert helper.sha256 == weights_hash(helper.model)


def test_the_hash_sees_every_weight_and_buffer():
    net = SmoothConv4()
    before = weights_hash(net)
    for tensor in (net.head.bias, net.norms[2].running_var):
        with torch.no_grad():
            tensor[0] += 1e-6
        assert weights_hash(net) != before
        before = weights_hash(net)


def test_it_opens_its_checkpoint_late_and_knows_its_classes(checkpoint):
    path, net = checkpoint
    helper = Teacher(SmoothConv4(6), path, SlicedHead())
    assert helper.trained_on == ()
    helper.open()
    assert helper.trained_on == tuple(CLASSES)
    assert helper.sha256 == weights_hash(net)


def test_a_sliced_head_answers_rows_without_a_support_set(checkpoint):
    path, net = checkpoint
    helper = Teacher(SmoothConv4(6), path, SlicedHead(scale=2.0))
    helper.open()
    helper.attach_source(Blobs())
    rows = batch(8, (1, 8, 8))
    rows = rows._replace(x=rows.x.float())
    actual = helper.predict_batch(rows, torch.tensor([9, 2, 13]))
    expected = 2 * net.eval()(rows.x).logits[:, [3, 0, 5]]
    torch.testing.assert_close(actual.logits, expected, rtol=1e-5, atol=1e-6)  # single precision


def test_a_prototype_head_does_not_need_the_networks_own(checkpoint, caplog):
    path, net = checkpoint
    helper = Teacher(SmoothConv4(0), path, PrototypeHead())
    helper.open()
    assert torch.equal(helper.model.convs[0].weight, net.convs[0].weight)
    assert "the head was not loaded" in caplog.text


def test_a_sliced_head_does(checkpoint):
    path, _ = checkpoint
    message = "SlicedHead answers with the network's own logits, .* Give that network the n_clas"
    with pytest.raises(ValueError, match=message):
        Teacher(SmoothConv4(5), path, SlicedHead()).open()


def test_a_checkpoint_of_another_network_is_refused(checkpoint):
    path, _ = checkpoint
    with pytest.raises(ValueError, match=r"teacher .*: the checkpoint is of another network"):
        Teacher(SmoothConv4(6, width=4), path).open()


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; train it first"):
        Teacher(SmoothConv4(6), str(tmp_path / "none.ckpt")).open()


def test_layers_that_a_loss_reads_reach_its_answers():
    helper, task = teacher(), episode()
    helper.model.tap(["norms.1"])
    for rows, answer in zip(
        (task.support, task.query),
        helper.predict_episode(task.support, task.query, task.classes),
        strict=True,
    ):
        assert torch.equal(answer.features["norms.1"], helper.model(rows.x).features["norms.1"])


class Kept(OutputCache):
    """A cache of one answer."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, batch):
        return self.answer


@pytest.mark.parametrize(
    ("layers", "asks"), [([], True), (["embedding"], True), (["norms.1", "embedding"], False)]
)
def test_it_answers_live_where_its_cache_has_not_what_is_read(layers, asks):
    helper, rows = teacher(cache=True), batch(4, (1, 8, 8))
    kept = helper.model(rows.x)
    helper.output_cache = Kept(kept)
    helper.model.tap(layers)
    assert helper.uses_cache == asks
    assert (helper.embed(rows) is kept) == asks


def test_a_copy_of_a_teacher_has_the_answers_and_images_of_the_first():
    source, names = Blobs(), tiny.teacher(cache=True).float()
    names.open()
    names.attach_source(source)
    names.output_cache.folder = None
    names.fill_cache(source.rows("val"), range(-1, 0))
    names.centred_on = (names.sha256, source)
    other = copy.deepcopy(names)
    assert other.output_cache.model is other.model is not names.model
    assert other.output_cache.source is other.centred_on[1] is source
    assert other.output_cache.examples.x is names.output_cache.examples.x
    assert other.output_cache.tables[-1].embedding is names.output_cache.tables[-1].embedding
    cache = other.output_cache
    other.attach_source(source)
    assert other.output_cache is cache
    other.output_cache.fill(source.rows("test"), -1)
    assert not names.output_cache.has(source.rows("test"), -1)


def test_a_network_of_vectors_is_asked_about_vectors_and_one_of_pictures_is_not():
    source = Embedded(Blobs(), SmoothConv4(0), views=1)
    x, y, index, _ = source.all_rows()
    width = x.shape[-1]
    reader = Teacher(MLP(width, [5]))
    reader.attach_source(source)
    rows = Batch(x[:4, 0], y[:4], index[:4], torch.full((4,), -1))
    assert torch.equal(reader.embed(rows).embedding, reader.model(x[:4, 0]).embedding)
    with pytest.raises(ValueError, match="SmoothConv4 is asked live, without a cache"):
        Teacher(SmoothConv4(0)).attach_source(source)
