"""Read files of torch.save as data: no code in them runs, and their cost is limited by their size.

Memory and time are bounded by a small multiple of the file's size before anything is allocated:
`torch.load`, even with `weights_only`, allocates tensors of any size that a file claims.

Source: docs.python.org/3/library/pickletools.html;
docs.pytorch.org/docs/stable/notes/serialization.html. Differs: opcodes, names and sharing that
checkpoints of models do not need are refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rave.runs.model_size import most_bytes

ZIP_START = b"PK\x03\x04"  # torch checks these bytes, too
MAGIC, OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001  # of files of torch before 1.6
MAX_VALUES = 2**20  # v3 with its optimizers has a tenth as many
MAX_DEPTH = 64
MAX_SHARING = 8  # tied weights, and averages equal to the weights, are stored once
MAX_KEY = 2**31
MAX_DIMENSIONS, MAX_ARGUMENTS = 64, 8
DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in (
        *(("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16)),
        *(("BFloat16", torch.bfloat16), ("Long", torch.int64), ("Int", torch.int32)),
        *(("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8)),
        *(("Bool", torch.bool), ("ComplexFloat", torch.complex64)),
        ("ComplexDouble", torch.complex128),
    )
}
REFUSED = "it is damaged, or holds more than tensors and plain data"


def read_file(path: Path) -> Any:
    """Return the content of a file of torch.save; tensors on the CPU, parameters as tensors.

    Raises:
        ValueError: If it is damaged, holds more than tensors and plain data, or claims more data
            than it holds.
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    if size > most_bytes():
        raise ValueError("it is larger than half of this machine's memory")
    storages = _Storages(size)
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_START)) == ZIP_START
            file.seek(0)
            content = (_read_zip if is_zip else _read_old)(file, storages)
        _check_extent(content, MAX_SHARING * size)
    except (ValueError, OSError):
        raise
    except Exception as error:  # of any type, from a damaged archive or pickle
        raise ValueError(REFUSED) from error
    return content


class _Storages:
    """Storages of a file's tensors: flat tensors, together not larger than the file."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self.found: dict[str, Tensor] = {}

    def named(
        self, kind: str, dtype: Any, key: str, place: str, count: int, view: None = None
    ) -> Tensor:
        """Return the storage that a pickle names, not yet filled."""
        is_known = kind == "storage" and isinstance(dtype, torch.dtype) and type(count) is int
        if not is_known or type(key) is not str or view is not None or count < 0:
            raise ValueError(REFUSED)
        if key not in self.found:
            self._left -= count * dtype.itemsize
            if self._left < 0:
                raise ValueError("it claims more values than it holds")
            self.found[key] = torch.empty(count, dtype=dtype)
        storage = self.found[key]
        if (storage.dtype, len(storage)) != (dtype, count):
            raise ValueError(REFUSED)
        return storage

    def fill(self, key: str, file: Any) -> None:
        """Read the values of a storage."""
        content: Any = self.found[key].view(torch.uint8).numpy()
        if file.readinto(content) != len(content):
            raise ValueError("it is cut off")


def _read_zip(file: BinaryIO, storages: _Storages) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if is_packed or sum(e.file_size for e in entries) > file.seek(0, 2):
            raise ValueError("it is compressed")
        names = [e.filename for e in entries if e.filename.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(REFUSED)
        root = names[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its values are big-endian")
        content = _unpickled(io.BytesIO(archive.read(names[0])), storages)
        for key in storages.found:
            with archive.open(f"{root}data/{key}") as record:
                storages.fill(key, record)
    return content


def _read_old(file: BinaryIO, storages: _Storages) -> Any:
    if (_unpickled(file, storages), _unpickled(file, storages)) != (MAGIC, OLD_VERSION):
        raise ValueError(REFUSED)
    _, content, keys = (_unpickled(file, storages) for _ in range(3))
    if sorted(keys) != sorted(storages.found):
        raise ValueError(REFUSED)
    for key in keys:
        if int.from_bytes(file.read(8), "little") != len(storages.found[key]):
            raise ValueError(REFUSED)
        storages.fill(key, file)
    return content


def _unpickled(file: Any, storages: _Storages) -> Any:
    """Return the content of the next pickle of a file."""
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number == MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values")
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list}.get(opcode.name, dict)())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS":
                items, stack = stack, marked.pop()
                _gather(opcode.name, items, stack)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "SETITEM":
                count = 1 if opcode.name == "APPEND" else 2
                items = stack[-count:]
                del stack[-count:]
                _gather(f"{opcode.name}S", items, stack)
            case "GLOBAL":
                stack.append(NAMED[argument])
            case "BINPERSID":
                stack.append(storages.named(*stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if len(arguments) > MAX_ARGUMENTS:
                    raise ValueError(REFUSED)
                stack.append(function(*arguments))
            case "BUILD":
                state = stack.pop()
                if type(stack[-1]) is not OrderedDict or [*state] != ["_metadata"]:
                    raise ValueError(REFUSED)
                setattr(stack[-1], "_metadata", state["_metadata"])  # noqa: B010 - as torch does
            case _:
                raise ValueError(REFUSED)
    raise AssertionError("genops raises where there is no STOP")


def _gather(opcode: str, items: list[Any], stack: list[Any]) -> None:
    """Add the items of an opcode to its container."""
    if opcode == "TUPLE":
        stack.append(tuple(items))
    elif opcode == "APPENDS" and type(stack[-1]) is list:
        stack[-1].extend(items)
    elif opcode == "SETITEMS" and type(stack[-1]) in (dict, OrderedDict):
        stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))
    else:
        raise ValueError(REFUSED)


def _key(value: Any) -> Any:
    """Return a valid key; hashing a tuple of shared tuples could take for ever."""
    if type(value) is str or (type(value) is int and abs(value) < MAX_KEY):
        return value
    raise ValueError(REFUSED)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if len(size) > MAX_DIMENSIONS or math.prod(size) > storage.numel():
        raise ValueError("a tensor in it claims more values than are stored")
    return torch.as_strided(storage, size, stride, offset)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


NAMED: dict[str, Any] = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "collections OrderedDict": _ordered_dict,
    **DTYPES,
}


def _check_extent(content: Any, max_bytes: int) -> None:
    """Refuse content that unfolds to far more than the file holds, by repeated references."""
    left, num_values = [(content, 0)], 1
    while left:
        value, depth = left.pop()
        within: list[Any] = []
        if isinstance(value, Tensor):
            max_bytes -= value.nbytes
        elif isinstance(value, (str, bytes)):
            max_bytes -= len(value)
        elif isinstance(value, dict):
            within = [*value, *value.values(), *getattr(value, "__dict__", {}).values()]
        elif isinstance(value, (list, tuple, set)):
            within = list(value)
        num_values += len(within)
        if num_values > MAX_VALUES or depth > MAX_DEPTH or max_bytes < 0:
            raise ValueError("its repeated and nested parts add up to far more than it holds")
        left += [(part, depth + 1) for part in within]
