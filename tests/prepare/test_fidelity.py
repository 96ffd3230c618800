"""What a clip keeps of its source: how near its frames are to the aligned ones, and how often the
source is decoded and encoded."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import latentsync.prepare.resample as resampling
from coded import LOUD, RESOLUTION, make_detector, write_coded_video
from latentsync.faces import SmoothAligner
from latentsync.media.clip_reader import PyAvReader
from latentsync.media.video import VideoWriter, glance_at_frames, read_frames
from latentsync.prepare import AlignedSegment, Recipe, prepare_clips
from latentsync.prepare.cropping import face_in
from latentsync.prepare.stage import Source

LEAST_PSNR = 42.0
REAL = Path(__file__).parents[3] / "shared" / "clips" / "demo1_video.mp4"


def aligned_of(path: Path, folder: Path, recipe: Recipe) -> AlignedSegment:
    """The first aligned segment of a recording."""
    probe, resample, cut, align = recipe.stages()[:4]
    (recording,) = probe.run(Source(path, path.name, "a", folder))
    resampled = next(resample.run(recording))
    return next(
        made
        for segment in cut.run(resampled)
        for made in align.run(segment)
        if isinstance(made, AlignedSegment)
    )


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_a_clip_is_near_its_aligned_frames(kind, talking_clip, tmp_path) -> None:
    if kind == "real" and not REAL.is_file():
        pytest.skip("the real clip is not here")
    for name in ("clips", "features"):
        (tmp_path / name).mkdir()
    recipe = Recipe(resolution=256, max_seconds=4.0)
    aligned = aligned_of(talking_clip if kind == "drawn" else REAL, tmp_path, recipe)
    (clip,) = recipe.stages()[-1].run(aligned)
    exact = list(read_frames(clip.path))
    assert len(exact) == len(aligned.faces)
    assert psnr(np.stack(exact), np.stack(aligned.faces)) >= LEAST_PSNR
    trained = PyAvReader(clip.path).frames(np.arange(clip.num_frames))
    # Nearest-neighbour chroma, for speed.
    assert psnr(trained, np.stack(aligned.faces)) >= LEAST_PSNR - 2


def test_faces_are_cut_from_exact_colours(talking_clip) -> None:
    """Detectors see frames that are converted quickly, a level darker; clips do not show them."""
    quick = list(islice(glance_at_frames(talking_clip), 3))
    exact = list(read_frames(talking_clip, num_frames=3))
    height, width = exact[0].shape[:2]
    aligner = SmoothAligner(RESOLUTION)
    place = aligner.place(np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55]]) * [width, height])
    for seen, frame in zip(quick, exact, strict=True):
        assert seen.rgb().mean() < frame.mean() - 0.3
        np.testing.assert_array_equal(
            face_in(seen, place, RESOLUTION), face_in(frame, place, RESOLUTION)
        )


@pytest.mark.parametrize("cut_ratio", [None, 6.0])
def test_a_source_is_decoded_once_and_every_clip_encoded_once(
    cut_ratio, tmp_path, monkeypatch
) -> None:
    write_coded_video(tmp_path / "raw" / "a.mp4", 400, loud=LOUD)
    decoded, encoded = [], []

    def counted(path, **options):
        for frame in glance_at_frames(path, **options):
            decoded.append(path)
            yield frame

    write = VideoWriter.write

    def counting(self, frame):
        encoded.append(frame.shape)
        return write(self, frame)

    monkeypatch.setattr(resampling, "glance_at_frames", counted)
    monkeypatch.setattr(VideoWriter, "write", counting)
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, cut_ratio=cut_ratio)
    (outcome,) = prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    assert sum(clip.num_frames for clip in outcome.clips) == 400 == len(encoded)
    assert len(decoded) == 400
