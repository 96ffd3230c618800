"""Milliseconds per frame for everything but the network, compared with the official sequence.

`python bench/bench_pipeline.py [--video clip.mp4 --audio voice.wav]`. Ours is all of `lipsync` with
networks that take almost no time (which is included in the total); the official sequence, on its
first frames, is bench/official_way.py. Both use the same x264 preset and rate factor.
"""

import tempfile
import time
from pathlib import Path

import official_way
from inputs import NO_STEPS, clip_arguments, clip_of, tiny_model, wait_passively

from latentsync import lipsync
from latentsync.faces import MeshDetector
from latentsync.runtime import Stopwatch

RESOLUTION = 256


def main() -> None:
    wait_passively()
    parser = clip_arguments(__doc__)
    parser.add_argument("--frames", type=int, default=50, help="of the official sequence")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, audio = clip_of(options, folder)
        started, watch = time.perf_counter(), Stopwatch()
        num_frames = official_way.run(
            video,
            audio,
            folder / "official.mp4",
            detector=MeshDetector(),
            resolution=RESOLUTION,
            num_frames=options.frames,
            stopwatch=watch,
        )
        official_total = time.perf_counter() - started
        report = lipsync(
            video,
            audio,
            folder / "ours.mp4",
            model=tiny_model(RESOLUTION),
            detector=MeshDetector(),
            sampler=NO_STEPS,
            crf=official_way.LAST_CRF,
        )
    official_ms = 1000 * official_total / num_frames
    our_ms = 1000 * report.total_seconds / report.num_frames
    without_faces = official_ms - 1000 * watch.seconds["faces"] / num_frames
    show(f"official sequence, {num_frames} frames", watch.seconds, num_frames, official_ms)
    show(f"ours, {report.num_frames} frames", report.stage_seconds, report.num_frames, our_ms)
    print(f"ratio {official_ms / our_ms:.2f}")
    print(f"ratio {without_faces / our_ms:.2f} if the official sequence found faces for nothing")


def show(title: str, seconds: dict[str, float], num_frames: int, total: float) -> None:
    print(f"{title}: ms a frame")
    for stage, spent in seconds.items():
        print(f"  {stage:12} {1000 * spent / num_frames:8.2f}")
    print(f"  {'all':12} {total:8.2f}")


if __name__ == "__main__":
    main()
