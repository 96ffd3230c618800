"""Peak memory for a short and a long 1080p video, and of the official way to hold all frames.

`python bench/bench_memory.py [--short 10 --long 120 --official 5]`. Every run is a separate
process, whose peak is reported by the kernel. Both videos are the same synthetic one at different
lengths. The official sequence includes no network; a length of 0 seconds skips it. Ours uses
networks that take almost no memory.
"""

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import official_way
from inputs import FPS, NO_STEPS, draw_tall, tiny_model, voice_of

from latentsync import lipsync
from latentsync.data.synthetic import render_clip
from latentsync.faces import MeshDetector

T = TypeVar("T")

WIDTH, HEIGHT = 1920, 1080
MAX_APART, MAX_MIB = 0.05, 1.5 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", type=float, default=10.0, help="seconds")
    parser.add_argument("--long", type=float, default=120.0, help="seconds")
    parser.add_argument("--official", type=float, default=5.0, help="seconds; 0: leave it out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks = {
            seconds: apart(measure_ours, *apart(draw, folder, seconds))
            for seconds in (options.short, options.long)
        }
        official = 0.0
        if options.official:
            official = apart(measure_official, *apart(draw, folder, options.official))
    print(f"{WIDTH}x{HEIGHT} at {FPS} fps, peak of the process in MiB")
    for seconds, peak in peaks.items():
        print(f"ours      {seconds:6.0f} s {peak:8.0f}")
    if official:
        print(f"official  {options.official:6.0f} s {official:8.0f} (no networks)")
    short, long = peaks[options.short], peaks[options.long]
    print(f"long / short {long / short:.3f} (at most {1 + MAX_APART}), limit {MAX_MIB:.0f} MiB")


def apart(call: Callable[..., T], *arguments: object) -> T:
    """The result of a call in a separate process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def draw(folder: Path, seconds: float) -> tuple[Path, Path]:
    """A synthetic 1080p video and a voice of that length."""
    stem = folder / f"{seconds:g}"
    video = draw_tall(
        stem.with_suffix(".mp4"), seconds=seconds, width=WIDTH, height=HEIGHT, preset="ultrafast"
    )
    render_clip(folder / "voice", seed=900002, seconds=4, size=64)
    return video, voice_of(stem.with_suffix(".wav"), seconds, folder / "voice.wav")


def measure_ours(video: Path, audio: Path) -> float:
    lipsync(
        video,
        audio,
        video.with_suffix(".out.mp4"),
        model=tiny_model(),
        detector=MeshDetector(),
        sampler=NO_STEPS,
    )
    return peak_mib()


def measure_official(video: Path, audio: Path) -> float:
    out = video.with_suffix(".out.mp4")
    official_way.run(video, audio, out, detector=MeshDetector(), resolution=256, num_frames=10**9)
    return peak_mib()


def peak_mib() -> float:
    """Peak memory of this process; unlike getrusage's, it excludes that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
