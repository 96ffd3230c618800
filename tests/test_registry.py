"""Names of parts and their classes: built-in, registered, and from entry points."""

import sys
from pathlib import Path

import pytest

from latentsync.registry import Registry

MODULE = """
class Good:
    name = "good"

class Misnamed:
    name = "other"
"""
ENTRIES = """
[tests.parts]
good = fake_parts:Good
misnamed = fake_parts:Misnamed
gone = fake_parts:Gone
nowhere = no_such_module:Part
twice = fake_parts:Good
"""


class Own:
    name = "own"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    (tmp_path / "fake_parts.py").write_text(MODULE)
    for name, entries in {
        "first": ENTRIES,
        "second": "[tests.parts]\ntwice = elsewhere:Part\n",
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fake_parts", raising=False)
    return Registry("part", "tests.parts", [Own])


def test_a_part_of_an_installed_package_is_found_by_its_name(registry: Registry) -> None:
    kind = registry.find("good")
    assert kind.__module__ == "fake_parts"
    assert registry.find("good") is kind
    assert registry.check(kind()) == "good"
    assert registry.find("own") is Own


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fake_parts:Good", 'called "fake_parts:Good"; there are own, '),
        (["own"], "no part is called"),
        (None, "no part is called null"),
        ("misnamed", "calls itself 'other'"),
        ("gone", "cannot be imported from fake_parts:Gone"),
        ("nowhere", "cannot be imported from no_such_module:Part"),
        ("twice", "several packages bring the part 'twice'"),
    ],
)
def test_any_other_name_is_refused(registry: Registry, name: object, said: str) -> None:
    with pytest.raises(ValueError, match="part") as raised:
        registry.find(name, where="folder: ")
    assert said in str(raised.value)
