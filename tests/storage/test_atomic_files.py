import errno
import hashlib
import multiprocessing
import os
import threading
import time

import pytest

from lightning_metakd.storage import atomic_files
from lightning_metakd.storage.atomic_files import (
    UNFINISHED,
    append_line,
    atomic_write,
    create_once,
    file_sha256,
    remove_unfinished,
)


def test_a_file_appears_whole_once_the_block_has_ended(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_way_out(tmp_path):
    path = tmp_path / "file"
    message = "file could not be written .No space left on device.; free some space"
    with pytest.raises(OSError, match=message) as caught, atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as part:
            part.write_text("whole")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def die_while_writing(path):
    """In a process of its own: a kill in the middle of a file."""
    with atomic_write(path) as part:
        part.write_text("half")
        os._exit(9)


def killed(path):
    process = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    return [left.name for left in path.parent.iterdir() if left.name.endswith(UNFINISHED)]


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    assert len(killed(tmp_path / "file")) == 1
    with atomic_write(tmp_path / "other") as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_what_a_living_process_writes_stays_and_folders_below_are_tidied(tmp_path):
    below = tmp_path / "run" / "0"
    below.mkdir(parents=True)
    (left,) = killed(below / "file")
    with atomic_write(tmp_path / "mine") as part:
        part.write_text("whole")
        remove_unfinished(tmp_path)
        assert (below / left).exists()
        remove_unfinished(tmp_path, below=True)
        assert part.exists()
        assert not (below / left).exists()
    assert (tmp_path / "mine").read_text() == "whole"


def test_a_file_that_is_taken_for_a_dead_one_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    lock, taken = atomic_files.fcntl.flock, []

    def late(file, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(atomic_files.fcntl, "flock", late)
    with atomic_write(tmp_path / "file") as part:
        part.write_text("whole")
        assert part not in taken
    assert (tmp_path / "file").read_text() == "whole"


def test_lines_are_appended_after_one_that_was_cut_too(tmp_path):
    path = tmp_path / "new" / "lines"
    append_line(path, "one")
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
    path.write_text("one\nhal")
    append_line(path, "two")
    assert path.read_text() == "one\nhal\ntwo\n"


@pytest.mark.parametrize("room", [0, 3])
def test_a_line_that_does_not_fit_leaves_no_part_of_it(room, tmp_path, little_room):
    append_line(tmp_path / "lines", "one")
    message = r"lines could not be written \(.*\); free some space .* is unchanged"
    with little_room(4 + room), pytest.raises(OSError, match=message):
        append_line(tmp_path / "lines", "a longer one")
    assert (tmp_path / "lines").read_text() == "one\n"


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()
    assert file_sha256(tmp_path / "none") is None


def test_what_is_there_is_not_made_and_locks_nothing(tmp_path):
    create_once(tmp_path / "new" / "file", lambda: True, lambda: pytest.fail("made"))
    assert not list(tmp_path.iterdir())


def test_a_second_one_waits_says_so_and_finds_it(tmp_path, caplog):
    path, made = tmp_path / "new" / "file", []

    def make():
        second.start()
        while "Another process is making" not in caplog.text:
            time.sleep(0.01)
        made.append("first")

    def once(make):
        create_once(path, lambda: bool(made), make)

    second = threading.Thread(target=once, args=(lambda: made.append("second"),))
    once(make)
    second.join()
    assert made == ["first"]


def test_where_nothing_can_be_locked_each_makes_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(atomic_files, "fcntl", None)
    made, path = [], tmp_path / "file"

    def twice():
        create_once(path, lambda: bool(made), lambda: made.append("inside"))
        made.append("outside")

    create_once(path, lambda: bool(made), twice)
    assert made == ["inside", "outside"]
    assert not caplog.text


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic_files.fcntl, "flock", refuse)
    made = []
    create_once(tmp_path / "file", lambda: False, lambda: made.append("made"))
    assert made
    assert "file cannot be locked; two processes may both make it" in caplog.text
