"""CLINC150 and BANKING77 as they were published."""

import json
import zipfile
from itertools import chain

import pytest

from lightning_metakd.data.sources import Intents
from tests.conftest import data_folder

LABELS = {"train": "a b c d", "valid": "e f", "test": "g h"}


@pytest.fixture
def small(tmp_path):
    """A collection of eight intents in the form of the real one."""
    names = " ".join(LABELS.values()).split()
    parts = {
        part: [[f"{part} text {n} about {name}", name] for name in names for n in range(2)]
        for part in ("train", "val", "test")
    }
    with zipfile.ZipFile(tmp_path / "intents.zip", "w") as archive:
        content = parts | {"oos_train": [["what", "oos"]]}
        archive.writestr("intents/clinc150/data_full.json", json.dumps(content))
        for part in ("train", "test"):
            rows = "".join(f'"{text}",{name}\r\n' for text, name in parts[part])
            archive.writestr(f"intents/banking77/{part}.csv", f"text,category\r\n{rows}")
        for name in ("clinc150", "banking77"):
            for part, labels in LABELS.items():
                lines = "\n".join(labels.split())
                archive.writestr(f"intents/{name}/few_shot/02/labels.{part}.txt", lines)
    return tmp_path


@pytest.mark.parametrize(("data_set", "rows"), [("clinc150", 48), ("banking77", 32)])
@pytest.mark.parametrize("unpacked", [False, True])
def test_all_texts_with_an_intent_are_read_in_place(data_set, rows, unpacked, small):
    if unpacked:
        zipfile.ZipFile(small / "intents.zip").extractall(small)
        (small / "intents.zip").unlink()
    source = Intents(data_set, str(small), fold=2)
    assert len(source.all_rows().y) == rows
    assert source.split_names["train"] == ["a", "b", "c", "d"]
    assert source.split_names["strategy"] == ["d"]
    assert source.split_names["val"] == ["e", "f"]
    assert "train text 0 about a" in source.row_names
    source.check_rows()


def test_the_vocabulary_is_of_the_training_classes_alone(small):
    source = Intents("clinc150", str(small), fold=2, n_tokens=400)
    assert '"Ġabout"' in source.vocabulary.tokeniser
    assert '"Ġa"' in source.vocabulary.tokeniser
    assert '"Ġh"' not in source.vocabulary.tokeniser  # an intent that is tested on


def test_absent_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"neither intents.zip nor intents/clinc150/data_full"
    ):
        Intents("clinc150", str(tmp_path)).all_rows()


@pytest.mark.real_data
@pytest.mark.parametrize("fold", range(1, 6))
@pytest.mark.parametrize(
    ("data_set", "rows", "sizes"),
    [("clinc150", 22_500, (50, 50, 50)), ("banking77", 13_083, (25, 25, 27))],
)
def test_the_published_numbers(data_set, rows, sizes, fold):
    source = Intents(data_set, str(data_folder()), fold, max_tokens=96)
    _, y, _, names = source.all_rows()
    assert len(y) == rows
    assert len(names) == sum(sizes)
    split_names = [source.split_names[split] for split in ("train", "val", "test")]
    assert tuple(map(len, split_names)) == sizes
    assert sorted(chain(*split_names)) == sorted(names)
