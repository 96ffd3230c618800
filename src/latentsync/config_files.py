"""JSON files of model folders from untrusted sources: read as plain, checked values.

Also checks that tensors match them. Every mistake in a file becomes one ValueError of one line,
with the file and the value.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor

Given = TypeVar("Given")
Made = TypeVar("Made")

MAX_BYTES = 1_000_000
MAX_INTEGER = 1_000_000
MAX_ITEMS = 1000
# Numbers of layers, which are built before a tensor's shape could show that they are wrong.
MAX_COUNT = 200
COUNTS = ("layers_per_block", "encoder_layers", "decoder_layers", "transformer_layers_per_block")
# What constructors of libraries raise for invalid values.
MISUSES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def read_json(path: Path, *, unchecked: tuple[str, ...] = ()) -> dict[str, object]:
    """The object in a config file, with bounded values; names in `unchecked` are not checked."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes: a config file has {MAX_BYTES:,} at most"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds {shown(content)} where an object of names and values should be"
        )
    for name, value in content.items():
        if name not in unchecked:
            for inner, part in leaves(name, value):
                check_value(inner, part, path)
    return content


def made(make: Callable[[Given], Made], values: Given, path: Path, *, what: str) -> Made:
    """`make(values)`; any error about the values becomes one ValueError about the file."""
    try:
        return make(values)
    except MISUSES as error:
        raise ValueError(f"{path} describes no {what}: {one_line(error)}") from error


def check_types(values: Mapping[str, object], like: Mapping[str, object], path: Path | str) -> None:
    """ValueError for a value of another type than its default; names without one are ignored."""
    for name, value in values.items():
        default = like.get(name)
        if default is None or value is None or name.startswith("_"):
            continue
        if not fits(value, default):
            raise ValueError(f"{path}: {name} is {shown(value)}, such as {default!r} was expected")


def fits(value: object, default: object) -> bool:
    """Whether a value from a file has the kind of a default."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default)) or not isinstance(default, int | str)


def defaults_of(make: Callable[..., object]) -> dict[str, object]:
    """The default values of a function's parameters."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """The value and every value inside it, with their dotted names."""
    yield name, value
    inner = value.items() if isinstance(value, dict) else ()
    for key, part in inner:
        yield from leaves(f"{name}.{key}", part)
    if isinstance(value, list):
        for part in value:
            yield from leaves(name, part)


def check_value(name: str, value: object, path: Path) -> None:
    """ValueError for excessive numbers and lists, and for NaN."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{path}: {name} is {value}, which is no number")
    most = MAX_COUNT if name.rsplit(".", 1)[-1] in COUNTS else MAX_INTEGER
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"{path}: {name} is {shown(value)}, more than {most:,}")
    if isinstance(value, list | dict) and len(value) > MAX_ITEMS:
        raise ValueError(f"{path}: {name} has {len(value):,} entries, more than {MAX_ITEMS:,}")


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(error: BaseException) -> str:
    """An error's message in one short line."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    message = text if isinstance(error, ValueError) and text else f"{kind} {text}".strip()
    return message if len(message) <= 300 else f"{message[:297]}..."


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line per tensor that does not match: its name, its shape in the file and ours."""
    shapes = [{key: tuple(value.shape) for key, value in state.items()} for state in (own, given)]
    here, there = shapes
    return [
        f"{key}: {there.get(key, 'nothing')} in the file, {here.get(key, 'nothing')} here"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]


def some(lines: list[str]) -> str:
    """The first five of many, for a message."""
    return "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
