import pytest
import torch
from torch.utils._pytree import tree_map

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.mlp import MLP
from tests.recipes.runs import episodes, helper, meta_kd, state
from tests.tiny import WIDTH, Blobs, SmoothConv4, trainer

ROWS = torch.arange(0, 240, 7)


@pytest.fixture
def net():
    return SmoothConv4(0)


@pytest.fixture
def embedded(net):
    return Embedded(Blobs(), net, views=2)


def live(net, source, view, rows=ROWS):
    """The network's own embeddings of some rows in one view."""
    views = torch.full_like(rows, view)
    return net.eval()(source.inputs(source.all_rows().x[rows], rows, views)).embedding


@pytest.mark.parametrize("view", [-1, 0, 1])
def test_a_vector_is_the_networks_embedding_of_that_view(net, embedded, view):
    x = embedded.all_rows().x
    assert x.shape == (240, 3, WIDTH)
    actual = embedded.inputs(x[ROWS], ROWS, torch.full_like(ROWS, view))
    expected = live(net, Blobs(), view)
    assert (actual - expected).norm() < 1e-5 * expected.norm()


def test_rows_classes_and_splits_are_those_of_the_images(embedded):
    images, vectors = Blobs(), embedded.all_rows()
    assert vectors.y.equal(images.all_rows().y)
    assert vectors.index.equal(images.all_rows().index)
    assert vectors.class_names == images.all_rows().class_names
    assert embedded.splits == images.splits
    assert all(embedded.rows(s).equal(images.rows(s)) for s in (*images.splits, "all"))
    assert embedded.name == "Blobs embedded by SmoothConv4"
    assert embedded.image_source is embedded.source


def test_it_is_embedded_once_and_nothing_but_the_vectors_is_kept(net, embedded, cache, monkeypatch):
    first = embedded.all_rows()
    assert embedded.all_rows().x.data_ptr() == first.x.data_ptr()
    kept = first.x.clone()
    (path,) = [p for p in cache.rglob("*") if p.is_file() and "lock" not in p.name]
    with monkeypatch.context() as patch:
        patch.setattr(net, "body", lambda x: pytest.fail("the network was asked"))
        assert Embedded(Blobs(), net, views=2).all_rows().x.equal(kept)
    path.write_bytes(path.read_bytes()[:-1])
    assert Embedded(Blobs(), net, views=2).all_rows().x.equal(kept)


def test_an_interrupted_one_goes_on(net, embedded, monkeypatch):
    fill = OutputCache.fill

    def tired(cache, rows, view):
        if view == 1:
            raise KeyboardInterrupt
        fill(cache, rows, view)

    monkeypatch.setattr(OutputCache, "fill", tired)
    with pytest.raises(KeyboardInterrupt):
        embedded.all_rows()
    monkeypatch.setattr(OutputCache, "fill", fill)
    recorded = []
    forward = embedded.model.body
    monkeypatch.setattr(embedded.model, "body", lambda x: (recorded.append(len(x)), forward(x))[1])
    assert embedded.all_rows().x.shape == (240, 3, WIDTH)
    assert sum(recorded) == 240


def test_its_weights_come_from_a_checkpoint_that_is_opened_late(net, tmp_path):
    trained, path = SmoothConv4(6), tmp_path / "it.ckpt"
    source = Embedded(Blobs(), net, str(path), views=0)
    with pytest.raises(FileNotFoundError, match=r"it\.ckpt' does not exist; train it first"):
        source.all_rows()
    weights = {f"student.{name}": p for name, p in trained.state_dict().items()}
    torch.save({"state_dict": weights}, path)
    expected = live(trained, Blobs(), -1)
    assert (source.all_rows().x[ROWS, 0] - expected).norm() < 1e-5 * expected.norm()
    assert not any(p.requires_grad for p in source.model.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_a_negative_number_of_views_is_refused(net):
    with pytest.raises(ValueError, match="views=-1 must be 0 or more"):
        Embedded(Blobs(), net, views=-1)


@pytest.mark.parametrize("views", [None, 3])
def test_views_that_are_not_kept_are_told(embedded, views):
    data = episodes(views=views)
    data.source = embedded
    message = r"data\.views asks for view \d+ of Blobs embedded by .*, which keeps 2; set data\.views to 2"
    batches = list(data.train_dataloader())
    with pytest.raises(ValueError, match=message):
        data.on_after_batch_transfer(batches, 0)


def test_batches_reach_a_network_as_vectors(embedded):
    data = EpisodicData(embedded, n_way=3, k_shot=2, n_query=4, views=2, meta_batch_size=2)
    raw, _ = next(iter(data.train_dataloader()))
    actual = data.on_after_batch_transfer(raw, 0)
    assert actual.query.x.shape == (2, 12, WIDTH)
    one = tree_map(lambda leaf: leaf[1], raw.query)
    assert actual.query.x[1].equal(embedded.inputs(one.x, one.index, one.view))
    batch = next(iter(SupervisedData(embedded, batch_size=8, views=2).train_dataloader()))
    assert data.on_after_batch_transfer(batch, 0).train.x.shape == (8, WIDTH)


# --- a student of vectors ----------------------------------------------------------------------------------


def trained_on(embedded, k_shot=2, **settings):
    """A student of vectors, its data, and what it is after two steps."""
    torch.manual_seed(2)
    student = MLP(WIDTH, [5], residual=True)
    recipe = meta_kd(ProtoNet(), student, **{"teachers": [helper(cache=True)], **settings})
    data = episodes(views=2, k_shot=k_shot)
    data.source = embedded
    trainer(max_steps=2).fit(recipe, datamodule=data)
    return recipe, data


def following(view):
    """How far the other view is from one: the next of the two that are stored, or of the image the first."""
    return torch.where(view == 1, -1, 1)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_a_teacher_answers_from_the_pictures_while_the_student_reads_vectors(embedded, k_shot):
    """On one shot, held out by the next view of the pictures."""
    recipe, data = trained_on(embedded, k_shot)
    (teacher,) = recipe.teachers
    head, images = teacher.head, Blobs()
    for episode in (data.evaluation_episodes("val")[0], data.training_episodes("train", 3, 4)[0]):
        (support, query), classes = episode[:2], episode.classes
        recorded, other, requested = (
            teacher.model(images.inputs(images.all.x[rows.index], rows.index, rows.view + more))
            for rows, more in ((support, 0), (support, following(support.view)), (query, 0))
        )
        result = teacher.predict_episode(
            *data.on_after_batch_transfer((support, query), 0), classes
        )
        expected = (
            head.scale * head.held_out(recorded, support.y, classes, other),
            head.scale * head.fit(recorded, support.y, classes)(requested),
        )
        for answer, logits in zip(result, expected, strict=True):
            torch.testing.assert_close(answer.logits, logits, rtol=1e-5, atol=1e-5)


def test_a_test_embeds_the_vectors_of_each_image_once(embedded):
    recipe, data = trained_on(embedded)
    trainer().test(recipe, datamodule=data, verbose=False)
    recalled = recipe.record.result["accuracy"]
    assert recipe.evaluator.cached_forward is None
    recipe.evaluator.cache_embeddings = lambda *args: None
    trainer().test(recipe, datamodule=data, verbose=False)
    assert recipe.record.result["accuracy"] == recalled


def test_a_residual_student_starts_where_the_frozen_network_is(embedded, net):
    results, alone = [], {"teachers": [], "loss": None, "strategy_lr": 0.0, "norm": "running"}
    for source, student in ((embedded, MLP(WIDTH, [5], residual=True)), (Blobs(), net)):
        recipe = meta_kd(ProtoNet(), student, **alone)
        data = episodes(n_episodes=20)
        data.source = source
        trainer().test(recipe, datamodule=data, verbose=False)
        results.append((recipe.record.result["accuracy"], recipe.record.result["nll"]))
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_only_the_student_moves(embedded):
    before = state(embedded.model)
    trained_on(embedded)
    assert all(before[name].equal(p) for name, p in embedded.model.state_dict().items())


def test_a_teacher_without_a_cache_is_refused(embedded):
    message = "SmoothConv4 is asked live, .* and Blobs embedded by SmoothConv4 has vectors for it; set the"
    with pytest.raises(ValueError, match=message):
        trained_on(embedded, teachers=[helper()])


def test_further_views_of_the_support_are_refused_by_their_own_name():
    recipe = meta_kd(ProtoNet(), teachers=None, loss=None, strategy_lr=0.0)
    source = Embedded(Blobs(), SmoothConv4(0), views=1)
    with pytest.raises(
        ValueError, match=r"data.support_views=3 draws more .* data.support_views to 1"
    ):
        recipe.check_procedure(EpisodicData(source, support_views=3), "test")
