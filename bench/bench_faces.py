"""Milliseconds per frame to crop a face and paste it back, compared with the official code.

`python bench/bench_faces.py [--video clip.mp4]`. Both take turns on the same frames and faces,
which are detected beforehand. Reports the median over all frames.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import official_way
import torch
from inputs import clip_arguments, clip_of, wait_passively

from latentsync.faces import (
    MeshDetector,
    OfficialAligner,
    Placement,
    SmoothAligner,
    align,
    paste,
    track,
)
from latentsync.media.video import read_frames

Call = Callable[[], object]

RESOLUTION = 256
WARM_UP = 3


def main() -> None:
    wait_passively()
    parser = clip_arguments(__doc__)
    parser.add_argument("--frames", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        video, _ = clip_of(options, Path(name))
        frames = list(read_frames(video, num_frames=options.frames))
    times, level_off = measure(frames)
    height, width = frames[0].shape[:2]
    print(f"{width}x{height}, {len(frames)} frames, face of {RESOLUTION} px")
    print(f"threads: torch {torch.get_num_threads()}; OMP_WAIT_POLICY=PASSIVE for all")
    print(f"{'ms a frame':22} {'align':>8} {'restore':>8} {'both':>8} {'ratio':>7}")
    baseline = sum(times["official way"])
    for way, (cut, put_back) in times.items():
        both = cut + put_back
        print(f"{way:22} {cut:8.2f} {put_back:8.2f} {both:8.2f} {baseline / both:7.1f}")
    print(f"the same arithmetic: {level_off:.2%} of the levels of `crop` differ by more than one")


def measure(frames: list[np.ndarray]) -> tuple[dict[str, tuple[float, float]], float]:
    """Median ms of align and restore of both; the fraction of levels that differ by more than
    one."""
    found = list(track(frames, MeshDetector()))
    aligners = OfficialAligner(RESOLUTION), SmoothAligner(RESOLUTION)
    official, smooth = (
        list(a.placements(None if f is None else a.points_of(f) for f in found)) for a in aligners
    )
    seconds: dict[str, list[tuple[float, float]]] = {}
    off = []
    for frame, theirs, ours in zip(frames, official, smooth, strict=True):
        if theirs is None or ours is None:
            continue
        results = []
        for name, (cut, put_back) in ways(frame, theirs, ours).items():
            (cut_seconds, _), (seconds_back, result) = timed(cut), timed(put_back)
            seconds.setdefault(name, []).append((cut_seconds, seconds_back))
            results.append(np.asarray(result, dtype=int))
        off.append(float((np.abs(results[0] - results[1]) > 1).mean()))
    medians = {}
    for name, each in seconds.items():
        cuts, backs = zip(*each[WARM_UP:], strict=True)
        medians[name] = (1000 * median(cuts), 1000 * median(backs))
    return medians, float(np.mean(off))


def ways(frame: np.ndarray, theirs: Placement, ours: Placement) -> dict[str, tuple[Call, Call]]:
    """By name: functions that crop the face from the frame, and that paste the same face back."""
    face = official_way.align_face(frame, theirs, RESOLUTION)
    levels = face.astype(np.float32)
    pixels = torch.from_numpy(levels).permute(2, 0, 1) / 127.5 - 1
    return {
        "official way": (
            partial(official_way.align_face, frame, theirs, RESOLUTION),
            partial(official_way.restore_face, frame, pixels, theirs),
        ),
        "ours, crop (official)": (
            partial(align, frame, theirs, RESOLUTION),
            partial(paste, frame, levels, theirs, region="crop"),
        ),
        "ours, mask (default)": (
            partial(align, frame, ours, RESOLUTION),
            partial(paste, frame, face, ours, region="mask"),
        ),
    }


def timed(call: Call) -> tuple[float, object]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
