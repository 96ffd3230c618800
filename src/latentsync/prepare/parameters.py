"""The parameters recorded with a data set: the fields of its stages, as plain values."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from pathlib import Path

from latentsync.prepare.stage import Stage

# Names in records of earlier versions => stage fields that have the value now.
EARLIER: Mapping[str, tuple[str, ...]] = {
    "detector": ("align.make_detector",),
    "audio_encoder": ("write.make_audio_encoder",),
    "aligner": ("align.aligner",),
    "resolution": ("align.resolution", "write.resolution"),
    "fps": ("resample.fps", "segment.fps", "align.fps", "write.fps"),
    "min_seconds": ("probe.min_seconds", "segment.min_seconds", "align.min_seconds"),
    "max_seconds": ("align.max_seconds",),
    "crf": ("write.crf",),
}
# Fields of earlier stages => those of today. Of stretches all are kept now: what only kept the
# longest is another way of preparing.
RENAMED: Mapping[str, str] = {"segment.max_seconds": "align.max_seconds"}
STRETCHES, ALL = "align.stretches", "all"
EARLIER_STAGES = ["probe", "resample", "segment", "align", "write"]


def parameters(stages: Sequence[Stage]) -> dict[str, object]:
    """Everything that determines a data set: the stages in order, and their fields."""
    return {"stages": [stage.name for stage in stages]} | {
        name: describe(name, value) for name, _, value in _fields(stages)
    }


def of_today(recorded: Mapping, stages: Sequence[Stage]) -> dict:
    """Parameters recorded by any version, in the form of `parameters`.

    A part recorded by the path of its class matches wherever the class is now, and fields added
    since are assumed to have had their default.
    """
    if "stages" in recorded:
        upgraded = dict(recorded)
    else:
        upgraded = {name: value for name, value in recorded.items() if name not in EARLIER}
        upgraded["stages"] = EARLIER_STAGES
        for earlier, names in EARLIER.items():
            upgraded |= {name: recorded[earlier] for name in names if earlier in recorded}
    for earlier, name in RENAMED.items():
        if earlier in upgraded:
            upgraded[name] = upgraded.pop(earlier)
    if upgraded.get(STRETCHES) == ALL:
        del upgraded[STRETCHES]
    for name, field, value in _fields(stages):
        if name not in upgraded:
            same = _default(field) == value
        else:
            same = _is_maker(value) and is_same_part(upgraded[name], value)
        if same:
            upgraded[name] = describe(name, value)
    return upgraded


def describe(name: str, value: object) -> object:
    """The field of this name as a plain value; of a factory, its name and all its arguments."""
    if _is_maker(value):
        make, given = _call_of(value)
        return {"part": name_of(make), **_arguments(make, given.args, given.keywords)}
    try:
        return json.loads(json.dumps(value, default=_path))
    except TypeError as error:
        raise ValueError(
            f"{name} is a {type(value).__name__}, which no record can hold: a stage's fields are "
            "plain values, and classes, functions or partials that make what it works with"
        ) from error


def name_of(make: Callable) -> str:
    """The `name` of a class, or the class or function name, independent of its module."""
    kind = _class_of(make)
    if kind is None:
        return make.__name__
    name = getattr(kind, "name", None)
    return name if isinstance(name, str) else kind.__name__


def is_same_part(before: object, value: object) -> bool:
    """Whether a recorded part is the one that `value` makes."""
    if not isinstance(before, Mapping):
        return False
    make, given = _call_of(value)
    now = _arguments(make, given.args, given.keywords)
    rest = {name: each for name, each in before.items() if name not in NOT_ARGUMENTS}
    if "part" in before:
        called = before["part"] == name_of(make)
    else:
        # module.Class, module.Class.load, module.function
        kind = _class_of(make)
        called = (make if kind is None else kind).__name__ in str(before["made_by"]).split(".")
    try:
        then = _arguments(make, before.get("arguments", ()), rest)
    except TypeError:  # not a current argument
        return False
    return called and _plain(then) == _plain(now)


NOT_ARGUMENTS = ("part", "made_by", "arguments")


def _fields(stages: Iterable[Stage]) -> Iterable[tuple[str, Field, object]]:
    for stage in stages:
        for field in fields(stage):  # type: ignore[arg-type]  # check_stages ensures it
            if field.init:
                yield f"{stage.name}.{field.name}", field, getattr(stage, field.name)


def _default(field: Field) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_maker(value: object) -> bool:
    return isinstance(value, partial | type) or inspect.isroutine(value)


def _call_of(value: object) -> tuple[Callable, partial]:
    assert callable(value)
    made = value if isinstance(value, partial) else partial(value)
    return made.func, made


def _class_of(make: Callable) -> type | None:
    """The class that is made; None for a function."""
    owner = make if isinstance(make, type) else getattr(make, "__self__", None)
    return owner if isinstance(owner, type) else None


def _arguments(make: Callable, args: Sequence, keywords: Mapping) -> dict[str, object]:
    bound = inspect.signature(make).bind_partial(*args, **keywords)
    bound.apply_defaults()
    return dict(bound.arguments)


def _path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value))


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=str))
