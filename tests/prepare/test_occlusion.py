"""What lies before the mouth is measured, and a limit leaves such clips out."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coded import LOUD, RESOLUTION, SIZE, coded_frame, coded_sound, make_detector
from latentsync.data.synthetic import render_clip
from latentsync.faces import MeshDetector, Placement
from latentsync.faces.align import ALIGNERS
from latentsync.faces.detectors.model_files import MESH, default_cache
from latentsync.faces.mask import load_mask
from latentsync.faces.occlusion import SIDE, Occluder
from latentsync.faces.tracking.occlusion import OcclusionTracker
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter, read_frames
from latentsync.prepare import Align, AlignedSegment, Limit, Recipe, Segment, prepare_clips
from latentsync.prepare.cropping import hidden_in
from latentsync.prepare.stage import Measures, Source
from segmenters import red_is_covered

# Of MediaPipe's mesh, the outer edge.
LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
NUM_FRAMES = 60
MOUTH = np.s_[74:92, 52:78]  # so small that it is no cut when it changes
CHEEK = np.s_[68:98, 40:48]


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """Red is what covers faces, with a level of 128 and more."""
    path = tmp_path / "red.onnx"
    path.write_bytes(red_is_covered())
    return path


def frame_of(number: int, hidden: range, place: tuple = MOUTH) -> np.ndarray:
    """A grey frame; in some the mouth, or another place, is red."""
    frame = np.full((SIZE, SIZE, 3), 60 + number % 2, np.uint8)
    if number in hidden:
        frame[place] = 255, 30, 30
    return frame


def measured(hidden: range, occlusion: Path | None, place: tuple = MOUTH) -> Measures:
    stage = Align(
        make_detector=make_detector, aligner="smooth", resolution=RESOLUTION, fps=25.0,
        min_seconds=2.0, max_seconds=10.0, occlusion=occlusion,
    )  # fmt: skip
    frames = (frame_of(number, hidden, place) for number in range(NUM_FRAMES))
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    (made,) = stage.run(Segment(source, 0, 0, frames, torch.zeros(NUM_FRAMES * 640)))
    assert isinstance(made, AlignedSegment)
    return made.measures


@pytest.mark.parametrize(
    "hidden", [range(0), range(60), range(27, 45), range(13, 29), range(31, 46)]
)
def test_it_is_the_share_of_the_frames(hidden: range, segmenter: Path) -> None:
    """Of what is there for 15 frames and more, to a frame, though few frames are looked at."""
    found = measured(hidden, segmenter)
    for name in ("occlusion", "mouth_hidden"):
        assert found[name] == pytest.approx(len(hidden) / NUM_FRAMES, abs=1 / NUM_FRAMES)


def test_what_lies_on_the_cheek_does_not_hide_the_mouth(segmenter: Path) -> None:
    found = measured(range(60), segmenter, CHEEK)
    assert (found["occlusion"], found["mouth_hidden"]) == (1, 0)


class Exact:
    """Knows what was drawn before a face, frame by frame."""

    every, cache_key = 1, ""

    def __init__(self, alphas: np.ndarray) -> None:
        self.alphas = iter(alphas)

    def __call__(
        self, frame: np.ndarray, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        matrix = placement.square_matrix(SIDE)
        covered = cv2.warpAffine(np.float32(next(self.alphas)) / 255, matrix, (SIDE, SIDE))
        return Occluder(covered) if covered.any() else None


@pytest.mark.slow
@pytest.mark.parametrize(("occluder", "seed"), [("hand", 12), ("microphone", 3), ("hand", 11)])
def test_a_drawn_mouth_is_hidden_as_often_as_its_lips(
    occluder: str, seed: int, tmp_path: Path
) -> None:
    """By the exact shape of what is drawn, and the lips that the mesh finds without it."""
    if not (default_cache() / next(iter(MESH.checksums))).is_file():
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    free = render_clip(tmp_path / "free", seed=seed, seconds=4)
    render_clip(tmp_path / "hidden", seed=seed, seconds=4, occluder=occluder)
    alphas = np.load(tmp_path / "hidden.truth.npz")["alpha"]
    detector = MeshDetector()
    faces = [detector(frame)[0] for frame in read_frames(free)]
    over = [lips_covered(face.points, alpha) for face, alpha in zip(faces, alphas, strict=True)]
    tracker = OcclusionTracker(Exact(alphas), load_mask("mask", SIDE) < 0.5, every=1)
    smooth = ALIGNERS["smooth"](128)
    placements = smooth.placements(smooth.points_of(face) for face in faces)
    for number, placement in enumerate(placements):
        tracker(number, partial(np.zeros, (256, 256, 3), np.uint8), placement)
    share = np.mean([hidden for _, hidden in hidden_in(tracker, range(len(faces)))])
    assert share == pytest.approx(np.mean(np.array(over) > 0.25), abs=0.04)


def lips_covered(points: np.ndarray, alpha: np.ndarray) -> float:
    lips = np.zeros(alpha.shape, np.uint8)
    cv2.fillConvexPoly(lips, cv2.convexHull(points[LIPS].round().astype(np.int32)), 1)
    return float((alpha[lips > 0] > 127).mean())


def test_what_is_not_looked_for_is_not_measured() -> None:
    found = measured(range(60), None)
    assert found["occlusion"] is None
    assert found["mouth_hidden"] is None


def test_a_limit_lists_a_clip_whose_mouth_is_hidden(segmenter: Path, tmp_path: Path) -> None:
    for name, hidden in (("free", range(0)), ("hidden", range(20, 35))):
        write_video(tmp_path / "raw" / f"{name}.mp4", hidden)
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, occlusion=segmenter)
    limits = {"occlusion": Limit(max=0.1, stage="align")}
    kept = prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages(), limits=limits)
    assert [len(outcome.clips) for outcome in kept] == [1, 0]
    (line,) = (tmp_path / "set" / "dropped.jsonl").read_text().splitlines()
    dropped = json.loads(line)
    assert (dropped["source"], dropped["stage"]) == ("hidden.mp4", "align")
    assert (dropped["value"], dropped["threshold"]) == (0.25, 0.1)
    assert dropped["reason"].startswith("occlusion is 0.25, 0.1 is the most")


def write_video(path: Path, hidden: range) -> None:
    path.parent.mkdir(exist_ok=True)
    write_wav(path.with_suffix(".wav"), coded_sound(NUM_FRAMES, LOUD))
    sound = path.with_suffix(".wav")
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, crf=4, audio=sound) as writer:
        for number in range(NUM_FRAMES):
            frame = coded_frame(0)
            frame[MOUTH] = frame_of(number, hidden)[MOUTH]
            writer.write(frame)
    sound.unlink()


def test_a_segmenter_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"prepare\.occlusion=.*none\.onnx is no file"):
        Recipe(make_detector=make_detector, occlusion=tmp_path / "none.onnx").stages()
