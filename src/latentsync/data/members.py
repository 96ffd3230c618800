"""Tensors and headers of safetensors files, also of those inside an archive, memory-mapped."""

import json
import mmap
from functools import lru_cache
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from latentsync.files import FilePart

File = Path | FilePart

# A mapped archive that is deleted frees its space only when no process maps it any more.
MAX_MAPPED_ARCHIVES = 64
LENGTH_BYTES = 8  # of the header, at the beginning of the file
METADATA = "__metadata__"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def map_tensors(file: File) -> dict[str, Tensor]:
    """The tensors of a file, read from disk on access."""
    if isinstance(file, FilePart):
        return _tensors_of(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: prepare this data set again")
    with safe_open(file, framework="pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def header_of(file: File) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Metadata and the tensors' shapes."""
    if isinstance(file, FilePart):
        metadata, header, _ = _header_of(file)
        return metadata, {name: each["shape"] for name, each in header.items()}
    with safe_open(file, framework="np") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        return dict(tensors.metadata() or {}), shapes


def _tensors_of(part: FilePart) -> dict[str, Tensor]:
    _, header, start = _header_of(part)
    data = mapped(part.path)
    tensors = {}
    for name, each in header.items():
        begin, end = each["data_offsets"]
        if start + end > part.offset + part.size:
            raise ValueError(f"{part} is cut off in {name}")
        count, dtype = prod(each["shape"]), DTYPES[each["dtype"]]
        flat = (
            torch.frombuffer(data, dtype=dtype, count=count, offset=start + begin)
            if count
            else torch.empty(0, dtype=dtype)
        )
        tensors[name] = flat.reshape(each["shape"])
    return tensors


def _header_of(part: FilePart) -> tuple[dict[str, str], dict[str, dict], int]:
    """Metadata, what is said of each tensor, and where in the archive the tensors begin."""
    data, begin = mapped(part.path), part.offset + LENGTH_BYTES
    length = int.from_bytes(data[part.offset : begin], "little")
    if begin + length > part.offset + part.size:
        raise ValueError(f"{part} is no safetensors file")
    header = json.loads(data[begin : begin + length])
    return header.pop(METADATA, {}), header, begin + length


def bytes_of(part: FilePart) -> memoryview:
    """The bytes of a part, read from disk on access; OSError if the archive ends before it does."""
    data = mapped(part.path)
    if part.offset + part.size > len(data):
        raise OSError(f"{part} is cut off")
    return memoryview(data)[part.offset : part.offset + part.size]


@lru_cache(maxsize=MAX_MAPPED_ARCHIVES)
def mapped(path: Path) -> mmap.mmap:
    """The bytes of a file; what is written to them stays in this process."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
