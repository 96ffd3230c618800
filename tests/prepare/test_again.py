"""Other parameters make again what depends on them, and nothing else."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from coded import make_detector
from latentsync.data import read_manifest
from latentsync.models import MelAudioEncoder
from latentsync.prepare import (
    AlignedSegment,
    LocalExecutor,
    MeasureSound,
    Recipe,
    SerialExecutor,
    Stage,
    adopt,
    filter_clips,
    prepare_clips,
)
from latentsync.prepare.again import Outdated, outdated_by
from latentsync.prepare.parameters import parameters
from latentsync.prepare.record import differences

SYNCNET = Path(__file__).parents[2] / "experiments" / "demo" / "model" / "syncnet"


class CountedStates(MelAudioEncoder):
    """Audio states that are all one number."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value
        self.states_name = f"counted-{value:g}"

    def __call__(self, waveform: torch.Tensor, *, overlap: bool = True) -> torch.Tensor:
        return torch.full_like(super().__call__(waveform), self.value)


@dataclass(kw_only=True)
class Counts:
    """Notes the name of every segment that it sees in a file."""

    name: ClassVar[str] = "counts"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment

    seen: str

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        with Path(self.seen).open("a") as file:
            file.write(f"{aligned.source.name}\n")
        yield aligned


@dataclass
class Set:
    """A prepared set whose recordings are counted."""

    raw: Path
    folder: Path
    stages: Callable[[Recipe], list[Stage]]
    seen: Path

    def prepare(self, recipe: Recipe, executor: object = None) -> list[str]:
        """Names of the recordings that were prepared from the beginning."""
        before = len(self._lines())
        prepare_clips(self.raw, self.folder, stages=self.stages(recipe), executor=executor)
        return sorted(self._lines()[before:])

    def _lines(self) -> list[str]:
        return self.seen.read_text().splitlines() if self.seen.exists() else []

    def rows(self) -> list[dict]:
        lines = (self.folder / "manifest.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def times(self, kind: str) -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted((self.folder / kind).glob("*.*"))]


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    return replace(recipe, make_audio_encoder=CountedStates)


@pytest.fixture
def prepared(raw_dir: Path, recipe: Recipe, tmp_path: Path) -> Set:
    seen = tmp_path / "seen.txt"

    def stages(recipe: Recipe) -> list[Stage]:
        *before, last = recipe.stages()
        return [*before, Counts(seen=str(seen)), last]

    made = Set(raw_dir, tmp_path / "set", stages, seen)
    assert len(made.prepare(recipe)) == 4
    return made


def without(recipe: Recipe, *names: str) -> Recipe:
    """A recipe without some stages."""

    class Fewer(type(recipe)):
        def stages(self) -> list[Stage]:
            return [stage for stage in super().stages() if stage.name not in names]

    return Fewer(**{name: getattr(recipe, name) for name in recipe.__dataclass_fields__})


def test_another_measure_is_taken_of_the_stored_clips(prepared: Set, recipe: Recipe) -> None:
    times, features, rows = prepared.times("clips"), prepared.times("features"), prepared.rows()
    assert prepared.prepare(without(recipe, "sound")) == []
    assert [row.keys() for row in prepared.rows()] == [
        row.keys() - set(MeasureSound.columns) for row in rows
    ]
    assert prepared.prepare(recipe) == []
    assert prepared.prepare(recipe) == []
    assert prepared.times("clips") == times
    assert prepared.times("features") == features
    again = prepared.rows()
    assert [row.keys() for row in again] == [row.keys() for row in rows]
    for row, before in zip(again, rows, strict=True):
        # Of AAC instead of what it was encoded from.
        assert row["loudest_db"] == pytest.approx(before["loudest_db"], abs=0.5)
        other = {name: value for name, value in row.items() if name not in MeasureSound.columns}
        assert other == {name: before[name] for name in other}


def test_another_encoder_only_makes_audio_states(prepared: Set, recipe: Recipe) -> None:
    times, rows = prepared.times("clips"), prepared.rows()
    before = load_file(read_manifest(prepared.folder)[0].features_path)
    other = replace(recipe, make_audio_encoder=partial(CountedStates, 2.0))
    assert prepared.prepare(other) == []
    assert prepared.times("clips") == times
    assert prepared.rows() == rows
    after = load_file(read_manifest(prepared.folder)[0].features_path)
    assert (after["audio"] == 2).all()
    assert after["audio"].shape == before["audio"].shape
    for name in ("mel", "turn", "opening"):
        torch.testing.assert_close(after[name], before[name], equal_nan=True)


def test_other_clips_are_only_made_if_that_is_allowed(prepared: Set, recipe: Recipe) -> None:
    other = replace(recipe, resolution=128)
    name = Path(prepared.rows()[0]["clip"]).stem
    derived = [
        prepared.folder / each / f"{name}.safetensors" for each in ("latents/a", "features/b")
    ]
    for path in derived:
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(ValueError, match=r"resolution was 64, is now 128.*redo=true"):
        prepared.prepare(other)
    assert prepared.prepare(recipe) == []
    adopt(prepared.raw, prepared.folder, prepared.stages(other))
    assert all(path.exists() for path in derived)
    assert len(prepared.prepare(other)) == 4
    assert {row["resolution"] for row in prepared.rows()} == {128}
    assert not any(path.exists() for path in derived)
    fresh = Set(prepared.raw, prepared.folder.with_name("fresh"), prepared.stages, prepared.seen)
    fresh.prepare(other)
    assert fresh.rows() == prepared.rows()


def test_clips_that_are_no_longer_made_are_deleted(prepared: Set, recipe: Recipe) -> None:
    other = replace(recipe, min_seconds=2.3)
    adopt(prepared.raw, prepared.folder, prepared.stages(other))
    assert len(prepared.prepare(other)) == 2
    assert len(prepared.rows()) == len(prepared.times("clips")) == 2
    assert len(prepared.times("features")) == 2


def test_another_input_is_refused(prepared: Set, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input was"):
        adopt(tmp_path, prepared.folder, prepared.stages(recipe))


class Stopped(Exception):
    """A run that ended in the middle."""


class Stops(SerialExecutor):
    """Ends a run after some results."""

    def __init__(self, after: int) -> None:
        self.after = after

    def run(self, make_work: Callable, items: list) -> Iterator:
        for number, result in enumerate(super().run(make_work, items)):
            if number == self.after:
                raise Stopped
            yield result


def test_a_run_that_stopped_goes_on_with_what_is_left(prepared: Set, recipe: Recipe) -> None:
    other = replace(recipe, make_audio_encoder=partial(CountedStates, 2.0))
    with pytest.raises(Stopped):
        prepared.prepare(without(other, "quality"), Stops(after=1))
    with pytest.raises(ValueError, match=r"3 recordings .* are yet to be made again"):
        filter_clips(prepared.folder, {})
    times = prepared.times("features")
    assert prepared.prepare(without(other, "quality")) == []
    assert sum(new != old for new, old in zip(prepared.times("features"), times, strict=True)) == 3
    assert all("blur" not in row for row in prepared.rows())
    filter_clips(prepared.folder, {})
    # As without the stop.
    assert prepared.prepare(recipe, Stops(after=9)) == []
    assert all("blur" in row for row in prepared.rows())
    states = [load_file(clip.features_path)["audio"] for clip in read_manifest(prepared.folder)]
    assert all((each == 1).all() for each in states)


def test_a_missing_clip_is_made_again_from_its_recording(prepared: Set, recipe: Recipe) -> None:
    clip = read_manifest(prepared.folder)[1]
    clip.path.unlink()
    assert len(prepared.prepare(without(recipe, "sound"))) == 1
    assert len(prepared.rows()) == 4


@pytest.mark.slow
def test_processes_make_again_what_one_makes(raw_dir, tmp_path) -> None:
    recipe = Recipe(make_detector=make_detector, resolution=64, occlusion=None)
    for name, executor in (("one", SerialExecutor()), ("two", LocalExecutor(num_workers=2))):
        prepare_clips(raw_dir, tmp_path / name, stages=without(recipe, "sound").stages())
        prepare_clips(raw_dir, tmp_path / name, stages=recipe.stages(), executor=executor)
    one, two = ((tmp_path / name / "manifest.jsonl").read_text() for name in ("one", "two"))
    assert one == two


CHANGES = [
    ({"vad": "silero"}, Outdated(stages=("sound",))),
    ({"lr_asd": "weights"}, Outdated(stages=("speaker",))),
    ({"quality": "hyperiqa"}, Outdated(stages=("quality",))),
    ({"make_audio_encoder": partial(CountedStates, 3.0)}, Outdated(states=True)),
    ({"syncnet": SYNCNET}, Outdated(source=True)),
    ({"identity": None}, Outdated(source=True)),
    ({"crf": 12}, Outdated(source=True)),
    ({"max_yaw": 40.0}, Outdated(source=True)),
    ({"max_seconds": 8.0}, Outdated(source=True)),
    ({}, Outdated()),
]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["sound"], Outdated(stages=("sound",))),
        (["speaker", "quality"], Outdated(stages=("quality", "speaker"))),
        (["identity"], Outdated(source=True)),
        (["identity", "sound"], Outdated(source=True, stages=("sound",))),
    ],
)
def test_what_stages_outdate(recipe: Recipe, missing: list[str], expected: Outdated) -> None:
    every, fewer = (parameters(each.stages()) for each in (recipe, without(recipe, *missing)))
    assert outdated_by(fewer, every) == expected
    assert outdated_by(every, fewer) == expected


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_what_parameters_outdate(recipe: Recipe, change: dict, expected: Outdated) -> None:
    before, now = (parameters(each.stages()) for each in (recipe, replace(recipe, **change)))
    assert outdated_by(before, now) == expected
    assert bool(differences(before, now)) == bool(expected)
