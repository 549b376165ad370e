import re
import zipfile
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.class_splits import divide
from lightning_metakd.data.sources.folder import Folder
from lightning_metakd.data.sources.source import Labelled


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
    examples = Folder(str(images)).all_rows()
    assert examples.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert examples.y.tolist() == [c for c in range(5) for _ in range(4)]
    expected = np.asarray(Image.open(images / "cat" / "cat_001.png")).transpose(2, 0, 1)
    assert np.array_equal(examples.x[9].numpy(), expected)


def test_archives_hold_the_same_as_the_directory(images, tmp_path):
    whole = Folder(str(images)).all_rows()
    one = pack(images, tmp_path / "1of2.zip", lambda name: name < "c")
    two = pack(images, tmp_path / "2of2.zip", lambda name: name >= "c")
    for paths in ([one, two], [two, one]):
        packed = Folder(paths).all_rows()
        assert packed.x.equal(whole.x)
        assert packed.class_names == whole.class_names


def test_each_row_knows_its_file(images, tmp_path):
    source = Folder(str(images))
    assert len(source.row_names) == 20
    for row, name in enumerate(source.row_names):
        pixels = np.asarray(Image.open(name)).transpose(2, 0, 1)
        assert np.array_equal(source.all_rows().x[row].numpy(), pixels)
    packed = Folder(pack(images, tmp_path / "all.zip"))
    assert packed.row_names[9] == str(tmp_path / "all.zip" / images.name / "cat" / "cat_001.png")


def test_the_second_reading_opens_no_image(images, monkeypatch):
    first = Folder(str(images)).all_rows()
    monkeypatch.setattr("lightning_metakd.data.sources.folder.plan", None)
    assert Folder(str(images)).all_rows().x.data_ptr() == first.x.data_ptr()


def test_a_changed_file_is_read_anew(images):
    before = Folder(str(images)).all_rows().x[0].clone()
    Image.new("RGB", (32, 32), "red").save(images / "ant" / "ant_000.png")
    assert not Folder(str(images)).all_rows().x[0].equal(before)


def test_folders_of_one_name_are_one_class(draw_class, tmp_path):
    draw_class("cat", 2, below="images/train")
    draw_class("cat", 3, below="images/test")
    assert Folder(str(tmp_path / "images")).all_rows().class_names == ("cat",)


def names_of(*paths):
    counts = Counter(Folder([str(path) for path in paths]).all_rows().y.tolist())
    names = Folder([str(path) for path in paths]).all_rows().class_names
    return {name: counts[i] for i, name in enumerate(names)}


def test_folders_of_one_name_below_different_folders_are_classes_called_by_their_path(
    draw_class, tmp_path
):
    for split in ("train", "Test"):
        for alphabet, n in (("greek", 2), ("latin", 3)):
            draw_class("alpha", n, below=f"images/{split}/{alphabet}")
        draw_class("omega", 2, below=f"images/{split}/greek")
    expected = {"greek/alpha": 4, "latin/alpha": 6, "omega": 4}
    message = r"has 2 class folders whose name occurs .* by their path: greek/alpha, latin/alpha"
    with pytest.warns(UserWarning, match=message):
        assert names_of(tmp_path / "images") == expected
    pack(tmp_path / "images", tmp_path / "images.zip")
    with pytest.warns(UserWarning, match=message):
        assert names_of(tmp_path / "images.zip") == expected


def test_the_folder_of_an_archive_does_not_part_its_classes(draw_class, tmp_path):
    draw_class("cat", 2, below="images")
    pack(draw_class("cat", 3, below="more"), tmp_path / "more.zip")
    assert names_of(tmp_path / "images", tmp_path / "more.zip") == {"cat": 5}


def test_classes_in_the_folders_of_two_archives_are_apart(draw_class, tmp_path):
    for part, alphabet in (("a", "greek"), ("b", "latin")):
        pack(draw_class("alpha", 2, below=alphabet), tmp_path / f"{part}.zip")
    with pytest.warns(UserWarning, match="called by their path"):
        counts = names_of(tmp_path / "a.zip", tmp_path / "b.zip")
    assert counts == {"greek/alpha": 2, "latin/alpha": 2}


def test_an_image_that_would_be_read_twice_is_refused(images):
    for paths in ([images, images], [images / "ant", images]):
        with pytest.raises(
            ValueError, match=r"is listed twice or lies in another path; name every"
        ):
            Folder([str(path) for path in paths])
    with pytest.raises(ValueError, match=r"path=\[\] names no images"):
        Folder([])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_lossless_formats_agree(draw_class, suffix, tmp_path):
    draw_class("cat", 3, suffix=suffix)
    reference = draw_class("cat", 3, below="reference")
    recorded = Folder(str(tmp_path / "images")).all_rows().x
    assert recorded.equal(Folder(str(reference)).all_rows().x)


def test_other_sizes_cover_the_square_and_lose_their_ends(draw_class):
    folder = draw_class("cat", 2)
    stripes = Image.new("RGB", (96, 32), "blue")
    stripes.paste("red", (32, 0, 64, 32))
    stripes.save(folder / "cat" / "a.png")
    recorded = Folder(str(folder), size=16).all_rows().x[0]
    assert recorded.shape == (3, 16, 16)
    assert (recorded[0, :, 2:14] > 200).all()


def test_grey_images_get_three_equal_channels(draw_class):
    folder = draw_class("cat", 2)
    Image.new("L", (32, 32), 77).save(folder / "cat" / "a.png")
    assert (Folder(str(folder)).all_rows().x[0] == 77).all()


def test_hidden_files_are_not_images(images):
    (images / "__MACOSX" / "ant").mkdir(parents=True)
    (images / "__MACOSX" / "ant" / "a.png").write_bytes(b"")
    (images / "ant" / "._a.png").write_bytes(b"")
    assert len(Folder(str(images)).all_rows().y) == 20


def test_given_splits_are_kept(images):
    source = Folder(str(images), splits={"train": ["ant", "bee", "dog", "eel"], "test": ["cat"]})
    named = {split: source.load(split).y.unique().tolist() for split in source.splits}
    assert named == {
        "train": [0, 1, 3, 4],
        "val": [],
        "test": [2],
        "teacher": [0, 3],
        "strategy": [1, 4],
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


@pytest.mark.parametrize("n", [6, 8, 12, 14, 15, 20, 33, 100])
def test_every_split_can_be_drawn_from_where_there_are_enough_classes(n):
    source = Folder("anywhere")
    nothing = torch.arange(0)
    names = tuple(f"class{i:03d}" for i in range(n))
    source.__dict__["_all_rows"] = Labelled(nothing, nothing, nothing, names)
    sizes = {split: len(names) for split, names in source.split_names.items()}
    assert sizes["train"] + sizes["val"] + sizes["test"] == n
    assert sizes["teacher"] + sizes["strategy"] == sizes["train"]
    least = min(sizes[split] for split in ("train", "val", "test"))
    assert least >= (5 if n >= 15 else max(2, n // 4))
    if n >= 20 or 8 <= n < 15:  # a strategy can be learned on as many ways
        assert min(sizes.values()) >= min(5, n // 4)
    if n > 32:
        assert (sizes["val"], sizes["test"]) == (round(0.16 * n), round(0.2 * n))
        assert sizes["strategy"] == sizes["train"] // 4


def test_too_few_classes_are_told_with_numbers_that_would_do(draw_class, as_users_run_it):
    for i in range(12):
        images = draw_class(f"class{i:02d}", 3)
    source = Folder(str(images), size=16)
    episode = {"k_shot": 1, "n_query": 1, "n_episodes": 2}
    message = (
        "n_way=5 exceeds the 3 classes of split 'val' in Folder(images); lower data.n_way, or divide the 12 "
        "classes otherwise by source.fractions or source.splits (now 6 train, 3 val, 3 test, 3 teacher, "
        "3 strategy; the last two are parts of train)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        EpisodicData(source, **episode).val_dataloader()
    data = EpisodicData(
        source, n_way=3, train_split="teacher", strategy_split="strategy", **episode
    )
    for batch in next(iter(data.train_dataloader())):
        assert batch.classes.shape[-1] == 3
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert next(iter(loader)).classes.shape[-1] == 3


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere.zip does not exist; give a directory or a zip"
    ):
        Folder(str(tmp_path / "nowhere.zip")).all_rows()


def test_a_damaged_archive_is_named(images, tmp_path):
    archive = tmp_path / "images.zip"
    pack(images, archive)
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=r"images.zip is neither a directory nor a whole zip .* download it again"
    ):
        Folder(str(archive)).all_rows()


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
        Folder(path).all_rows()
    assert list(cache.iterdir()) == []


def test_a_class_of_one_image_is_named(images, draw_class):
    draw_class("fly", 1)
    with pytest.raises(
        ValueError, match=r"class folder 'fly' in path=.*images holds 1 image, and a class needs 2"
    ):
        Folder(str(images)).all_rows()


def test_a_folder_without_classes_says_what_was_expected(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(
        ValueError, match=r"no class folders with images in path=.*expected <class>/<image>"
    ):
        Folder(str(tmp_path)).all_rows()


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
            r"fractions=\(0.5, 0.5, 0.5\) must be three numbers for train, val and test",
        ),
        (
            {"fractions": (0.5, float("nan"), 0.5)},
            r"fractions=\(0.5, nan, 0.5\) must be three numb",
        ),
        ({"fractions": (1.5, -0.5, 0.0)}, r"fractions=\(1.5, -0.5, 0.0\) must be three numbers"),
        ({"size": 0}, "size=0 must be 1 or more"),
        ({"size": -3}, "size=-3 must be 1 or more"),
        ({"size": 10**6}, "size=1000000 must be 4,096 or less"),
        ({"split_seed": -1}, "split_seed=-1 must be 0 or more"),
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
    expected = source.all_rows().x[:4].double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(
        torch.tensor(source.normalisation()[0]).double(), expected, rtol=1e-6, atol=0
    )
