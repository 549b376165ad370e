"""What `torch.save` writes is read to the last bit, and an archive that is not whole says so."""

import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_metakd.storage.archives import read_archive
from lightning_metakd.storage.atomic_files import DamagedFileError
from tests.commands import same
from tests.tiny import SmoothConv4

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64)
OTHERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool)
TYPES = (*FLOATS, *OTHERS, torch.float8_e4m3fn)


def round_trip(content, path):
    torch.save(content, path)
    read = read_archive(path)
    assert same(read, torch.load(path, weights_only=True))
    return read


@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_of_every_type_come_back(dtype, tmp_path):
    x = torch.arange(24).view(2, 3, 4).to(dtype)
    if dtype.itemsize == 1 and dtype.is_floating_point:  # which cannot be compared
        torch.save(x, tmp_path / "x")
        assert torch.equal(read_archive(tmp_path / "x").view(torch.uint8), x.view(torch.uint8))
        return
    kept = {"x": x, "turned": x.mT, "part": x[1:, ::2], "none": x[:0], "one": x[0, 0, 0]}
    read = round_trip(kept, tmp_path / "x")
    assert read["turned"].stride() == x.mT.stride()


def test_plain_values_come_back(tmp_path):
    values = [None, True, 1, 300, 2**40, -(2**70), 0.1, "a", b"\0\xff", (1, (2,)), {3}, set(), []]
    read = round_trip({**dict(enumerate(values)), "size": torch.Size([2, 3])}, tmp_path / "x")
    assert type(read["size"]) is torch.Size
    assert round_trip({"on": torch.device("cuda", 1)}, tmp_path / "x")["on"].index == 1
    assert round_trip({"dtype": torch.float16}, tmp_path / "x") == {"dtype": torch.float16}


def test_what_shares_memory_shares_it_still(tmp_path):
    x = torch.zeros(4)
    read = round_trip({"x": x, "part": x[2:]}, tmp_path / "x")
    read["x"][3] = 1
    assert read["part"][1] == 1


def test_a_state_dict_keeps_the_versions_of_its_modules(tmp_path):
    net = SmoothConv4(0)
    state = net.state_dict(keep_vars=True)
    torch.save(state, tmp_path / "x")
    read = read_archive(tmp_path / "x")
    assert isinstance(read, OrderedDict)
    assert read._metadata == state._metadata
    assert not any(isinstance(p, nn.Parameter) for p in read.values())
    assert same(dict(read), dict(net.state_dict()))


def test_the_other_order_of_bytes_is_refused(tmp_path):
    torch.save({}, tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x") as archive, zipfile.ZipFile(tmp_path / "y", "w") as other:
        for name in archive.namelist():
            other.writestr(name, b"big" if name.endswith("byteorder") else archive.read(name))
    with pytest.raises(DamagedFileError, match="its order of bytes is not little"):
        read_archive(tmp_path / "y")
