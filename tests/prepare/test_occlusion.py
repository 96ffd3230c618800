"""What lies before the mouth is measured, and a limit leaves such clips out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, RESOLUTION, SIZE, coded_frame, coded_sound, make_detector
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter
from latentsync.prepare import Align, AlignedSegment, Limit, Recipe, Segment, prepare_clips
from latentsync.prepare.stage import Source
from segmenters import red_is_covered

NUM_FRAMES = 60
MOUTH = np.s_[74:92, 52:78]  # so small that it is no cut when it changes


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """Red is what covers faces, with a level of 128 and more."""
    path = tmp_path / "red.onnx"
    path.write_bytes(red_is_covered())
    return path


def frame_of(number: int, hidden: range) -> np.ndarray:
    """A grey frame; in some the mouth is red."""
    frame = np.full((SIZE, SIZE, 3), 60 + number % 2, np.uint8)
    if number in hidden:
        frame[MOUTH] = 255, 30, 30
    return frame


def measured(hidden: range, occlusion: Path | None) -> float | str | None:
    stage = Align(
        make_detector=make_detector, aligner="smooth", resolution=RESOLUTION, fps=25.0,
        min_seconds=2.0, occlusion=occlusion,
    )  # fmt: skip
    frames = (frame_of(number, hidden) for number in range(NUM_FRAMES))
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    (made,) = stage.run(Segment(source, 0, 0, frames, torch.zeros(NUM_FRAMES * 640)))
    assert isinstance(made, AlignedSegment)
    return made.measures["occlusion"]


@pytest.mark.parametrize("hidden", [range(0), range(60), range(27, 45), range(13, 29)])
def test_it_is_the_share_of_the_frames(hidden: range, segmenter: Path) -> None:
    """Though most frames are not looked at while nothing is there."""
    assert measured(hidden, segmenter) == pytest.approx(len(hidden) / NUM_FRAMES, abs=1e-4)


def test_what_is_not_looked_for_is_not_measured() -> None:
    assert measured(range(60), None) is None


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
