"""Files that somebody plants: what they hold, and how each is answered."""

import json
import os
import pickle
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import torch

GIB = 2**30
CREATED = Path("ran")
"""What the planted code would write, in the working directory."""


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {CREATED}",)


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


def many_zeros(gibibytes):
    """A deflated stream of zeros: a piece of it, many times over."""
    deflate = zlib.compressobj(wbits=-15)
    piece = deflate.compress(bytes(2**25)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return 32 * gibibytes * piece + deflate.flush()


def compressed_zeros(path):
    """Three GiB of zeros in 3 MB."""
    zip_of(path, {"data/0": many_zeros(3)})
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


def archive_that_lies(path, method):
    """Pictures that say to be small, and unpack to a GiB of zeros."""
    content = many_zeros(1)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(2):
            archive.writestr(f"big/{i}.png", content)
    planted = bytearray(path.read_bytes())
    for mark, at, sizes in ((b"PK\1\2", 10, 20), (b"PK\3\4", 8, 18)):
        for actual in re.finditer(re.escape(mark), bytes(planted)):
            struct.pack_into("<H", planted, actual.start() + at, method)
            struct.pack_into("<II", planted, actual.start() + sizes, len(content), 1000)
    path.write_bytes(planted)


def archive_of_ways_out(path, content):
    """Members that would be written outside of where an archive is unpacked, and a link to elsewhere."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(2):
            archive.writestr(f"../../out/{i}.png", content)
            link = zipfile.ZipInfo(f"link/{i}.png")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "../../../etc/passwd")


def written():
    """All files below the working directory, and whether its parent has new ones."""
    return sorted(str(path) for path in Path("..").rglob("*"))
