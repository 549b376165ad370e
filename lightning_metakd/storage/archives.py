"""Archives of tensors as `torch.save` writes them, read without `torch.load`.

A pickle is a program. With `weights_only` PyTorch lets it call some forty functions, and a file of a few
bytes takes any memory that it wants (`bytearray(2**31)`, ten thousand copies of one set, a tensor larger than
its storage). Here it calls the few functions of `Reader`, and each of them counts what it takes.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_metakd.storage.atomic_files import DamagedFileError
from lightning_metakd.storage.limits import TooLargeError, check_size, open_zip
from lightning_metakd.storage.tensor_file import PER_BYTE, PIECE

STORAGES = {
    **{"DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8},
    **{"BoolStorage": torch.bool, "UntypedStorage": torch.uint8},
    **{"ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128},
}
WORDS = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BINPERSID),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.NONE),
    *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.EMPTY_LIST, pickle.APPEND),
    *(pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS, pickle.EMPTY_TUPLE),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
)
"""All of a pickle's language that is understood, beside BUILD."""


def read_archive(path: Path) -> Any:
    """What somebody gave to `torch.save`, on the CPU.

    Raises:
        DamagedFileError: if it holds code or nonsense, or is damaged.
        ValueError: if it is too large.
    """
    try:
        with open_zip(path) as archive:
            check_members(archive, path)
            return Reader(archive, path).load()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DamagedFileError(f"{error or 'it ends too early'}"[:120]) from error


def check_readable(content: Any) -> None:
    """Compare what is to be saved with what is read back.

    Raises:
        DamagedFileError: if it would not be.
        ValueError: if it is too large.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DamagedFileError(f"{error}"[:120]) from error
    with zipfile.ZipFile(buffer) as archive:
        Reader(archive, Path("in memory")).load()


def check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Compare the sizes of the members with the limit, then the members with their checksums.

    Raises:
        DamagedFileError: if it is no archive as `torch.save` writes it, or is damaged.
        ValueError: if it is too large.
    """
    members = archive.infolist()
    pickles = sum(m.file_size for m in members if m.filename.endswith(".pkl"))
    size = sum(m.file_size for m in members) + PER_BYTE * pickles
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise DamagedFileError("it is a TorchScript program")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise DamagedFileError(f"its member {member.filename!r} is compressed")
        if member.flag_bits & 1:
            raise DamagedFileError(f"its member {member.filename!r} is encrypted")
    check_size(size, f"checkpoint={str(path)!r}")
    for member in members:
        with archive.open(member) as content:
            while content.read(PIECE):  # compares the checksum at the end
                pass


class Reader(pickle._Unpickler):
    """Builds tensors, dictionaries and plain values; a name that is none of theirs is refused.

    Args:
        archive: whose members are checked.
        path: the file, for messages.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        word[0]: pickle._Unpickler.dispatch[word[0]] for word in WORDS
    }

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DamagedFileError("it has no member data.pkl, or several")
        self.root = pickles[0].removesuffix("data.pkl")
        for name in names:
            if not name.startswith(self.root) or ".." in name.split("/"):
                raise DamagedFileError(f"its member {name[:80]!r} lies outside of {self.root!r}")
        self.archive, self.path = archive, path
        order = (
            self.content("byteorder").numpy().tobytes() if self.root + "byteorder" in names else b""
        )
        if order.decode("ascii", "replace") not in {"", sys.byteorder}:
            raise DamagedFileError(f"its order of bytes is not {sys.byteorder}")
        text = archive.read(pickles[0])
        self.size = PER_BYTE * len(text)
        self.storages: dict[str, Tensor] = {}
        self.callables: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): empty,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self.retyped,
            ("torch._utils", "_rebuild_parameter"): parameter,
            ("torch", "device"): torch.device,
            ("torch", "Size"): lambda sizes: torch.Size(self.counted(sizes)),
            ("__builtin__", "set"): lambda items: set(self.counted(items)),
            ("_codecs", "encode"): lambda text, _: self.counted(text).encode("latin1"),
        }
        super().__init__(io.BytesIO(text))

    def load(self) -> Any:
        """The contents.

        Raises:
            DamagedFileError: if they name code, or make no sense.
            ValueError: if they are too large.
        """
        try:
            return super().load()
        except (DamagedFileError, TooLargeError, zipfile.BadZipFile):
            raise
        except Exception as error:  # a pickle can go wrong in every way
            raise DamagedFileError(f"its pickle makes no sense ({type(error).__name__})") from error

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; nothing is imported.

        Raises:
            DamagedFileError: for every name that is not here.
        """
        if (module, name) in self.callables:
            return self.callables[module, name]
        if module in {"torch", "torch.storage"}:
            dtype = STORAGES.get(name) or vars(torch).get(name)
            if isinstance(dtype, torch.dtype):
                return dtype
        raise DamagedFileError(f"it names '{module}.{name}'"[:80] + ", which is code")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a flat tensor."""
        word, dtype, key, _, size = pid
        if word != "storage" or not isinstance(key, str):
            raise pickle.UnpicklingError("no storage")
        if key not in self.storages:
            self.storages[key] = self.content(f"data/{key}")
        return self.storages[key].view(dtype)[:size]

    def content(self, name: str) -> Tensor:
        """The bytes of a member, in memory once."""
        about = self.archive.getinfo(self.root + name)
        content = torch.empty(about.file_size, dtype=torch.uint8)
        view, at = content.numpy(), 0
        with self.archive.open(about) as file:
            while piece := file.read(PIECE):
                view[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
        if at != about.file_size:
            raise DamagedFileError(f"its member {about.filename!r} ends too early")
        return content

    def tensor(
        self,
        storage: Tensor,
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        requires_grad: bool = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Tensor:
        """A part of a storage; one that exceeds it is an error of PyTorch's."""
        if metadata:
            raise pickle.UnpicklingError("a tensor that is to be negated or conjugated")
        part = storage.as_strided(size, stride, offset)
        self.count(part.numel() * part.itemsize)
        return part

    def retyped(
        self,
        storage: Tensor,
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        requires_grad: bool,
        hooks: Any,
        dtype: torch.dtype,
        metadata: Any = None,
    ) -> Tensor:
        """As `tensor`, of a type for which there is no storage."""
        return self.tensor(storage.view(dtype), offset, size, stride, metadata=metadata)

    def counted(self, items: Any) -> Any:
        """What is copied, which a pickle can have done ten thousand times over."""
        self.count(PER_BYTE * len(items))
        return items

    def count(self, size: int) -> None:
        """Add to what the contents take.

        Raises:
            ValueError: if it is too much.
        """
        self.size += size
        check_size(self.size, f"checkpoint={str(self.path)!r}")

    def load_build(self) -> None:
        """Give a state dict the versions of its modules, the only state that anything here has."""
        state: Any = self.stack.pop()  # type: ignore[attr-defined]
        built: Any = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(built, OrderedDict) or state.keys() != {"_metadata"}:
            raise pickle.UnpicklingError("a state of something else than a state dict")
        built._metadata = state["_metadata"]  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


def empty() -> OrderedDict[Any, Any]:
    """What a state dict begins as."""
    return OrderedDict()


def parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    """The tensor of a parameter."""
    return data
