"""What a contact sheet and a confusion picture show."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from lightning_metakd.classify.contact_sheet import (
    COLUMNS,
    RIGHT,
    ROWS,
    WRONG,
    confusion_picture,
    contact_sheet,
    contact_sheets,
    fitting,
    shade,
)
from lightning_metakd.classify.pictures import THUMBNAIL


class Shown(NamedTuple):
    thumbnail: Image.Image
    label: str
    answer: str
    probability: float


def shown(label="", answer="cat", probability=0.5):
    return Shown(Image.new("RGB", (THUMBNAIL, THUMBNAIL), "grey"), label, answer, probability)


def colours(picture):
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in picture.getcolors(1 << 20)}


def test_a_frame_says_whether_the_answer_is_right():
    sheet = contact_sheet([shown("cat")])
    assert RIGHT in colours(sheet)
    assert WRONG not in colours(sheet)
    assert WRONG in colours(contact_sheet([shown("dog")]))
    assert not {RIGHT, WRONG} & colours(contact_sheet([shown()]))


def test_many_pictures_fill_several_sheets():
    sheets = dict(contact_sheets([shown(probability=k / 100) for k in range(COLUMNS * ROWS + 1)]))
    assert list(sheets) == ["contact_sheet.png", "contact_sheet_2.png"]
    assert sheets["contact_sheet.png"].size[1] > sheets["contact_sheet_2.png"].size[1]


def test_a_long_name_is_cut_where_it_no_longer_fits():
    assert fitting("cat", 100, 12) == "cat"
    cut = fitting("a very long name of a class " * 20, 100, 12)
    assert cut.startswith("a very")
    assert cut.endswith("...")
    assert len(cut) < 30


def test_names_in_any_script_are_drawn():
    names = ["Größe", "東京", "\udcff", "😀" * 40]
    assert contact_sheet([shown(name, name) for name in names]).size[0] > 0
    assert confusion_picture(np.eye(4, dtype=int), names).size[0] > 0


def test_a_confusion_is_green_on_the_diagonal_and_red_beside_it():
    picture = confusion_picture(np.array([[3, 0], [0, 3]]), ["a", "b"])
    assert "#{:02x}{:02x}{:02x}".format(*shade(1.0, True)) in colours(picture)
    assert "#{:02x}{:02x}{:02x}".format(*shade(1.0, False)) not in colours(picture)
    wrong = confusion_picture(np.array([[0, 3], [3, 0]]), ["a", "b"])
    assert "#{:02x}{:02x}{:02x}".format(*shade(1.0, False)) in colours(wrong)


def test_a_hundred_classes_fit_in_a_picture():
    n = 100
    assert confusion_picture(np.eye(n, dtype=int), [str(k) for k in range(n)]).size[0] < 1500
