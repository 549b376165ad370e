import shutil
import zipfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_metakd.data.sources import images, omniglot
from lightning_metakd.data.sources.class_splits import packaged
from lightning_metakd.data.sources.omniglot import Omniglot
from tests.conftest import data_folder

FEW = {
    "train": {"Aa": 1, "Bb": 2, "Cc": 1, "Dd": 2},
    "val": {"Ab": 2},
    "test": {"Ac": 1, "Zz": 2},
}
CLASSES = 11


def alphabets(source, split):
    everything = source.all_rows()
    names = [everything.class_names[c] for c in source.load(split).y.unique().tolist()]
    return {name.split("/")[0] for name in names}


def pack(archive, place, *parts):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(chain(*(place.glob(f"{part}/*/*/*.png") for part in parts))):
            file.write(path, path.relative_to(place.parent if len(parts) > 1 else place))


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """The two official folders with random drawings of a few alphabets, and a third to be left out."""
    root = tmp_path_factory.mktemp("drawings") / "omniglot"
    random = np.random.default_rng(0)
    parts = {"test": "images_evaluation", "small1": "images_background_small1"}
    for split, counts in (*FEW.items(), ("small1", {"Aa": 1})):
        for alphabet, i in ((a, i) for a, n in counts.items() for i in range(n)):
            part = parts.get(split, "images_background")
            place = root / part / alphabet / f"character{i + 1:02d}"
            place.mkdir(parents=True)
            for person in range(20):
                pixels = random.integers(0, 2, (105, 105)).astype(bool)
                Image.fromarray(pixels).save(place / f"0{i}_{person + 1:02d}.png")
    pack(root.parent / "omniglot.zip", root, *omniglot.PARTS, "images_background_small1")
    return root


@pytest.fixture
def archive(drawings, monkeypatch):
    """A folder with these in one archive."""
    monkeypatch.setattr(omniglot, "packaged", lambda name: FEW)
    return str(drawings.parent)


@pytest.fixture
def official(drawings, archive, tmp_path):
    """These unpacked, to change them."""
    return Path(shutil.copytree(drawings, tmp_path / "omniglot"))


def drawing(root, name):
    with zipfile.ZipFile(f"{root}/omniglot.zip") as file, file.open(f"omniglot/{name}") as image:
        return Image.open(image).convert("L")


def test_packaged_list_divides_the_50_alphabets():
    parts = list(packaged("omniglot").values())
    assert [(len(part), sum(part.values())) for part in parts] == [(25, 883), (5, 81), (20, 659)]
    assert len(set(chain(*parts))) == 50
    assert max(parts[1].values()) < min(parts[0].values())  # the smallest of the background set


def test_strokes_are_white_on_black(archive):
    source = Omniglot(archive, size=105, rotations=False)
    examples = source.all_rows()
    assert examples.x.shape == (CLASSES * 20, 1, 105, 105)
    assert examples.class_names[:3] == ("Aa/character01", "Ab/character01", "Ab/character02")
    assert examples.y.tolist() == [c for c in range(CLASSES) for _ in range(20)]
    for row, name in (
        (1, "images_background/Aa/character01/00_02.png"),
        (-1, "images_evaluation/Zz/character02/01_20.png"),
    ):
        paper = np.asarray(drawing(archive, name))
        assert set(np.unique(paper)) == {0, 255}
        assert np.array_equal(examples.x[row, 0].numpy(), 255 - paper)


def test_thin_lines_become_grey_and_do_not_vanish(official):
    fence = np.broadcast_to(np.arange(105) % 2 == 0, (105, 105))  # every other column is a stroke
    Image.fromarray(~fence).save(official / "images_background/Aa/character01/00_01.png")
    recorded = Omniglot(str(official)).all_rows().x[0, 0].double()
    assert recorded.shape == (28, 28)
    assert (recorded[:, 2:-2] - 255 * fence.mean()).abs().max() < 10


def test_rotations_are_the_drawings_turned_anticlockwise(archive):
    upright = Omniglot(archive, rotations=False).all_rows()
    examples = Omniglot(archive).all_rows()
    assert len(examples.class_names) == len(set(examples.class_names)) == 4 * CLASSES
    assert examples.x[: CLASSES * 20].equal(upright.x)
    assert examples.class_names[:CLASSES] == upright.class_names
    for turn in range(4):
        rows = slice(turn * CLASSES * 20, (turn + 1) * CLASSES * 20)
        for row in (0, 57, 219):
            expected = Image.fromarray(upright.x[row, 0].numpy()).rotate(90 * turn)
            assert np.array_equal(examples.x[rows][row, 0].numpy(), np.asarray(expected))
            name = examples.class_names[examples.y[rows][row]]
            angle = f"/rot{90 * turn:03d}" if turn else ""
            assert name == upright.class_names[upright.y[row]] + angle


@pytest.mark.parametrize(("rotations", "times"), [(False, 1), (True, 4)])
def test_splits_share_no_alphabet(archive, rotations, times):
    source = Omniglot(archive, rotations=rotations)
    for split, counts in FEW.items():
        assert alphabets(source, split) == set(counts)
        assert len(source.rows(split)) == 20 * times * sum(counts.values())
        assert len(source.split_names[split]) == times * sum(counts.values())
    assert alphabets(source, "strategy") == {"Dd"}
    assert alphabets(source, "teacher") == {"Aa", "Bb", "Cc"}


def test_three_channels_are_equal_and_take_no_memory(archive):
    grey, colour = (Omniglot(archive, channels=n) for n in (1, 3))
    assert colour.all_rows().x.shape[1] == 3
    assert colour.all_rows().x.data_ptr() == grey.all_rows().x.data_ptr()
    rows = colour.load("val").x
    assert all(rows[:, c].equal(grey.load("val").x[:, 0]) for c in range(3))
    assert colour.normalisation() == tuple(moment * 3 for moment in grey.normalisation())


def test_all_forms_give_the_same(archive, official, tmp_path):
    expected = Omniglot(archive).all_rows()

    def same(root):
        actual = Omniglot(str(root)).all_rows()
        return actual.x.equal(expected.x) and actual.class_names == expected.class_names

    assert same(official)
    assert same(tmp_path)  # in omniglot
    two, torchvision = tmp_path / "two", tmp_path / "torchvision"
    two.mkdir()
    for part in omniglot.PARTS:
        pack(two / f"{part}.zip", official, part)
    assert same(two)
    shutil.copytree(official, torchvision / "omniglot-py")
    assert same(torchvision)


def test_absent_data_is_an_error_that_says_where_and_the_way_out(tmp_path):
    message = (
        r"Omniglot is not in data.source.root=.*, nor in omniglot or omniglot-py there; give download: true "
        r"to fetch it \(16 MB\), or put there omniglot.zip, or images_background and images_evaluation"
    )
    with pytest.raises(FileNotFoundError, match=message):
        Omniglot(str(tmp_path)).all_rows()


def test_a_drawing_too_few_or_of_another_alphabet_is_an_error(official):
    lost = official / "images_evaluation" / "Zz" / "character02" / "01_20.png"
    message = r"omniglot holds {} drawings of 11 characters of Omniglot, which has 220 and 11; delete them"
    moved = official / "images_evaluation" / "Yy" / "character01" / "00_01.png"
    moved.parent.mkdir(parents=True)
    lost.rename(moved)
    with pytest.raises(ValueError, match=message.format(220)):
        Omniglot(str(official)).all_rows()
    moved.unlink()
    with pytest.raises(ValueError, match=message.format(219)):
        Omniglot(str(official)).all_rows()


def test_two_channels_are_refused_at_once():
    with pytest.raises(ValueError, match=r"channels=2 must be 1, or 3 for networks that take col"):
        Omniglot("anywhere", channels=2)


@pytest.fixture(scope="module")
def real():
    """Decoded once a machine: this fixture runs before the cache is set aside."""
    source = Omniglot(str(data_folder()))
    source.all_rows()
    return source


@pytest.mark.real_data
def test_real_omniglot_has_its_counts(real):
    upright = [name for name in real.all_rows().class_names if name.count("/") == 1]
    assert len(upright) == 1623
    assert real.all_rows().y.bincount().tolist() == [20] * 4 * 1623
    actual = {split: alphabets(real, split) for split in real.splits}
    assert [len(actual[split]) for split in ("train", "val", "test")] == [25, 5, 20]
    assert [len(real.rows(split)) // 80 for split in ("train", "val", "test")] == [883, 81, 659]
    assert len(actual["train"] | actual["val"] | actual["test"]) == 50
    assert actual["teacher"] | actual["strategy"] == actual["train"]
    assert not actual["teacher"] & actual["strategy"]
    places = omniglot.locate(data_folder())
    evaluation = {
        omniglot.character(image).split("/")[0]
        for image in images.scan(places)
        if "images_evaluation" in (image.container / image.member).parts
    }
    assert actual["test"] == evaluation


@pytest.mark.real_data
def test_real_drawings_are_thin_white_strokes_on_black(real):
    x = real.all_rows().x[:32_460:10]
    assert x[:, :, (0, -1)].double().mean() < 10  # of 255, at the upper and the lower edge
    assert 0.05 < (x > 127).double().mean() < 0.12
