import pickle
from itertools import chain

import numpy as np
import pytest
import torch

from lightning_metakd.data.sources import cifar
from lightning_metakd.data.sources.cifar import CIFAR100, CIFARFS, FC100
from lightning_metakd.data.sources.cifar_by_class import CIFAR100ByClass
from tests.conftest import data_folder

SOURCES = (CIFAR100, CIFARFS, FC100)


def names(source, split):
    everything = source.all_rows()
    return {everything.class_names[c] for c in source.load(split).y.unique().tolist()}


def test_packaged_lists_are_divisions_of_the_100_classes():
    classes = cifar.class_names()
    assert len(set(classes)) == 100
    for source, sizes in ((CIFARFS(), (64, 16, 20)), (FC100(), (60, 20, 20))):
        parts = [source.split_names[split] for split in ("train", "val", "test")]
        assert tuple(map(len, parts)) == sizes
        assert sorted(chain(*parts)) == list(classes)


def test_every_fourth_base_class_is_the_strategys():
    train, teacher, strategy = (CIFARFS().split_names[s] for s in ("train", "teacher", "strategy"))
    assert strategy == train[3::4]
    assert sorted(teacher + strategy) == sorted(train)
    assert (len(teacher), len(strategy)) == (48, 16)


def test_fc100_divides_whole_superclasses():
    fine = cifar.packaged("cifar100_superclasses")
    for split in ("train", "val", "test", "teacher", "strategy"):
        chosen = set(FC100().split_names[split])
        assert all(len(chosen & set(group)) in (0, len(group)) for group in fine.values())
    assert len(FC100().split_names["strategy"]) == 15


def test_classes_may_be_divided_by_lists_of_ones_own():
    lists = {
        "train": CIFARFS().split_names["train"][:16],
        "test": CIFARFS().split_names["test"][:2],
    }
    of_split = CIFAR100ByClass(lists).split_names
    assert (of_split["train"], of_split["test"], of_split["val"]) == (*lists.values(), [])
    assert sorted(of_split["teacher"] + of_split["strategy"]) == sorted(lists["train"])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"test": ["lemur"]},
            r"names the class 'lemur', which CIFAR-100 has not; its classes are a",
        ),
        ({"train": ["pear"], "test": ["pear"]}, "lists the class 'pear' twice"),
        ({"base": ["pear"]}, "has the key 'base'; the keys are train, val and test"),
    ],
)
def test_a_list_of_no_classes_is_refused(lists, message):
    with pytest.raises(ValueError, match=message):
        CIFAR100ByClass(lists)


@pytest.mark.parametrize("source", SOURCES)
def test_absent_data_is_an_error_that_says_the_way_out(source, tmp_path):
    message = r"CIFAR-100 is not in data.source.root=.*; give download: true to fetch it \(169 MB\)"
    with pytest.raises(FileNotFoundError, match=message):
        source(str(tmp_path)).all_rows()


def test_half_of_the_data_is_an_error(tmp_path, draw_class):
    draw_class("apple", 3, below="train")
    draw_class("apple", 2, below="test")
    message = (
        r"holds 5 images and 0 whole classes of CIFAR-100, which has 60,000 and 100; is an arch"
    )
    with pytest.raises(ValueError, match=message):
        CIFAR100(str(tmp_path)).all_rows()


def test_a_file_that_is_not_the_official_one_is_not_unpickled(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(pickle.dumps({"data": 0}))
    with pytest.raises(ValueError, match=r"train is damaged or not the official file; delete"):
        CIFAR100(str(tmp_path)).all_rows()


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_calls_nothing_but_the_parts_of_arrays(tmp_path):
    path = tmp_path / "train"
    path.write_bytes(pickle.dumps({"data": Code()}))
    with pytest.raises(pickle.UnpicklingError, match=r"names builtins\.print, which is no part of"):
        cifar.unpickle(path)
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"data": np.eye(3), "names": ["a"]}, protocol))
        assert np.array_equal(cifar.unpickle(path)["data"], np.eye(3))


def test_both_forms_give_the_same_rows(tmp_path, draw_class):
    for part in ("train", "test"):
        for name in ("bear", "apple"):
            draw_class(name, 3, below=part)
    folders = cifar.from_folders([tmp_path])
    pixels = np.concatenate(list(folders.pieces))
    assert folders.y == [0, 0, 0, 3, 3, 3] * 2
    order = np.random.default_rng(0).permutation(6)
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    for part, half in (("train", slice(0, 6)), ("test", slice(6, 12))):
        stems = [f"{name}_{i:03d}.png" for name in ("apple", "bear") for i in range(3)]
        content = {
            "data": pixels[half][order].reshape(6, -1),
            "fine_labels": [folders.y[half][i] for i in order],
            "filenames": [stems[i] for i in order],
        }
        (place / part).write_bytes(pickle.dumps(content))
    archive = cifar.from_archive(place)
    assert archive.y == folders.y
    assert np.array_equal(np.concatenate(list(archive.pieces)), pixels)


@pytest.fixture(scope="module")
def real():
    """All three sources, decoded once a machine: this fixture runs before the cache is set aside."""
    sources = {source.__name__: source(str(data_folder())) for source in SOURCES}
    sources["CIFAR100"].all_rows()
    return sources


@pytest.mark.parametrize("source", SOURCES)
def test_how_it_is_read_is_known_before_there_are_images(source):
    assert source("nowhere").reading(None).mean == (0.5071, 0.4865, 0.4409)


@pytest.mark.real_data
def test_real_cifar_100_has_its_counts_and_moments(real):
    source = real["CIFAR100"]
    train, test = source.load("train"), source.load("test")
    assert train.y.bincount().tolist() == [500] * 100
    assert test.y.bincount().tolist() == [100] * 100
    x = train.x[::10].double() / 255  # a tenth, 50 of each class
    for actual, result in zip(
        (x.mean((0, 2, 3)), x.std((0, 2, 3))), source.normalisation(), strict=True
    ):
        torch.testing.assert_close(actual, torch.tensor(result).double(), rtol=0, atol=5e-3)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "sizes"), [("CIFARFS", (64, 16, 20)), ("FC100", (60, 20, 20))])
def test_real_few_shot_classes_have_600_images(real, name, sizes):
    source = real[name]
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        counts = source.all_rows().y[source.rows(split)].bincount(minlength=100)
        assert counts.unique().tolist() == [0, 600]
        assert (counts == 600).sum() == size
    assert names(source, "strategy") == set(source.split_names["strategy"])


@pytest.mark.real_data
def test_all_three_share_one_tensor(real):
    assert len({source.all_rows().x.data_ptr() for source in real.values()}) == 1
