"""A clip of two people differs from itself more than one of one person."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import coded_sound
from latentsync.faces import Face, FaceDetector
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter
from latentsync.prepare import (
    Align,
    AlignedSegment,
    Limit,
    MeasureIdentity,
    Recipe,
    Segment,
    prepare_clips,
)
from latentsync.prepare.identity import identity_gap
from latentsync.prepare.stage import Source
from onnx_files import mean_network

RED, GREEN, BLUE = np.eye(3)
SIDE = 128


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face recognition network that knows people by their mean colour."""
    path = tmp_path_factory.mktemp("network") / "mean.onnx"
    path.write_bytes(mean_network())
    return path


def segment_of(*people: np.ndarray, start: int = 0, source: str = "a") -> AlignedSegment:
    """A clip of 100 frames, ten for every person's colour."""
    looks = [np.tile((255 * color).astype(np.uint8), (112, 112, 1)) for color in people]
    faces = [np.zeros((64, 64, 3), np.uint8)] * 100
    named = Source(Path(f"{source}.mp4"), f"{source}.mp4", source, Path())
    return AlignedSegment(named, 0, start, faces, np.zeros(100), torch.zeros(1), looks=looks)


def measured(stage: MeasureIdentity, segment: AlignedSegment) -> tuple:
    (made,) = stage.run(segment)
    return made.measures["identity_gap"], made.measures["person"]


def test_the_gap_is_the_mean_distance_of_two_groups():
    near_red = np.array([0.8, 0.6, 0])
    assert identity_gap([RED] * 6) == 0
    assert identity_gap([RED] * 4 + [BLUE] * 4) == pytest.approx(np.sqrt(2))
    assert identity_gap([RED, BLUE] * 3) == pytest.approx(np.sqrt(2))
    mixed = [RED, RED, near_red, near_red, BLUE, BLUE]
    assert identity_gap(mixed) == pytest.approx(np.sqrt(2))
    assert identity_gap(mixed[:4]) == pytest.approx(np.sqrt(0.2**2 + 0.6**2))


def test_one_face_that_differs_is_nobody_else():
    assert identity_gap([RED] * 7 + [BLUE]) == 0
    assert identity_gap([RED, RED, BLUE]) is None


def test_persons_are_numbered_in_every_source(network: Path):
    stage = MeasureIdentity(network=network)
    clips = [
        segment_of(*[RED] * 6),
        segment_of(*[BLUE] * 6, start=100),
        segment_of(*[RED] * 6, start=200),
        segment_of(*[RED] * 6, start=250),  # beside the one before
        segment_of(*[GREEN] * 6, start=300, source="b"),
    ]
    assert [measured(stage, clip) for clip in clips] == [(0, 0), (0, 1), (0, 0), (0, 2), (0, 0)]
    gap, _ = measured(stage, segment_of(*[RED] * 3, *[BLUE] * 3))
    assert gap == pytest.approx(np.sqrt(2), rel=1e-5)


def test_without_a_network_or_looks_nothing_is_judged(network: Path):
    assert measured(MeasureIdentity(), segment_of(*[RED] * 6)) == (None, None)
    assert measured(MeasureIdentity(network=network), segment_of()) == (None, None)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        measured(MeasureIdentity(network="none.onnx"), segment_of(*[RED] * 6))


class Staying(FaceDetector):
    """One face that stays, by the points of a scheme."""

    def __init__(self, scheme: str) -> None:
        points = np.full((68, 2), 64.0)
        points[17:22], points[22:27], points[29:36] = [44, 50], [84, 50], [64, 72]
        points[36:42], points[42:48], points[48], points[54] = (
            [48, 58],
            [80, 58],
            [50, 90],
            [78, 90],
        )
        three = points[[17, 22, 30]]
        given = points if scheme == "68" else three
        self.face = Face(np.array([30.0, 30, 98, 110]), given, 1.0, scheme)

    def __call__(self, frame: np.ndarray) -> list[Face]:
        return [self.face]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return face


@pytest.mark.parametrize(("scheme", "num_looks"), [("68", 6), ("three", 0)])
def test_looks_are_taken_of_points_that_show_eyes_and_mouth(scheme: str, num_looks: int):
    stage = Align(
        make_detector=lambda: Staying(scheme), aligner="smooth", resolution=64, fps=25,
        min_seconds=2.0, max_seconds=10.0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)] * 60
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    (made,) = stage.run(Segment(source, 0, 100, iter(frames), torch.zeros(60 * 640)))
    assert isinstance(made, AlignedSegment)
    assert [look.shape for look in made.looks] == [(112, 112, 3)] * num_looks


def write_turning(path: Path, before: np.ndarray, after: np.ndarray) -> None:
    """A face of one colour, which turns into another one's within ten frames."""
    sound_path = path.with_suffix(".wav")
    write_wav(sound_path, coded_sound(60, range(60)))
    shares = np.clip((np.arange(60) - 25) / 10, 0, 1)
    with VideoWriter(path, fps=25, width=SIDE, height=SIDE, audio=sound_path) as writer:
        for share in shares:
            color = (1 - share) * before + share * after
            writer.write(np.tile((40 + 160 * color).astype(np.uint8), (SIDE, SIDE, 1)))
    sound_path.unlink()


def test_a_clip_of_two_people_is_listed_with_its_gap_and_limit(network: Path, tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_turning(raw / "one.mp4", RED, RED)
    write_turning(raw / "two.mp4", RED, BLUE)
    recipe = Recipe(
        make_detector=partial(Staying, "68"), identity=network, resolution=64, occlusion=None
    )
    limits = {"identity_gap": Limit(max=0.5, stage="identity")}
    one, two = prepare_clips(raw, tmp_path / "set", stages=recipe.stages(), limits=limits)
    assert [clip.measures["person"] for clip in one.clips] == [0]
    assert not two.clips
    (dropped,) = two.dropped
    assert (dropped.stage, dropped.threshold) == ("identity", 0.5)
    assert dropped.value is not None
    assert 0.5 < dropped.value < np.sqrt(2)
    assert "identity_gap is" in dropped.reason
    assert (dropped.start_seconds, dropped.end_seconds) == (0, 2.4)
