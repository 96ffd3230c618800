"""CPU seconds per second of video for preparing it, against the published sequence of passes.

`python bench/bench_prepare.py [--video clip.mp4] [--seconds 30]`. Both run in this process, one
after the other, with the same detector and one OpenCV thread (a second one waits actively); CPU
time counts all threads. Ours is `prepare_clips` with
its stages but a SyncNet: clips, features, measures, report, and the loading of its networks. The
published sequence encodes files again between its steps: to 25 fps and 16 kHz; shot by shot; the
aligned faces; those with their sound. Its cutting into segments copies packets and is left out, as
are its filters of size, sync (over crops of a second detector) and quality, which are networks.

`--memory 60 600` prints the peak of the process for recordings of these lengths instead: with a
detector that costs nothing, in pictures of 320 by 240.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import official_way
from inputs import FACE_SEED, draw_tall, in_large, voice_of, wait_passively

from latentsync.data.synthetic import render_clip
from latentsync.faces import FixedDetector, MeshDetector, OfficialAligner, largest
from latentsync.faces.tracking.opencv_threads import single_opencv_thread
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, probe, read_frames
from latentsync.prepare import Recipe, prepare_clips

RESOLUTION = 256
WIDTH, HEIGHT = 1280, 720
SHOT_CRF, SHOT_PRESET = 22, "veryfast"  # of the tool that the published scripts split shots with
CUT_LEVELS = 27.0
POINTS = [[120.0, 100.0], [180.0, 100.0], [150.0, 130.0]]  # a face in the picture of --memory


def main() -> None:
    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a real clip with sound; else one is drawn")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the drawn one")
    parser.add_argument("--memory", type=float, nargs="+", help="lengths in seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory:
            for seconds in options.memory:
                show_memory(folder, seconds)
            return
        raw = folder / "raw"
        raw.mkdir()
        if options.video:
            (raw / options.video.name).symlink_to(options.video.resolve())
        else:
            recording(raw / "drawn.mp4", options.seconds, WIDTH, HEIGHT)
        compare(raw, folder)


class Watch:
    """CPU seconds of all threads per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - before


def compare(raw: Path, folder: Path) -> None:
    (video,) = raw.iterdir()
    seconds = probe(video).duration_seconds
    watch = Watch()
    with single_opencv_thread():
        official_way_of_preparing(video, folder, watch)
    official = sum(watch.seconds.values())
    before = time.process_time()
    stages = Recipe(make_detector=MeshDetector, resolution=RESOLUTION).stages()
    outcomes = prepare_clips(raw, folder / "set", stages=stages)
    ours = time.process_time() - before
    kept = sum(clip.num_frames / clip.fps for outcome in outcomes for clip in outcome.clips)
    print(f"{video.name}: {seconds:.1f} s, kept {kept:.1f}; CPU seconds per second")
    for step, spent in watch.seconds.items():
        print(f"  published, {step:18} {spent / seconds:6.3f}")
    print(f"  published, all {official / seconds:24.3f}")
    print(f"  ours {ours / seconds:34.3f}")
    print(f"ratio {official / ours:.2f}")


def official_way_of_preparing(video: Path, folder: Path, watch: "Watch") -> None:
    """The passes over files; temporary ones are written to the folder."""
    steady, faces, out = (folder / f"official.{name}.mp4" for name in ("25", "faces", "out"))
    voice = folder / "official.wav"
    with watch.stage("to 25 fps"):
        official_way.transcode(video, steady, crf=official_way.FIRST_CRF)
    with watch.stage("to 16 kHz"):
        write_wav(voice, read_waveform(video))
    with watch.stage("find shots"):
        find_shots(steady)
    shot = folder / "official.shot.mp4"
    with watch.stage("encode shots"):
        official_way.transcode(steady, shot, crf=SHOT_CRF, preset=SHOT_PRESET, voice=voice)
    with watch.stage("decode again"):
        frames = np.array(list(official_way.captured(shot)))
    detector, aligner = MeshDetector(), OfficialAligner(RESOLUTION)
    crops = []
    for frame in frames:
        with watch.stage("faces"):
            found = largest(detector(frame))
        if found is None:
            continue
        with watch.stage("align"):
            placement = aligner.place(aligner.points_of(found))
            crops.append(official_way.align_face(frame, placement, RESOLUTION))
    with watch.stage("encode faces"):
        official_way.encode(np.stack(crops), faces)
    with watch.stage("encode with sound"):
        official_way.transcode(faces, out, crf=official_way.LAST_CRF, voice=voice)


def find_shots(video: Path) -> list[int]:
    """Frames that differ from the one before by so many levels of hue, saturation and value."""
    small = [
        cv2.cvtColor(cv2.resize(frame, None, fx=0.25, fy=0.25), cv2.COLOR_RGB2HSV).astype(int)
        for frame in official_way.captured(video)
    ]
    changes = [float(np.abs(after - before).mean()) for before, after in pairwise(small)]
    return [number for number, change in enumerate(changes, start=1) if change > CUT_LEVELS]


def recording(path: Path, seconds: float, width: int, height: int) -> Path:
    """A drawn speaker in a large picture, with a voice."""
    silent = draw_tall(path.with_name("silent.mp4"), seconds=seconds, width=width, height=height)
    sound = voice_of(path.with_name("voice.wav"), seconds, path.with_name("drawn_face.wav"))
    with VideoWriter(path, fps=25, width=width, height=height, audio=sound) as writer:
        for frame in read_frames(silent):
            writer.write(frame)
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()
    return path


def show_memory(folder: Path, seconds: float) -> None:
    """Of a process that only prepares."""
    folder = folder / f"{seconds:g}"
    (folder / "raw").mkdir(parents=True)
    film = folder / "raw" / "film.mp4"
    drawn = render_clip(folder / "face", seed=FACE_SEED, seconds=4, size=240)
    faces = [in_large(face, 320, 240) for face in read_frames(drawn)]
    faces += faces[::-1]
    sound = voice_of(folder / "voice.wav", seconds, folder / "face.wav")
    with VideoWriter(
        film, fps=25, width=320, height=240, preset="ultrafast", audio=sound
    ) as writer:
        for number in range(round(seconds * 25)):
            writer.write(faces[number % len(faces)])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak = pool.submit(prepare_and_measure, folder).result()
    print(f"{seconds:6.0f} s: peak {peak:6.0f} MiB")


def prepare_and_measure(folder: Path) -> float:
    # Small and coarse clips, as encoding takes most of the time.
    recipe = Recipe(make_detector=partial(FixedDetector, POINTS), resolution=128, crf=30)
    prepare_clips(folder / "raw", folder / "set", stages=recipe.stages())
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
