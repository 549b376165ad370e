import errno
import hashlib
import threading
import time

import pytest

from lightning_metakd import files
from lightning_metakd.files import file_sha256, one_at_a_time, written_whole


def test_a_file_appears_whole_once_the_block_has_ended(tmp_path):
    path = tmp_path / "new" / "file"
    with written_whole(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with written_whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_way_out(tmp_path):
    path = tmp_path / "file"
    told = "file could not be written .No space left on device.; free some space"
    with pytest.raises(OSError, match=told) as caught, written_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()
    assert file_sha256(tmp_path / "none") is None


def test_a_second_one_waits_and_says_so(tmp_path, caplog):
    order, path = [], tmp_path / "new" / "file"

    def second():
        with one_at_a_time(path):
            order.append("second")

    waiting = threading.Thread(target=second)
    with one_at_a_time(path):
        waiting.start()
        while "Another process is making" not in caplog.text:
            time.sleep(0.01)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_where_nothing_can_be_locked_nobody_waits(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(files, "fcntl", None)
    with one_at_a_time(tmp_path / "file"), one_at_a_time(tmp_path / "file"):
        pass
    assert not caplog.text


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with one_at_a_time(tmp_path / "file"):
        pass
    assert "file cannot be locked; two processes may both make it" in caplog.text
