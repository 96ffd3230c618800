"""Parameters parsed from source equal Python's own signature of the imported object."""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.utils import get_object

from latentsync.cli.command import conf_dir
from latentsync.cli.signatures import parameters_of

TARGETS = sorted(
    {
        found
        for path in conf_dir().rglob("*.yaml")
        for found in re.findall(r"_target_: ([\w.]+)", path.read_text(encoding="utf-8"))
    }
)
NAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def imported_parameters(target: str) -> list[str]:
    parameters = inspect.signature(get_object(target)).parameters.values()
    return [each.name for each in parameters if each.kind in NAMED]


@pytest.mark.parametrize("target", TARGETS)
def test_every_part_of_a_config(target: str):
    if target.startswith("latentsync.training.lora"):
        pytest.importorskip("peft")
    if target.startswith("latentsync.prepare.ray_executor"):
        pytest.importorskip("ray")
    assert parameters_of(target) == imported_parameters(target)


class Above:
    def __init__(self, first: int, *, second: int = 0) -> None: ...

    @staticmethod
    def static(third: int) -> None: ...

    @classmethod
    def made(cls, fourth: int) -> None: ...


class Below(Above):
    pass


@dataclass
class Record:
    one: int
    two: str = ""


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Below", ["first", "second"]),
        ("Below.static", ["third"]),
        ("Below.made", ["fourth"]),
        ("Record", ["one", "two"]),
        ("Path", []),
        ("nothing", []),
    ],
)
def test_classes_of_every_kind(name: str, parameters: list[str], monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    assert parameters_of(f"test_signatures.{name}") == parameters


@pytest.mark.parametrize(
    "target", ["nowhere.at_all", "latentsync", "math.sin", "latentsync.nothing"]
)
def test_what_has_no_text_to_read(target: str):
    assert parameters_of(target) == []
