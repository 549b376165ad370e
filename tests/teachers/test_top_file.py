"""A network that was trained over the embedding of another is its top."""

import pytest
import torch

from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.recipes.episode_checks import check_quiz_classes
from lightning_metakd.teachers.heads import PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool
from lightning_metakd.types import Batch
from tests.tiny import Blobs, SmoothConv4

CLASSES, BELOW = [f"blob {c}" for c in (2, 4, 5)], ["blob 7"]


def saved(path, net, classes, **record):
    """The file of a network's training."""
    state = {f"student.{name}": p for name, p in net.state_dict().items()}
    torch.save({"state_dict": state, "classes": classes, **record}, path)
    return str(path)


@pytest.fixture
def top(tmp_path):
    """A file of a network over embeddings with three classes, and the network."""
    net = MLP(SmoothConv4(0).embedding_width, [5], 3).eval()
    file = saved(tmp_path / "top.ckpt", net, CLASSES, external_data=["ImageNet"])
    return file, net


def with_top(below, net, file, **settings):
    """A teacher whose top comes from a file."""
    fresh = MLP(net.width_in, [5], net.head.out_features)
    return Teacher(below, top=fresh, top_checkpoint=file, **settings)


def test_it_answers_as_the_network_did_over_the_embedded_rows(top):
    file, net = top
    below, pictures = SmoothConv4(0).eval(), Blobs()
    embedded = Embedded(pictures, below, views=2)
    helper = with_top(below, net, file, head=SlicedHead(), cache=True)
    helper.open()
    helper.attach_source(embedded)
    x, y, index, _ = embedded.all_rows()
    rows = pictures.rows("train")[:8]
    view = torch.tensor([-1, 0, 1, 1, 0, -1, 0, 1])
    helper.fill_cache(rows, range(-1, 2))
    batch = Batch(x[rows, view + 1], y[rows], index[rows], view)
    logits = helper.predict_batch(batch, torch.tensor([5, 2])).logits
    expected = net(x[rows, view + 1]).logits[:, [2, 0]]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_its_classes_are_those_of_the_top_and_it_has_met_both(top, tmp_path):
    file, net = top
    below = SmoothConv4(1)
    helper = with_top(SmoothConv4(1), net, file, checkpoint=saved(tmp_path / "b", below, BELOW))
    helper.open()
    assert helper.trained_on == tuple(CLASSES)
    assert helper.all_classes == {*CLASSES, *BELOW}
    assert helper.top.external_data == ("ImageNet",)
    assert helper.files == [str(tmp_path / "b"), file]
    for name in (*CLASSES, *BELOW):
        with pytest.raises(ValueError, match=f"was trained on 1 of the 1 classes .*{name}"):
            check_quiz_classes(TeacherPool([helper]), [name])
    check_quiz_classes(TeacherPool([helper]), ["blob 8"])


def test_its_hash_sees_the_top_and_that_of_its_cache_does_not(top, tmp_path):
    file, net = top
    below = SmoothConv4(0)
    helper = with_top(below, net, file)
    helper.open()
    before = helper.whole_sha256
    assert helper.sha256 == weights_hash(below) != before
    with torch.no_grad():
        net.head.bias[0] += 1e-3
    other = with_top(below, net, saved(tmp_path / "other.ckpt", net, CLASSES))
    other.open()
    assert other.sha256 == helper.sha256
    assert other.whole_sha256 != before


def test_a_top_without_a_file_answers_for_the_classes_of_what_is_under_it(tmp_path):
    below = SmoothConv4(2)
    file = saved(tmp_path / "below.ckpt", below, CLASSES[:2])
    helper = Teacher(SmoothConv4(2), file, top=MLP(below.embedding_width, [5], 2))
    helper.open()
    assert helper.trained_on == tuple(CLASSES[:2])
    assert helper.whole_sha256 == helper.sha256


def test_logits_are_missed_only_where_they_are_read(top, tmp_path):
    file, net = top
    headless = saved(tmp_path / "headless.ckpt", SmoothConv4(0), [])
    helper = with_top(SmoothConv4(3), net, file, checkpoint=headless, head=SlicedHead())
    helper.open()  # the head of what is under the top is not asked
    no_logits = Teacher(
        SmoothConv4(0), top=MLP(net.width_in, [5]), top_checkpoint=file, head=SlicedHead()
    )
    with pytest.raises(
        ValueError, match=r"and they are not there: .* Give that network the n_clas"
    ):
        no_logits.open()
    with_prototypes = Teacher(
        SmoothConv4(0), top=MLP(net.width_in, [5]), top_checkpoint=file, head=PrototypeHead()
    )
    with_prototypes.open()


def test_a_file_of_a_top_wants_a_top_that_fits(top, tmp_path):
    file, _ = top
    with pytest.raises(
        ValueError, match=r"top_checkpoint='.*top\.ckpt' is the file of a top, and t"
    ):
        Teacher(SmoothConv4(0), top_checkpoint=file)
    wider = Teacher(SmoothConv4(0), top=MLP(9, [5], 3), top_checkpoint=file)
    with pytest.raises(ValueError, match=r"teacher .*top\.ckpt"):
        wider.open()
    gone = Teacher(SmoothConv4(0), top=MLP(9, [5], 3), top_checkpoint=str(tmp_path / "gone.ckpt"))
    with pytest.raises(FileNotFoundError, match=r"gone\.ckpt"):
        gone.open()
