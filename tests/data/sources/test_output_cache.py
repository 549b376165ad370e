import re
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.storage.tensor_file import UNSEALED, seal
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.types import Batch, Normalisation
from tests.processes import run_on
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
    images = source.all_rows()
    index = images.index if index is None else index
    views = torch.full_like(index, view)
    x = source.inputs(images.x[index], index, views)
    return Batch(x, images.y[index], index, views)


def cache(net, source, folder, views=VIEWS):
    made = OutputCache(net, weights_hash(net), source, folder)
    for view in views:
        made.fill(source.all_rows().index, view)
    return made


@pytest.mark.parametrize("view", VIEWS)
def test_stored_answers_are_the_live_ones(net, source, tmp_path, view):
    stored, shown = cache(net, source, tmp_path), rows(source, view)
    order = torch.randperm(len(shown.y))
    shown = Batch(*(t[order] for t in shown[:4]))
    live, kept = net(shown.x), stored(shown)
    for field in (0, 1):
        assert (kept[field] - live[field]).norm() < 1e-5 * live[field].norm()


def test_answers_are_computed_in_full_precision(net, source, tmp_path):
    cudnn, precise = torch.backends.cudnn, []
    before = cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32
    net.register_forward_hook(lambda *_: precise.append((cudnn.enabled, cudnn.allow_tf32)))
    with torch.autocast("cpu", torch.bfloat16):
        stored = cache(net, source, tmp_path, views=[0])(rows(source, 0))
    assert set(precise) == {(True, False)}
    assert stored.embedding.dtype == torch.float32
    assert (cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32) == before


def test_rows_of_several_views_may_be_asked_at_once(net, source, tmp_path):
    stored = cache(net, source, tmp_path)
    several = [rows(source, view, torch.arange(7)) for view in VIEWS]
    mixed = Batch(*(torch.cat(parts) for parts in zip(*(b[:4] for b in several), strict=True)))
    live = net(mixed.x)
    assert (stored(mixed).embedding - live.embedding).norm() < 1e-5 * live.embedding.norm()


def test_a_network_without_a_head_has_no_logits_to_store(source, tmp_path):
    headless = SmoothConv4(0).eval().requires_grad_(False)
    actual = cache(headless, source, tmp_path, [-1])(rows(source, -1))
    assert actual.logits.shape == (240, 0)
    assert actual.embedding.shape == (240, 3)


def test_what_was_stored_is_read_again_and_not_computed(net, source, tmp_path):
    cache(net, source, tmp_path)

    class Silent(SmoothConv4):
        def body(self, x) -> tuple:
            raise AssertionError("the network was asked")

    silent = Silent(4).eval()
    silent.load_state_dict(net.state_dict())
    again = OutputCache(silent, weights_hash(net), source, tmp_path)
    again.fill(source.all_rows().index, 1)
    live = net(rows(source, 1).x).embedding
    assert (again.tables[1].embedding - live).norm() < 1e-5 * live.norm()


def test_missing_rows_are_added_to_those_on_disk(net, source, tmp_path):
    first, all_rows = OutputCache(net, "key", source, tmp_path), source.all_rows().index
    first.fill(all_rows[:50], 0)
    second = OutputCache(net, "key", source, tmp_path)
    second.fill(all_rows[30:], 0)
    assert second.has(all_rows, 0)
    live = net(rows(source, 0).x).embedding
    assert (second(rows(source, 0)).embedding - live).norm() < 1e-5 * live.norm()


def test_another_network_or_other_images_have_another_folder(net, source, tmp_path):
    result = [(net, source), (SmoothConv4(4).eval(), source), (net, Blobs(11)), (net, Brighter())]
    folders = {OutputCache(n, weights_hash(n), s, tmp_path).folder for n, s in result}
    assert len(folders) == 4
    assert OutputCache(net, weights_hash(net), Blobs(), tmp_path).folder in folders


def test_a_network_that_reads_images_otherwise_has_another_folder(net, source, tmp_path):
    key = weights_hash(net)
    folders = {OutputCache(net, key, source, tmp_path).folder}
    for mean in (0.4, 0.5):
        net.reading = Normalisation((mean,), (0.2,))
        folders.add(OutputCache(net, key, source, tmp_path).folder)
    net.input_size = 16
    folders.add(OutputCache(net, key, source, tmp_path).folder)
    assert len(folders) == 4


def test_answers_are_stored_of_what_the_network_was_trained_to_read(net, source, tmp_path):
    net.reading = Normalisation((0.4,), (0.1,))
    images = source.all_rows()
    x = source.augmented(images.x[:9], images.index[:9], torch.ones(9, dtype=torch.long))
    expected = net((x / 255 - 0.4) / 0.1).embedding
    actual = cache(net, source, tmp_path)(rows(source, 1, torch.arange(9))).embedding
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    assert (net(rows(source, 1, torch.arange(9)).x).embedding - expected).norm() > 0.01


class Brighter(Blobs):
    """The same images, brighter."""

    name = "Blobs"

    def augmented(self, x, index, view):
        return super().augmented(x, index, view) // 2 + 100


def garbled(content):
    """Every seventh byte of the tensors is another."""
    changed = bytearray(content)
    for at in range(len(content) // 2, len(content), 7):
        changed[at] ^= 255
    return bytes(changed)


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b"", lambda b: b[:-1], garbled])
def test_a_damaged_file_is_told_and_made_again(net, source, tmp_path, damage, caplog):
    path = cache(net, source, tmp_path).folder / "view0.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    cache(net, source, tmp_path)
    assert path.read_bytes() == whole
    assert re.search(r"view0\.safetensors is damaged .* and is made again", caplog.text)


def test_a_network_that_fails_leaves_what_was_there(net, source, tmp_path):
    stored = cache(net, source, tmp_path, [])
    stored.fill(torch.arange(10), 0)
    before = (stored.folder / "view0.safetensors").read_bytes()
    again = OutputCache(Counted(4), "key", source, tmp_path)
    again.model.rows_embedded, again.folder = -1, stored.folder
    with pytest.raises(ZeroDivisionError):
        again.fill(source.all_rows().index, 0)
    actual = [path.name for path in stored.folder.iterdir() if "lock" not in path.name]
    assert actual == ["view0.safetensors"]
    assert (stored.folder / actual[0]).read_bytes() == before


class Counted(SmoothConv4):
    """Slow, and it counts the rows that it is asked about; below zero it fails."""

    rows_embedded = 0

    def body(self, x) -> tuple:
        if self.rows_embedded < 0:
            raise ZeroDivisionError
        self.rows_embedded += len(x)
        time.sleep(0.3)
        return super().body(x)


def rows_asked(rank, world, folder):
    """In a process of its own: how many rows it asked the network about, and what it then has."""
    torch.manual_seed(0)
    net, source = Counted(4).eval(), Blobs()
    torch.distributed.barrier()
    made = cache(net, source, folder, range(2))
    return net.rows_embedded, float(made.tables[1].embedding.double().sum())


@pytest.mark.thorough
@pytest.mark.ddp
def test_of_two_processes_at_once_one_asks_the_network(tmp_path):
    (one, actual), (other, same) = run_on(2, tmp_path, rows_asked, tmp_path)
    assert one + other == 2 * 240
    assert actual == same


@pytest.mark.parametrize("change", [lambda x: x + 0.1, lambda x: x * torch.nan])
def test_a_tampered_file_is_noticed(net, source, tmp_path, change):
    path = cache(net, source, tmp_path).folder / "view0.safetensors"
    kept = load_file(path)
    save_file({**kept, "embedding": change(kept["embedding"])}, path, UNSEALED)
    seal(path)
    message = r"the stored answers in .* are not those of this teacher .*; delete that folder"
    with pytest.raises(ValueError, match=message):
        cache(net, source, tmp_path)(rows(source, 0))


def test_a_view_that_was_not_stored_is_told(net, source, tmp_path):
    with pytest.raises(
        ValueError, match=r"no answers are stored for some images in view 5; set data\.views"
    ):
        cache(net, source, tmp_path)(rows(source, 5))


def test_a_row_that_was_not_stored_is_told(net, source, tmp_path):
    sample = OutputCache(net, "key", source, tmp_path)
    sample.fill(torch.arange(10), 0)
    with pytest.raises(ValueError, match="no answers are stored for some images in view 0"):
        sample(rows(source, 0))


def test_a_teacher_with_a_cache_answers_as_one_without(source, tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    torch.manual_seed(1)
    helper = Teacher(SmoothConv4(0), cache=True)
    helper.head.scale.fill_(3.0)
    helper.open()
    y = source.all_rows().y
    support = torch.cat([(y == c).nonzero()[:2, 0] for c in (3, 8)])[[0, 2, 1, 3]]
    shown, requested = rows(source, 1, support), rows(source, -1, torch.arange(36, 48))
    shown = shown._replace(y=torch.arange(2).repeat(2))
    classes = torch.tensor([3, 8])
    live = helper.predict_episode(shown, requested, classes)
    helper.attach_source(source)
    helper.fill_cache(source.all_rows().index, VIEWS)
    assert helper.output_cache is not None
    stored = helper.predict_episode(shown, requested, classes)
    for one, other in zip(live, stored, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_a_cache_in_memory_writes_nothing(net, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    OutputCache(net, "", source).fill(source.all_rows().index, view=-1)
    assert not list(tmp_path.iterdir())


def test_a_typical_row_is_of_median_length(net, source, monkeypatch):
    stored = OutputCache(net, "", source)
    lengths = []

    def inputs(row, view):
        lengths.append(int(row) % 7)
        return torch.zeros(len(row), lengths[-1])

    monkeypatch.setattr(stored, "inputs", inputs)
    width = stored.typical_inputs().shape[1]
    assert len(lengths) > 7
    assert sum(length < width for length in lengths) <= len(lengths) / 2
    assert sum(length > width for length in lengths) <= len(lengths) / 2
