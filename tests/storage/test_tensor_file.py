import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_metakd.storage import tensor_file as files_of_tensors
from lightning_metakd.storage.tensor_file import check_seal, create_tensor_file, open_tensor_file

SHAPES = {
    "x": (torch.float32, (5, 3)),
    "nothing": (torch.float32, (5, 0)),
    "is": (torch.bool, (5,)),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.safetensors"
    with create_tensor_file(path, SHAPES) as tensors:
        tensors["x"][1:3] = torch.arange(6.0).view(2, 3)
        tensors["is"][4] = True
        assert not path.exists()
    return path


def test_what_was_filled_is_what_safetensors_reads(path):
    actual = load_file(path)
    assert actual["x"].equal(torch.tensor([0, 0, 0, 0, 1, 2, 3, 4, 5, *[0] * 6]).view(5, 3))
    assert actual["is"].tolist() == [False] * 4 + [True]
    assert actual["nothing"].shape == (5, 0)


def test_it_is_mapped_with_the_shapes_that_are_asked_for(path):
    actual = open_tensor_file(path, SHAPES)
    assert all(actual[name].equal(tensor) for name, tensor in load_file(path).items())
    assert open_tensor_file(path, {**SHAPES, "x": (torch.float32, (5, 4))}) is None
    assert open_tensor_file(path.with_name("none"), SHAPES) is None


def test_a_changed_byte_anywhere_is_noticed(path, caplog):
    whole = path.read_bytes()
    for at in (*range(0, 8), *range(8, len(whole), 7)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        check_seal.cache_clear()
        caplog.clear()
        assert open_tensor_file(path, SHAPES) is None, at
        assert "file.safetensors" in caplog.text or at < 8
    path.write_bytes(whole)
    assert open_tensor_file(path, SHAPES) is not None


def test_a_file_without_a_checksum_is_made_again(path, caplog):
    save_file(load_file(path), path)
    assert open_tensor_file(path, SHAPES) is None
    assert "it has no checksum" in caplog.text


def test_a_file_is_compared_once_for_as_long_as_it_stays_the_same(path, monkeypatch):
    compared = []
    true = files_of_tensors.checksum_of
    monkeypatch.setattr(
        files_of_tensors, "checksum_of", lambda path: compared.append(path) or true(path)
    )
    for _ in range(3):
        assert open_tensor_file(path, SHAPES) is not None
    assert len(compared) == 1
    path.touch()
    assert open_tensor_file(path, SHAPES) is not None
    assert len(compared) == 2


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), create_tensor_file(tmp_path / "file", SHAPES):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
