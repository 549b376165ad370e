"""Strategies, caches, caches and pictures that somebody planted."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.folder import Folder
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.storage.read_checkpoint import open_checkpoint
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.storage.tensor_file import create_tensor_file
from lightning_metakd.teachers.teacher import Teacher
from tests.tiny import Blobs, SmoothConv4
from tests.untrusted.plants import (
    GIB,
    HEADS,
    HUGE,
    archive_of_ways_out,
    archive_that_lies,
    png,
    safetensors_of,
    written,
)


@pytest.mark.parametrize(("head", "size"), HEADS)
def test_a_planted_strategy_is_refused(head, size, thrifty):
    safetensors_of(Path("strategy"), head, size)
    with pytest.raises(
        ValueError, match=r"is damaged or no strategy|strategy.* takes .* METAKD_READ_LIMIT_MIB"
    ) as caught:
        read_strategy(Path("strategy"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("head", "size"), HEADS[:-1])
def test_a_planted_cache_is_made_again(head, size, place, thrifty, caplog):
    source, net = Blobs(), SmoothConv4(4).eval().requires_grad_(False)
    made = OutputCache(net, "key", source, place)
    safetensors_of(made.folder / "view0.safetensors", head, size)
    made.fill(torch.arange(5), 0)
    assert made.has(torch.arange(5), 0)
    assert "is made again" in caplog.text


@pytest.mark.parametrize(("head", "size"), HEADS)
def test_a_planted_teacher_is_refused(head, size, thrifty):
    safetensors_of(Path("teacher.safetensors"), head, size)
    with pytest.raises(ValueError, match=r"teacher\.safetensors"):
        Teacher(SmoothConv4(0), checkpoint="teacher.safetensors").open()


@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_of_too_many_pixels_is_refused(packed, draw, thrifty):
    folder = draw(png(9_000), packed)
    message = r"cannot read the image big/0\.png .*takes 1,236 MiB .*METAKD_READ_LIMIT_MIB=1236"
    with pytest.raises(ValueError, match=message):
        Folder(str(folder)).all_rows()


def test_a_member_that_is_too_large_is_refused(draw, thrifty, monkeypatch):
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "8")
    archive = draw(bytes(2**24), packed=True)
    with pytest.raises(ValueError, match=r"big/0\.png .*takes 16 MiB"):
        Folder(str(archive)).all_rows()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_lies_about_sizes_is_refused(compression, thrifty):
    archive_that_lies(Path("it.zip"), compression)
    assert Path("it.zip").stat().st_size < 2**22
    with pytest.raises(
        ValueError, match=r"cannot read the image big/0\.png .*(Bad CRC|neither sto)"
    ):
        Folder("it.zip").all_rows()


def test_nothing_of_an_archive_is_written_outside(place, thrifty):
    archive_of_ways_out(Path("it.zip"), png(8))
    before = written()
    with pytest.raises(ValueError, match=r"cannot read the image link/0\.png"):
        Folder("it.zip").all_rows()
    new = {*written()} - {*before}
    assert new
    assert all(f"{place.name}/cache" in path for path in new)


@pytest.fixture
def draw(place):
    """A folder, or an archive, of one class with these bytes as its pictures."""

    def write(content, packed):
        if packed:
            with zipfile.ZipFile("it.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for i in range(2):
                    archive.writestr(f"big/{i}.png", content)
            return place / "it.zip"
        (place / "it" / "big").mkdir(parents=True)
        for i in range(2):
            (place / "it" / "big" / f"{i}.png").write_bytes(content)
        return place / "it"

    return write


def test_a_planted_cache_of_images_is_made_again(thrifty):
    def plan():
        return image_cache.Plan(
            [0, 1], ("a", "b"), (3, 2, 2), iter([np.zeros((2, 3, 2, 2), np.uint8)])
        )

    safetensors_of(image_cache.folder() / "key.safetensors", HUGE, 3 * GIB)
    assert image_cache.cached("key", plan).x.shape == (2, 3, 2, 2)


def test_a_cache_of_images_that_are_none_is_made_again(place, thrifty, caplog):
    path = place / "key.safetensors"
    shapes = {"y": (torch.int64, (2**24,)), "x": (torch.uint8, (2, 3, 2, 2))}
    with create_tensor_file(path, shapes, {"class_names": json.dumps(["a"])}):
        pass
    with pytest.raises(ValueError, match=r"its images are \[2, 3, 2, 2\], its labels \[16777216\]"):
        image_cache.read(path)


@pytest.mark.parametrize("name", ["strategy", "teacher.safetensors"])
def test_a_whole_file_that_is_too_large_is_refused(name, thrifty):
    head = {**HUGE, "__metadata__": {"metakd_crc32": "0" * 8, "strategy": "{}"}}
    safetensors_of(Path(name), json.dumps(head, separators=(",", ":")).encode(), 3 * GIB)
    read = read_strategy if name == "strategy" else open_checkpoint
    with pytest.raises(ValueError, match=r"takes 3,073 MiB of memory .*METAKD_READ_LIMIT_MIB=3073"):
        read(Path(name))
