import json
import multiprocessing
import os
import resource
import zlib

import numpy as np
import pytest

from lightning_metakd.data.sources import image_cache as store
from lightning_metakd.storage.atomic_files import UNFINISHED
from lightning_metakd.storage.tensor_file import UNSEALED

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")


def plan(n=4, pieces=2, fail=None):
    def images():
        for i in range(pieces):
            if fail and i == pieces - 1:
                raise fail
            yield np.full((n // pieces, 3, 8, 8), i, dtype=np.uint8)

    return store.Plan([0, 1] * (n // 2), ("a", "b"), (3, 8, 8), images())


def test_what_is_read_is_what_was_written(tmp_path):
    stored = store.cached("key", plan)
    assert stored.x[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert stored.y.tolist() == [0, 1, 0, 1]
    assert stored.index.tolist() == [0, 1, 2, 3]
    assert stored.class_names == ("a", "b")


def test_a_collection_is_made_and_mapped_once():
    first = store.cached("key", plan)
    assert store.cached("key", lambda: pytest.fail("made again")).x.data_ptr() == first.x.data_ptr()


def test_a_full_disk_leaves_nothing_and_says_what_to_do(cache, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "header", full)
    with pytest.raises(
        OSError, match=r"No space left on device.*METAKD_CACHE.*key.safetensors"
    ) as error:
        store.cached("key", plan)
    assert error.value.errno == 28
    assert list(cache.iterdir()) == []


def write_little(folder):
    """In a process of its own: the system itself refuses to write more than 64 KiB."""
    os.environ["METAKD_CACHE"] = str(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        store.cached("key", lambda: plan(1000, 10))
    except OSError as error:
        os._exit(7 if "METAKD_CACHE" in str(error) and not list(folder.iterdir()) else 1)
    os._exit(0)


def test_a_disk_that_fills_half_way_leaves_nothing(cache):
    assert exit_codes(write_little, cache, 1) == [7]


def test_a_failure_while_reading_leaves_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        store.cached("key", lambda: plan(fail=ZeroDivisionError()))
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match=r"cannot store decoded images .*METAKD_CACHE to a folder"):
        store.cached("key", plan)


def flipped(content):
    """Some bytes of the images are others."""
    return content[:-40] + bytes(byte ^ 255 for byte in content[-40:])


def nested(content):
    return head_only({"class_names": "[" * 100_000})


def listed(content):
    return b"\2" + bytes(7) + b"[]"


def nameless(content):
    return head_only({})


def head_only(metadata):
    """A sealed file without tensors."""
    text = json.dumps({"__metadata__": UNSEALED | metadata}).encode()
    empty = len(text).to_bytes(8, "little") + text
    return empty.replace(UNSEALED["metakd_crc32"].encode(), b"%08x" % zlib.crc32(empty))


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:200], lambda b: b"", lambda b: b[:-1], flipped, nested, listed, nameless],
)
def test_a_damaged_file_is_made_anew(cache, damage, caplog):
    store.write(cache / "key.safetensors", plan())
    whole = (cache / "key.safetensors").read_bytes()
    (cache / "key.safetensors").write_bytes(damage(whole))
    assert store.cached("key", plan).x.shape == (4, 3, 8, 8)
    assert (cache / "key.safetensors").read_bytes() == whole
    assert "key.safetensors is damaged" in caplog.text


def test_what_a_killed_process_left_in_any_folder_is_removed_at_the_start(cache):
    left = cache / "outputs" / "of a teacher" / f".view0.safetensors.1234{UNFINISHED}"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(100))
    store.folder()
    assert not left.exists()


def make(folder):
    os.environ["METAKD_CACHE"] = str(folder)
    os._exit(0 if int(store.cached("key", lambda: plan(2000, 200)).x.sum()) == SUM else 1)


SUM = sum(range(200)) * 10 * 3 * 8 * 8


def test_two_processes_may_make_it_at_once(cache):
    assert exit_codes(make, cache, 3) == [0, 0, 0]
    assert [file.name for file in cache.iterdir()] == ["key.safetensors"]


def exit_codes(target, folder, n):
    context = multiprocessing.get_context("fork")  # quick, and the children only write
    processes = [context.Process(target=target, args=(folder,)) for _ in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]
