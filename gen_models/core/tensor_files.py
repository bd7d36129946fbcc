"""Files of tensors that somebody else may have made.

What a file declares is compared with the tensors that are expected of it before any is read. So it
takes no more memory than those tensors, and nothing in it runs.

A safetensors file is a header in JSON and the tensors' bytes. A file of `torch.save` is a zip
archive: a pickle that says how the values are nested, and a member for each tensor's bytes.
"""

from __future__ import annotations

import pickletools  # nosec B403  # it reads instructions, and runs none
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from gen_models.core.errors import InputError, shown

_BYTES_A_VALUE = 8
"""Of the widest type, float64."""
_BYTES_A_TENSOR = 2048
"""For its name, shape, place and padding."""
_BYTES_BESIDE = 1 << 16
"""For what a file holds beside its tensors."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_EXACT = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
_DTYPES = {dtype: _FLOATS for dtype in (torch.float64, torch.float32, torch.float16)} | {
    torch.bfloat16: _FLOATS,
    **{dtype: {name} for dtype, name in _EXACT.items()},
}
"""The types that a file may have for a tensor that is expected in a type."""
_ZIP_START = b"PK\x03\x04"
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long")),
}
"""What the pickle of a file of tensors names."""
_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINUNICODE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"),
}
"""The instructions of such a pickle; none of them calls anything but `_GLOBALS`."""

Expected = Mapping[str, Tensor]
"""Tensors by name, on any device, such as `meta`: their shapes and types count."""


def read_tensors(path: Path, expected: Expected, device: torch.device | str) -> dict[str, Tensor]:
    """Read a safetensors file that holds just the `expected` tensors.

    A floating-point tensor may have another precision than the one expected. Raises `InputError`
    if the file is damaged, holds other tensors, or values that are not finite.
    """
    _require_size(path, expected.values())
    with _open(path) as file:
        _require_names(path, set(file.keys()), set(expected))
        for name, tensor in expected.items():
            declared = file.get_slice(name)
            shape, dtype = tuple(declared.get_shape()), str(declared.get_dtype())
            if shape != tuple(tensor.shape) or dtype not in _DTYPES[tensor.dtype]:
                raise InputError(
                    f"{path}: {name} of shape {shown(shape)} and type {dtype}: expected "
                    f"{tuple(tensor.shape)} and {tensor.dtype}"
                )
    try:
        tensors: dict[str, Tensor] = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} has values that are not finite: expected numbers")
    return tensors


def read_nested(path: Path, expected: Any) -> Any:
    """Read what `torch.save` wrote of nested mappings and lists of tensors, on the CPU.

    `expected`: the same nesting, with tensors of the expected shapes. The returned tensors may be
    parts of the file. Raises `InputError` if the file is damaged or of another nesting, holds
    other tensors or NaN.
    """
    _require_size(path, _leaves(expected))
    _require_plain(path)
    try:
        # mmap: each tensor is a part of the file, and cannot be declared larger than it is.
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # a damaged pickle raises whatever its instructions do
        raise InputError(f"{path}: damaged ({shown(str(error))})") from error
    _require_like(str(path), content, expected)
    return content


def _require_size(path: Path, tensors: Iterable[Tensor]) -> None:
    """Check that the file is no larger than the tensors explain."""
    if not path.is_file():
        raise InputError(f"{path}: expected a file of tensors")
    bounds = [_BYTES_A_TENSOR + _BYTES_A_VALUE * tensor.numel() for tensor in tensors]
    size, bound = path.stat().st_size, _BYTES_BESIDE + sum(bounds)
    if size > bound:
        raise InputError(
            f"{path}: {size} bytes: expected at most {bound} for {len(bounds)} tensors"
        )


# -- safetensors --------------------------------------------------------------------------------
def _open(path: Path) -> Any:
    """Open a safetensors file, which reads and checks its header."""
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: damaged ({shown(str(error))})") from error


def _require_names(path: Path, found: set[str], expected: set[str]) -> None:
    for names, what in ((expected - found, "lacks"), (found - expected, "has the unknown")):
        if names:
            first = shown(min(names))
            raise InputError(
                f"{path}: {what} tensor {first}: expected the {len(expected)} tensors"
            )


# -- torch.save ---------------------------------------------------------------------------------
def _require_plain(path: Path) -> None:
    """Check that a file of `torch.save` is an archive of uncompressed members, each of a name of
    its own, and that its pickle consists of tensors in mappings and lists."""
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_START)) == _ZIP_START
        if not is_zip:  # torch would read it as its older format, which is a pickle as a whole
            raise InputError(f"{path}: damaged: expected a zip archive")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
            is_packed = any(m.compress_type or m.file_size != m.compress_size for m in members)
            if is_packed or len(set(names)) < len(names) or len(pickles) != 1:
                raise InputError(f"{path}: damaged: expected an archive as torch.save writes it")
            reason = _unsafe(archive.read(pickles[0]))
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises whatever zipfile and pickletools do
        raise InputError(f"{path}: damaged ({shown(str(error))})") from error
    if reason:
        raise InputError(f"{path}: its pickle {reason}: expected tensors in mappings and lists")


def _unsafe(content: bytes) -> str:
    """Return what a pickle has that those of tensors do not; "" if there is nothing."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            return f"has the instruction {opcode.name}"
        if opcode.name == "GLOBAL" and argument not in _GLOBALS:
            return f"names {shown(argument)}"
    return ""


def _leaves(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    else:
        for each in nested.values() if isinstance(nested, Mapping) else nested:
            yield from _leaves(each)


def _require_like(where: str, found: Any, expected: Any) -> None:
    """Raise `InputError` unless two nestings are alike down to the shapes of their tensors."""
    if isinstance(expected, Tensor):
        is_tensor = type(found) is Tensor and found.is_floating_point()
        if not is_tensor or found.shape != expected.shape or bool(found.isnan().any()):
            shape = tuple(expected.shape)
            raise InputError(f"{where}: expected a tensor of shape {shape}, without NaN")
    elif isinstance(expected, Mapping):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            raise InputError(f"{where}: expected a mapping with {sorted(expected)}")
        for name, each in expected.items():
            _require_like(f"{where}: {name}", found[name], each)
    else:
        assert isinstance(expected, Sequence)
        if not isinstance(found, list) or len(found) != len(expected):
            raise InputError(f"{where}: expected a list of {len(expected)} tensors")
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            _require_like(f"{where}[{index}]", one, other)
