import pytest
import torch
from safetensors.torch import load_file

from lightning_metakd.mapped import filled, mapped

SHAPES = {
    "x": (torch.float32, (5, 3)),
    "nothing": (torch.float32, (5, 0)),
    "is": (torch.bool, (5,)),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.safetensors"
    with filled(path, SHAPES) as tensors:
        tensors["x"][1:3] = torch.arange(6.0).view(2, 3)
        tensors["is"][4] = True
        assert not path.exists()
    return path


def test_what_was_filled_is_what_safetensors_reads(path):
    found = load_file(path)
    assert found["x"].equal(torch.tensor([0, 0, 0, 0, 1, 2, 3, 4, 5, *[0] * 6]).view(5, 3))
    assert found["is"].tolist() == [False] * 4 + [True]
    assert found["nothing"].shape == (5, 0)


def test_it_is_mapped_with_the_shapes_that_are_asked_for(path):
    found = mapped(path, SHAPES)
    assert all(found[name].equal(tensor) for name, tensor in load_file(path).items())
    assert mapped(path, {**SHAPES, "x": (torch.float32, (5, 4))}) is None
    assert mapped(path.with_name("none"), SHAPES) is None


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), filled(tmp_path / "file", SHAPES):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
