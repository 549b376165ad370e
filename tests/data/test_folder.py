import zipfile
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_metakd.data.folder import Folder, divide


def pack(folder, archive, chosen=lambda name: True):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and chosen(path.parent.name):
                file.write(path, path.relative_to(folder.parent))
    return str(archive)


@pytest.fixture
def images(draw_class):
    for name in ("ant", "bee", "cat", "dog", "eel"):
        folder = draw_class(name, 4)
    return folder


def test_pixels_are_those_of_the_files(images):
    examples = Folder(str(images)).everything()
    assert examples.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert examples.y.tolist() == [c for c in range(5) for _ in range(4)]
    expected = np.asarray(Image.open(images / "cat" / "cat_001.png")).transpose(2, 0, 1)
    assert np.array_equal(examples.x[9].numpy(), expected)


def test_archives_hold_the_same_as_the_directory(images, tmp_path):
    whole = Folder(str(images)).everything()
    one = pack(images, tmp_path / "1of2.zip", lambda name: name < "c")
    two = pack(images, tmp_path / "2of2.zip", lambda name: name >= "c")
    for paths in ([one, two], [two, one]):
        packed = Folder(paths).everything()
        assert packed.x.equal(whole.x)
        assert packed.class_names == whole.class_names


def test_the_second_reading_opens_no_image(images, monkeypatch):
    first = Folder(str(images)).everything()
    monkeypatch.setattr("lightning_metakd.data.folder.plan", None)
    assert Folder(str(images)).everything().x.data_ptr() == first.x.data_ptr()


def test_a_changed_file_is_read_anew(images):
    before = Folder(str(images)).everything().x[0].clone()
    Image.new("RGB", (32, 32), "red").save(images / "ant" / "ant_000.png")
    assert not Folder(str(images)).everything().x[0].equal(before)


def test_folders_of_one_name_are_one_class(draw_class, tmp_path):
    draw_class("cat", 2, below="images/train")
    draw_class("cat", 3, below="images/test")
    assert Folder(str(tmp_path / "images")).everything().class_names == ("cat",)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_lossless_formats_agree(draw_class, suffix, tmp_path):
    draw_class("cat", 3, suffix=suffix)
    reference = draw_class("cat", 3, below="reference")
    seen = Folder(str(tmp_path / "images")).everything().x
    assert seen.equal(Folder(str(reference)).everything().x)


def test_other_sizes_cover_the_square_and_lose_their_ends(draw_class):
    folder = draw_class("cat", 2)
    stripes = Image.new("RGB", (96, 32), "blue")
    stripes.paste("red", (32, 0, 64, 32))
    stripes.save(folder / "cat" / "a.png")
    seen = Folder(str(folder), size=16).everything().x[0]
    assert seen.shape == (3, 16, 16)
    assert (seen[0, :, 2:14] > 200).all()


def test_grey_images_get_three_equal_channels(draw_class):
    folder = draw_class("cat", 2)
    Image.new("L", (32, 32), 77).save(folder / "cat" / "a.png")
    assert (Folder(str(folder)).everything().x[0] == 77).all()


def test_hidden_files_and_other_files_are_not_images(images):
    (images / "ant" / "notes.txt").write_text("no image")
    (images / "__MACOSX" / "ant").mkdir(parents=True)
    (images / "__MACOSX" / "ant" / "a.png").write_bytes(b"")
    (images / "ant" / "._a.png").write_bytes(b"")
    assert len(Folder(str(images)).everything().y) == 20


def test_given_splits_are_kept(images):
    source = Folder(str(images), splits={"train": ["ant", "bee", "dog", "eel"], "test": ["cat"]})
    named = {split: source.load(split).y.unique().tolist() for split in source.splits}
    assert named == {
        "train": [0, 1, 3, 4],
        "val": [],
        "test": [2],
        "teacher": [0, 1, 3],
        "strategy": [4],
    }


def test_drawn_splits_cover_all_classes_once():
    names = [f"class{i}" for i in range(50)]
    drawn = divide(names, (0.64, 0.16, 0.2), seed=0)
    assert {split: len(part) for split, part in drawn.items()} == {
        "train": 32,
        "val": 8,
        "test": 10,
    }
    assert sorted(chain(*drawn.values())) == sorted(names)
    assert (
        drawn
        == divide(names, (0.64, 0.16, 0.2), seed=0)
        != divide(names, (0.64, 0.16, 0.2), seed=1)
    )


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere.zip does not exist; give a directory or a zip"
    ):
        Folder(str(tmp_path / "nowhere.zip")).everything()


def test_a_damaged_archive_is_named(images, tmp_path):
    archive = tmp_path / "images.zip"
    pack(images, archive)
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=r"images.zip is neither a directory nor a whole zip .* download it again"
    ):
        Folder(str(archive)).everything()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_a_truncated_image_is_named_and_nothing_is_kept(
    draw_class, tmp_path, cache, packed, suffix
):
    folder = draw_class("cat", 3, suffix=suffix)
    file = folder / "cat" / f"cat_001{suffix}"
    file.write_bytes(file.read_bytes()[:500])
    path = pack(folder, tmp_path / "a.zip") if packed else str(folder)
    with pytest.raises(
        ValueError, match=rf"cannot read the image .*cat_001{suffix} in .* remove it, or copy"
    ):
        Folder(path).everything()
    assert list(cache.iterdir()) == []


def test_a_class_of_one_image_is_named(images, draw_class):
    draw_class("fly", 1)
    with pytest.raises(
        ValueError, match=r"class folder 'fly' in path=.*images holds 1 image, and a class needs 2"
    ):
        Folder(str(images)).everything()


def test_a_folder_without_classes_says_what_was_expected(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(
        ValueError, match=r"no class folders with images in path=.*expected <class>/<image>"
    ):
        Folder(str(tmp_path)).everything()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"splits": {"training": []}},
            "splits has the key 'training'; the keys are train, val and test",
        ),
        ({"splits": {"train": ["a"], "test": ["a"]}}, "splits lists the class 'a' twice"),
        (
            {"fractions": (0.5, 0.5, 0.5)},
            r"fractions=\(0.5, 0.5, 0.5\) must not be negative and must add up to 1",
        ),
    ],
)
def test_wrong_splits_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        Folder("anywhere", **settings)


def test_a_class_without_images_is_named(images):
    source = Folder(str(images), splits={"train": ["ant", "yak"]})
    with pytest.raises(
        ValueError, match="split 'train' names the classes yak, which are not among the 5 classes"
    ):
        source.rows("train")


def test_moments_come_from_the_base_classes(images):
    source = Folder(str(images), splits={"train": ["ant"], "test": ["bee"]})
    expected = source.everything().x[:4].double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(
        torch.tensor(source.normalisation()[0]).double(), expected, rtol=1e-6, atol=0
    )
