"""The list of stages: what a data set records about it, and records of earlier versions."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from coded import POINTS, make_detector, write_coded_video
from latentsync.cli.command import conf_dir
from latentsync.cli.prepare import build_stages
from latentsync.faces import FixedDetector, MeshDetector
from latentsync.models import WhisperAudioEncoder
from latentsync.prepare import AlignedSegment, Recipe, Stage, limits_of, prepare_clips
from latentsync.prepare.parameters import EARLIER_STAGES, of_today, parameters


def test_conf_and_the_recipe_say_the_same_stages() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("prepare", ["input=raw", "output=set"])
    before = OmegaConf.to_container(config)
    assert parameters(build_stages(config)) == parameters(Recipe().stages())
    assert OmegaConf.to_container(config) == before


@pytest.mark.parametrize("name", ["voxceleb2", "hdtf", "own_footage", "strict_512"])
def test_recipes_differ_in_limits_and_shortest_length_alone(name: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        usual, own = (
            OmegaConf.to_container(compose("prepare", ["input=raw", "output=set", *words]))
            for words in ([], [f"prepare={name}"])
        )
    bounds, own_bounds = usual["prepare"]["limits"], own["prepare"]["limits"]
    assert bounds != own_bounds
    assert bounds.keys() == own_bounds.keys()
    assert [bound["stage"] for bound in own_bounds.values()] == [
        bound["stage"] for bound in bounds.values()
    ]
    limits_of(own_bounds)
    for each in (usual, own):
        del each["prepare"]["limits"], each["prepare"]["min_seconds"]
    assert usual == own


# Records of four preparations by the version before stages were a list.
WHERE = {"input": "/raw", "aligner": "smooth", "resolution": 256, "fps": 25.0, "min_seconds": 2.0,
         "max_seconds": 10.0, "crf": 8}  # fmt: skip
MESH = {"made_by": "latentsync.faces.mesh.MeshDetector", "arguments": [], "cache_dir": None,
        "detector_path": None, "landmark_path": None, "min_score": 0.5}  # fmt: skip
MEL = {"made_by": "latentsync.models.audio_encoder.MelAudioEncoder", "arguments": []}
FIXED = {"made_by": "latentsync.faces.detect.FixedDetector", "arguments": [], "points": POINTS}
WHISPER = {"made_by": "latentsync.models.audio_encoder.WhisperAudioEncoder.from_pretrained",
           "arguments": [], "folder": "whisper"}  # fmt: skip
EARLIER = [
    (WHERE | {"detector": MESH, "audio_encoder": MEL}, Recipe()),
    (
        WHERE | {"detector": FIXED, "audio_encoder": MEL},
        Recipe(make_detector=partial(FixedDetector, POINTS)),
    ),
    (
        WHERE | {"detector": MESH, "audio_encoder": WHISPER},
        Recipe(make_audio_encoder=partial(WhisperAudioEncoder.load, folder="whisper")),
    ),
    (
        WHERE | {"detector": MESH | {"min_score": 0.7}, "audio_encoder": MEL, "resolution": 128},
        Recipe(make_detector=partial(MeshDetector, min_score=0.7), resolution=128),
    ),
]


BEFORE: dict = {
    "max_people": 1,
    "own_sound": False,
    "cut_ratio": None,
    "min_overlap": 0.0,
    "max_yaw": None,
    "occlusion": None,
}


def as_then(recipe: Recipe) -> list[Stage]:
    """The stages that there were, as 'prepare/stages=[probe,resample,segment,align,write]'."""
    return [stage for stage in recipe.stages() if stage.name in EARLIER_STAGES]


@pytest.mark.parametrize(("recorded", "recipe"), EARLIER)
def test_what_earlier_versions_recorded_is_the_same_today(recorded: dict, recipe: Recipe) -> None:
    stages = as_then(replace(recipe, **BEFORE))
    assert of_today(recorded, stages) == {"input": "/raw", **parameters(stages)}


@pytest.mark.parametrize(
    ("recorded", "recipe"),
    [(EARLIER[first][0], EARLIER[second][1]) for first in range(4) for second in range(4)
     if first != second],
)  # fmt: skip
def test_another_way_of_preparing_is_still_another(recorded: dict, recipe: Recipe) -> None:
    stages = as_then(replace(recipe, **BEFORE))
    assert of_today(recorded, stages) != {"input": "/raw", **parameters(stages)}


ADDED = {
    "segment.cut_ratio",
    "align.min_overlap",
    "align.max_yaw",
    "align.occlusion",
    "align.max_people",
    "resample.own_sound",
}


@pytest.mark.parametrize(("recorded", "recipe"), EARLIER)
def test_a_set_without_shots_differs_from_one_with_shots(recorded: dict, recipe: Recipe) -> None:
    earlier, now = of_today(recorded, as_then(recipe)), parameters(as_then(recipe))
    assert {name for name in now if earlier.get(name) != now[name]} == ADDED
    assert not ADDED & earlier.keys()


def test_a_set_that_an_earlier_version_began_is_gone_on_with(recipe: Recipe, tmp_path: Path):
    shots, recipe = recipe, replace(recipe, **BEFORE)
    write_coded_video(tmp_path / "raw" / "one.mp4", 55)
    (first,) = prepare_clips(tmp_path / "raw", tmp_path / "set", stages=as_then(recipe))
    record = tmp_path / "set" / "record.jsonl"
    _, row = record.read_text().splitlines()
    detector = {"made_by": "latentsync.faces.detect.FixedDetector", "arguments": [POINTS]}
    values = {"input": str(tmp_path / "raw"), "detector": detector, "audio_encoder": MEL}
    earlier = json.dumps({"parameters": WHERE | values | {"resolution": 64}})
    record.write_text(f"{earlier}\n{row}\n")
    written = first.clips[0].path.stat().st_mtime_ns
    write_coded_video(tmp_path / "raw" / "two.mp4", 60)
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=as_then(recipe))
    assert first.clips[0].path.stat().st_mtime_ns == written
    rows = map(json.loads, record.read_text().splitlines()[1:])
    assert [row["item"].split()[0] for row in rows] == ["one.mp4", "two.mp4"]
    with pytest.raises(ValueError, match=r"align\.resolution was 64, is now 128"):
        other = as_then(replace(recipe, resolution=128))
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=other)
    with pytest.raises(ValueError, match=r"segment\.cut_ratio was null, is now 1\.8"):
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=as_then(shots))
    with pytest.raises(ValueError, match=r'stages was .*"align", "write"\], is now .*"sound"'):
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=shots.stages())


@dataclass(kw_only=True)
class Late:
    """A stage to which a field has been added."""

    name = "late"
    takes = makes = AlignedSegment
    strength: object = 1.0

    def run(self, aligned):
        yield aligned


def test_a_field_that_came_in_since_was_at_its_default() -> None:
    first, *rest, last = Recipe().stages()
    recorded = parameters([first, *rest, Late(), last])
    del recorded["late.strength"]
    for strength in (1.0, 2.0):
        stages = [first, *rest, Late(strength=strength), last]
        same = of_today(recorded, stages) == parameters(stages)
        assert same is (strength == 1.0)


def test_what_no_record_can_hold_is_no_field(recipe: Recipe, tmp_path: Path) -> None:
    write_coded_video(tmp_path / "raw" / "one.mp4", 55)
    *rest, last = recipe.stages()
    with pytest.raises(ValueError, match=r"late\.strength is a FixedDetector"):
        stages = [*rest, Late(strength=make_detector()), last]
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=stages)
    with pytest.raises(ValueError, match=r"names of their own, got .*late, late"):
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=[*rest, Late(), Late(), last])
    with pytest.raises(ValueError, match="must make a Clip, not a AlignedSegment"):
        prepare_clips(tmp_path / "raw", tmp_path / "set", stages=rest)


def test_what_the_last_version_recorded_is_the_same_today() -> None:
    """The longest length was a field of `segment`, and what is kept of a stretch was chosen."""
    stages = Recipe(max_seconds=8.0).stages()
    recorded = parameters(stages)
    recorded["segment.max_seconds"] = recorded.pop("align.max_seconds")
    for stretches, same in (("all", True), ("longest", False)):
        then = recorded | {"align.stretches": stretches}
        assert (of_today(then, stages) == parameters(stages)) is same
    other = Recipe(max_seconds=9.0).stages()
    assert of_today(recorded, other) != parameters(other)


@dataclass(kw_only=True)
class Threads:
    """Notes OpenCV's number of threads."""

    name = "threads"
    takes = makes = AlignedSegment

    def run(self, aligned):
        yield aligned.with_measures(threads=cv2.getNumThreads())


def test_a_recording_is_prepared_with_one_opencv_thread(recipe: Recipe, tmp_path: Path) -> None:
    write_coded_video(tmp_path / "raw" / "one.mp4", 55)
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        *rest, last = recipe.stages()
        (outcome,) = prepare_clips(
            tmp_path / "raw", tmp_path / "set", stages=[*rest, Threads(), last]
        )
        assert outcome.clips[0].measures["threads"] == 1
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
