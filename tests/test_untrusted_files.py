"""Files that somebody planted: nothing in them runs, nothing is written, and little memory is taken."""

import http.server
import json
import os
import pickle
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO

from lightning_metakd.bank import Bank
from lightning_metakd.checkpoint import read_checkpoint
from lightning_metakd.checkpoint_io import AtomicCheckpointIO, read_safely
from lightning_metakd.data import cache
from lightning_metakd.data.embedded import Embedded
from lightning_metakd.data.folder import Folder
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.strategy import read_strategy
from lightning_metakd.teachers import Teacher
from tests.tiny import Blobs, Fixed, SmoothConv4, episode, trainer

GIB = 2**30
CREATED = Path("ran")
"""What the planted code would write, in the working directory."""


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {CREATED}",)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def written():
    """All files below the working directory, and whether its parent has new ones."""
    return sorted(str(path) for path in Path("..").rglob("*"))


# --- planted checkpoints ---------------------------------------------------------------------------


def with_code(path):
    torch.save({"state_dict": {"weight": Code()}, "pytorch-lightning_version": "2.6.6"}, path)


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Code()))


def old_format(path):
    torch.save({"state_dict": Code()}, path, _use_new_zipfile_serialization=False)


def torchscript(path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    """An archive as `torch.save` lays it out, with these members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)


def outside(path):
    zip_of(path, {"../../escaped": b"x", "data.pkl": pickle.dumps({}, 2)})


def compressed_zeros(path):
    """Three GiB of zeros in 3 MB: a piece of a compressed stream, many times over."""
    deflate = zlib.compressobj(wbits=-15)
    piece = deflate.compress(bytes(2**25)) + deflate.flush(zlib.Z_FULL_FLUSH)
    stream = 96 * piece + deflate.flush()
    zip_of(path, {"data/0": stream})
    in_list(path, 10, struct.pack("<H", zipfile.ZIP_DEFLATED))
    in_list(path, 24, struct.pack("<I", 3 * GIB))


def stored_zeros(path):
    """A member that claims three GiB of itself."""
    zip_of(path, {"data/0": b""})
    in_list(path, 20, struct.pack("<II", 3 * GIB, 3 * GIB))


def in_list(path, offset, value):
    """Write into the entry of an archive's only member."""
    content = path.read_bytes()
    at = content.index(b"PK\1\2") + offset
    path.write_bytes(content[:at] + value + content[at + len(value) :])


def many_objects(path):
    """A pickle of eight million empty sets, 2 GB of memory."""
    zip_of(path, {"data.pkl": b"\x80\4" + b"\x8f" * 2**23 + b"."})


def much_at_a_word(path):
    """A dozen bytes that ask for two GB."""
    zip_of(path, {"data.pkl": b"\x80\2c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."})


def many_copies(path):
    """A list of a hundred thousand numbers, and ten thousand sets of them."""
    numbers = b"".join(b"J" + struct.pack("<i", i) for i in range(10**5))
    head = b"\x80\2](" + numbers + b"e\x85q\0c__builtin__\nset\nq\1"
    zip_of(path, {"data.pkl": head + b"h\1h\0R" * 10**4 + b"."})


def tensor_of(size, stride, storage="FloatStorage"):
    """A pickle of a tensor of a storage of four numbers."""
    numbers = b"".join(b"J" + struct.pack("<i", n) + b"\x85" for n in (size, stride))
    kept = b"(U\7storagectorch\n" + storage.encode() + b"\nU\0010U\3cpuK\4tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + kept + b"K\0" + numbers
    return b"\x80\2" + call + b"\x89}tR."


def more_than_its_storage(path):
    zip_of(path, {"data.pkl": tensor_of(2**29, 1), "data/0": bytes(16)})


def one_number_many_times(path):
    zip_of(path, {"data.pkl": tensor_of(2**29, 0), "data/0": bytes(16)})


def an_attribute(path):
    """A dictionary whose `items` is a number."""
    call = b"\x80\2ccollections\nOrderedDict\n)R}U\5itemsK\1sb."
    zip_of(path, {"data.pkl": call})


def another_word(path):
    """What the pickles of PyTorch never say: a new object of a class."""
    zip_of(path, {"data.pkl": b"\x80\2ctorch\nfloat32\n)\x81."})


def two_pickles(path):
    zip_of(path, {"data.pkl": pickle.dumps({}, 2), "other/data.pkl": pickle.dumps({}, 2)})


def many_members(path):
    """A list of a million members that are all the same."""
    name = b"a/data.pkl"
    entry = b"PK\1\2" + struct.pack("<6H3I5H2I", *[0] * 9, len(name), *[0] * 6) + name
    entries = entry * 10**6
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 0, 0, len(entries), 0, 0)
    path.write_bytes(entries + end)


def not_one(path):
    path.write_bytes(os.urandom(1000))


CHECKPOINTS = [
    (with_code, r"it names '\w+\.system', which is code"),
    (bare_pickle, "File is not a zip file"),
    (old_format, "File is not a zip file"),
    (torchscript, "it is a TorchScript program"),
    (outside, "its member 'archive/../../escaped' lies outside of 'archive/'"),
    (compressed_zeros, "its member 'archive/data/0' is compressed"),
    (stored_zeros, "takes 3,072 MiB of memory to read, and the limit is 768; .*METAKD_READ_LIMIT"),
    (many_objects, "takes 2,0.. MiB of memory to read, and the limit is 768"),
    (much_at_a_word, "it names '__builtin__.bytearray', which is code"),
    (many_copies, "takes 770 MiB of memory to read, and the limit is 768"),
    (more_than_its_storage, r"its pickle makes no sense \(RuntimeError\)"),
    (one_number_many_times, "takes 2,049 MiB of memory to read, and the limit is 768"),
    (an_attribute, r"its pickle makes no sense \(UnpicklingError\)"),
    (another_word, r"its pickle makes no sense \(KeyError\)"),
    (two_pickles, "it has no member data.pkl, or several"),
    (many_members, "the list of members of .* takes 8.. MiB of memory"),
    (not_one, "File is not a zip file"),
]


def memory(name):
    """A line of what the system knows of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


@pytest.fixture
def thrifty():
    """Fails where the test took more than 0.5 GB beyond the start."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < 5e8


@pytest.mark.parametrize(("plant", "told"), CHECKPOINTS)
@pytest.mark.parametrize("force", ["", "1"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_planted_checkpoint_is_refused(plant, told, force, monkeypatch, capfd, thrifty):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    path = Path("planted.ckpt")
    plant(path)
    before = written()
    for read in (read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match=told) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert written() == before
    assert "".join(capfd.readouterr()) == ""


def test_the_limit_can_be_raised_and_lowered(monkeypatch):
    torch.save({"weight": torch.ones(2**19)}, "run.ckpt")
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "2")
    with pytest.raises(ValueError, match=r"takes 3 MiB .* limit is 2; .*METAKD_READ_LIMIT_MIB=3\."):
        read_checkpoint("run.ckpt")
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "3")
    read_checkpoint("run.ckpt")
    for wrong in ("0", "-1", "much", "1.5"):
        monkeypatch.setenv("METAKD_READ_LIMIT_MIB", wrong)
        with pytest.raises(ValueError, match=r"METAKD_READ_LIMIT_MIB='.*' must be a whole number"):
            read_checkpoint("run.ckpt")


# --- whoever loads ----------------------------------------------------------------------------------


def recipe(**settings):
    return MetaKD(SmoothConv4(0), ProtoNet(), **settings)


def fit(path, **settings):
    trainer(**settings).fit(recipe(), datamodule=Fixed([episode()]), ckpt_path=path)


WAYS = {
    "ckpt_path of a fit": fit,
    "ckpt_path of a test": lambda path: trainer().test(
        recipe(), datamodule=Fixed([episode()]), ckpt_path=path
    ),
    "init": lambda path: trainer().fit(recipe(init=str(path)), datamodule=Fixed([episode()])),
    "teacher": lambda path: Teacher(SmoothConv4(0), checkpoint=str(path)).open(),
    "embedded": lambda path: Embedded(Blobs(), SmoothConv4(0), str(path)).everything(),
}


@pytest.fixture
def server(place):
    """The address of a planted checkpoint on this machine, and who asked for it."""
    with_code(place / "x.ckpt")
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(args)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/x.ckpt", asked
        serving.shutdown()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("force", ["", "1"])
def test_no_way_to_load_opens_an_address_or_runs_code(way, force, server, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    address, asked = server
    with pytest.raises(ValueError, match="is an address, and none is opened"):
        WAYS[way](address)
    with pytest.raises(ValueError, match=r"it names '\w+\.system', which is code"):
        WAYS[way]("x.ckpt")
    assert not asked
    assert not CREATED.exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_the_command_opens_no_address(command, server, metakd):
    with pytest.raises(ValueError, match="is an address, and none is opened"):
        metakd(command, f"--ckpt_path={server[0]}")
    assert not server[1]


def test_a_trainer_is_not_talked_into_running_code():
    with_code(Path("x.ckpt"))
    with pytest.raises(ValueError, match="weights_only=false would run the code"):
        trainer().fit(
            recipe(), datamodule=Fixed([episode()]), ckpt_path="x.ckpt", weights_only=False
        )
    assert not CREATED.exists()


def test_a_plugin_that_reads_in_its_own_way_is_refused():
    with pytest.raises(
        ValueError, match=r"plugins=\[AsyncCheckpointIO\] reads checkpoints without"
    ):
        fit(None, plugins=[AsyncCheckpointIO()])


def test_a_reader_of_somebody_is_left_in_its_place():
    class Own(AtomicCheckpointIO):
        pass

    strategy = Trainer(plugins=[Own()], logger=False, accelerator="cpu").strategy
    read_safely(strategy)
    assert type(strategy.checkpoint_io) is Own


@pytest.mark.parametrize("kind", [MetaKD, Fixed])
def test_nothing_is_built_from_what_a_file_says(kind):
    with_code(Path("x.ckpt"))
    with pytest.raises(TypeError, match="build"):
        kind.load_from_checkpoint("x.ckpt")
    assert not CREATED.exists()


# --- other files ------------------------------------------------------------------------------------


def safetensors_of(path, head, size=0):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    if size:
        os.truncate(path, 8 + len(text) + size)


HUGE = {"x": {"dtype": "U8", "shape": [3 * GIB], "data_offsets": [0, 3 * GIB]}}
HEADS = [
    (b"[]", 0),
    (b"[" * 100_000, 0),
    (b'{"a":' * 100_000, 0),
    (b"{}", 0),
    (HUGE, 3 * GIB),
    (b" " * 2**23, 0),
]


@pytest.mark.parametrize(("head", "size"), HEADS)
def test_a_planted_strategy_is_refused(head, size, thrifty):
    safetensors_of(Path("strategy"), head, size)
    with pytest.raises(
        ValueError, match=r"is damaged or no strategy|the head of strategy takes"
    ) as caught:
        read_strategy(Path("strategy"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("head", "size"), HEADS[:-1])
def test_a_planted_bank_is_made_again(head, size, place, thrifty, caplog):
    source, net = Blobs(), SmoothConv4(4).eval().requires_grad_(False)
    made = Bank(net, "key", source, place)
    safetensors_of(made.folder / "view0.safetensors", head, size)
    made.fill(torch.arange(5), 0)
    assert made.has(torch.arange(5), 0)
    assert "is made again" in caplog.text


@pytest.mark.parametrize(("head", "size"), HEADS)
def test_a_planted_teacher_is_refused(head, size, thrifty):
    safetensors_of(Path("teacher.safetensors"), head, size)
    with pytest.raises(ValueError, match=r"teacher\.safetensors"):
        Teacher(SmoothConv4(0), checkpoint="teacher.safetensors").open()


def png(side):
    """A black square, a thousandth of its pixels in size; below the size of which Pillow warns by itself."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    rows = zlib.compressobj()
    line = bytes(1 + -(-side // 8))
    pixels = b"".join(rows.compress(line) for _ in range(side)) + rows.flush()
    head = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_of_too_many_pixels_is_refused(packed, draw, thrifty):
    folder = draw(png(9_000), packed)
    told = r"cannot read the image big/0\.png .*takes 1,236 MiB .*METAKD_READ_LIMIT_MIB=1236"
    with pytest.raises(ValueError, match=told):
        Folder(str(folder)).everything()


def test_a_member_that_is_too_large_is_refused(draw, thrifty, monkeypatch):
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "8")
    archive = draw(bytes(2**24), packed=True)
    with pytest.raises(ValueError, match=r"big/0\.png .*takes 16 MiB"):
        Folder(str(archive)).everything()


@pytest.fixture
def draw(place):
    """A folder, or an archive, of one class with these bytes as its pictures."""

    def write(content, packed):
        if packed:
            with zipfile.ZipFile("it.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for i in range(2):
                    archive.writestr(f"big/{i}.png", content)
            return place / "it.zip"
        (place / "it" / "big").mkdir(parents=True)
        for i in range(2):
            (place / "it" / "big" / f"{i}.png").write_bytes(content)
        return place / "it"

    return write


def test_a_planted_cache_of_images_is_made_again(thrifty):
    def plan():
        return cache.Plan([0, 1], ("a", "b"), (3, 2, 2), iter([np.zeros((2, 3, 2, 2), np.uint8)]))

    safetensors_of(cache.folder() / "key.safetensors", HUGE, 3 * GIB)
    assert cache.cached("key", plan).x.shape == (2, 3, 2, 2)
