import pytest
import torch

from lightning_metakd.bank import Bank, Recall, by_number
from lightning_metakd.teachers import Teacher, weights_hash
from lightning_metakd.types import Batch
from tests.tiny import Blobs, SmoothConv4

VIEWS = range(-1, 2)


@pytest.fixture
def source():
    return Blobs()


@pytest.fixture
def net():
    return SmoothConv4(4).eval().requires_grad_(False)


def rows(source, view, index=None):
    """All images in one view, as a student sees them."""
    images = source.everything()
    index = images.index if index is None else index
    views = torch.full_like(index, view)
    x = source.inputs(images.x[index], index, views)
    return Batch(x, images.y[index], index, views)


def bank(net, source, folder, views=VIEWS):
    made = Bank(net, weights_hash(net), source, folder)
    for view in views:
        made.fill(source.everything().index, view)
    return made


@pytest.mark.parametrize("view", VIEWS)
def test_stored_answers_are_the_live_ones(net, source, tmp_path, view):
    stored, shown = bank(net, source, tmp_path), rows(source, view)
    order = torch.randperm(len(shown.y))
    shown = Batch(*(t[order] for t in shown[:4]))
    live, kept = net(shown.x), stored(shown)
    for field in (0, 1):
        assert (kept[field] - live[field]).norm() < 1e-5 * live[field].norm()


def test_rows_of_several_views_may_be_asked_at_once(net, source, tmp_path):
    stored = bank(net, source, tmp_path)
    several = [rows(source, view, torch.arange(7)) for view in VIEWS]
    mixed = Batch(*(torch.cat(parts) for parts in zip(*(b[:4] for b in several), strict=True)))
    live = net(mixed.x)
    assert (stored(mixed).embedding - live.embedding).norm() < 1e-5 * live.embedding.norm()


def test_a_network_without_a_head_has_no_logits_to_store(source, tmp_path):
    headless = SmoothConv4(0).eval().requires_grad_(False)
    found = bank(headless, source, tmp_path, [-1])(rows(source, -1))
    assert found.logits.shape == (240, 0)
    assert found.embedding.shape == (240, 3)


def test_what_was_stored_is_read_again_and_not_computed(net, source, tmp_path):
    bank(net, source, tmp_path)

    class Silent(SmoothConv4):
        def body(self, x) -> tuple:
            raise AssertionError("the network was asked")

    silent = Silent(4).eval()
    silent.load_state_dict(net.state_dict())
    again = Bank(silent, weights_hash(net), source, tmp_path)
    again.fill(source.everything().index, 1)
    live = net(rows(source, 1).x).embedding
    assert (again.stored[1].embedding - live).norm() < 1e-5 * live.norm()


def test_missing_rows_are_added_to_those_on_disk(net, source, tmp_path):
    first, all_rows = Bank(net, "key", source, tmp_path), source.everything().index
    first.fill(all_rows[:50], 0)
    second = Bank(net, "key", source, tmp_path)
    second.fill(all_rows[30:], 0)
    assert second.has(all_rows, 0)
    live = net(rows(source, 0).x).embedding
    assert (second(rows(source, 0)).embedding - live).norm() < 1e-5 * live.norm()


def test_another_network_has_another_folder(net, source, tmp_path):
    other = SmoothConv4(4).eval()
    folders = {Bank(n, weights_hash(n), source, tmp_path).folder for n in (net, other)}
    assert len(folders) == 2


def test_a_tampered_file_is_noticed(net, source, tmp_path):
    path = bank(net, source, tmp_path).folder / "view0.pt"
    kept = torch.load(path)
    kept["embedding"] += 0.1
    torch.save(kept, path)
    told = r"the stored answers in .* are not those of this teacher .*; delete that folder"
    with pytest.raises(RuntimeError, match=told):
        bank(net, source, tmp_path)(rows(source, 0))


def test_a_view_that_was_not_stored_is_told(net, source, tmp_path):
    with pytest.raises(
        KeyError, match=r"no answers are stored for some images in view 5; set data\.views"
    ):
        bank(net, source, tmp_path)(rows(source, 5))


def test_a_row_that_was_not_stored_is_told(net, source, tmp_path):
    some = Bank(net, "key", source, tmp_path)
    some.fill(torch.arange(10), 0)
    with pytest.raises(KeyError, match="no answers are stored for some images in view 0"):
        some(rows(source, 0))


def test_a_teacher_with_a_bank_answers_as_one_without(source, tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    torch.manual_seed(1)
    helper = Teacher(SmoothConv4(0), bank=True)
    helper.head.scale.fill_(3.0)
    helper.open()
    y = source.everything().y
    support = torch.cat([(y == c).nonzero()[:2, 0] for c in (3, 8)])[[0, 2, 1, 3]]
    shown, asked = rows(source, 1, support), rows(source, -1, torch.arange(36, 48))
    shown = shown._replace(y=torch.arange(2).repeat(2))
    classes = torch.tensor([3, 8])
    live = helper.answer(shown, asked, classes)
    helper.store(source, source.everything().index, VIEWS)
    assert helper.bank is not None
    stored = helper.answer(shown, asked, classes)
    for one, other in zip(live, stored, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_a_recalled_network_is_asked_by_number(net, source):
    stored = Bank(net, "", source)
    stored.fill(source.everything().index, view=-1)
    shown = rows(source, -1, torch.arange(5, 20))
    recall, live = Recall(stored), net(shown.x)
    answer, statistics = recall.observe({}, by_number(shown).x)
    assert (answer.embedding - live.embedding).norm() < 1e-5 * live.embedding.norm()
    torch.testing.assert_close(recall.classify({}, answer.embedding), live.logits)
    assert not statistics
    assert not recall.statistics({}, by_number(shown).x)


def test_a_bank_in_memory_writes_nothing(net, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    Bank(net, "", source).fill(source.everything().index, view=-1)
    assert not list(tmp_path.iterdir())
