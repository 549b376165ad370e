"""Photographs are read as a viewer shows them, or named with the reason."""

import numpy as np
import pytest
from PIL import Image

from lightning_metakd.classify import pictures
from lightning_metakd.classify.pictures import Gallery, class_folders, files_in
from tests.classify.photographs import COLOURS, ORIENTATION, photograph, plant_oddities


def test_every_odd_picture_is_read_or_named(tmp_path):
    good, bad = plant_oddities(tmp_path / "it")
    gallery = Gallery(16, "RGB")
    assert [row.name for row in gallery.query(tmp_path / "it", [])] == good
    assert sorted(line.partition(": ")[0].rpartition("/")[2] for line in gallery.left_out) == bad
    assert all("\n" not in line for line in gallery.left_out)


def test_what_is_left_out_says_why(tmp_path):
    plant_oddities(tmp_path)
    gallery = Gallery(16, "RGB")
    list(gallery.query(tmp_path, []))
    reasons = {line.partition(": ")[0].rpartition("/")[2]: line for line in gallery.left_out}
    assert "it is no picture, whatever its ending says" in reasons["text.jpg"]
    assert "image file is truncated" in reasons["truncated.jpg"]
    assert ".txt is no picture of a known format" in reasons["notes.txt"]


def pixels(path, mode="RGB"):
    (row,) = Gallery(16, mode).query(path, [])
    return row.x


def test_forms_of_one_picture_have_its_colour(tmp_path):
    good, _ = plant_oddities(tmp_path)
    for name in set(good) - {"16 bit.png"}:
        x = pixels(tmp_path / name)
        assert x.shape == (3, 16, 16)
        assert x.dtype == np.uint8
        assert np.abs(x.mean((1, 2)) - COLOURS["red"]).max() < 25, name  # CMYK is not exact
    assert pixels(tmp_path / "16 bit.png").mean() == 200


def test_a_picture_stands_as_its_exif_data_say(tmp_path):
    image = Image.new("RGB", (40, 40), "white")
    image.paste((0, 0, 0), (0, 0, 40, 20))  # dark above
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    image.save(tmp_path / "it.png", exif=exif)
    upright = pixels(tmp_path / "it.png", "L")[0]
    assert upright[:4].mean() > 250
    assert upright[-4:].mean() < 5


def test_a_wide_picture_is_cropped_to_its_middle(tmp_path):
    image = Image.new("RGB", (90, 30), "black")
    image.paste("white", (30, 0, 60, 30))
    image.save(tmp_path / "it.png")
    assert pixels(tmp_path / "it.png", "L").min() > 200


def test_hidden_files_are_no_pictures(tmp_path):
    photograph(COLOURS["red"]).save(tmp_path / "it.png")
    (tmp_path / ".DS_Store").write_bytes(b"1")
    (tmp_path / ".cache").mkdir()
    photograph(COLOURS["red"]).save(tmp_path / ".cache" / "it.png")
    assert files_in(tmp_path) == [tmp_path / "it.png"]


def test_the_folder_of_a_picture_is_its_label_where_it_is_a_class(tmp_path):
    for name in ("red", "holiday"):
        (tmp_path / name / "below").mkdir(parents=True)
        photograph(COLOURS["red"]).save(tmp_path / name / "below" / "it.png")
    photograph(COLOURS["red"]).save(tmp_path / "red.png")
    labels = {row.name: row.label for row in Gallery(16, "RGB").query(tmp_path, ["red"])}
    assert labels == {"holiday/below/it.png": "", "red/below/it.png": "red", "red.png": ""}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"support=.*nowhere does not exist"):
        class_folders(tmp_path / "nowhere", "support")
    (tmp_path / "it").write_text("")
    with pytest.raises(ValueError, match=r"support=.*it is a file"):
        class_folders(tmp_path / "it", "support")


def test_a_photograph_of_an_unreadable_format_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "readable", dict)
    gallery = Gallery(16, "RGB")
    (tmp_path / "it.heic").write_bytes(b"1")
    assert gallery.read(tmp_path / "it.heic") is None
    assert "pip install pillow-heif" in gallery.left_out[0]
