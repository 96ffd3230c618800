"""Failures during a run: the good part is written and reported, or nothing is left behind."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from latentsync.media.audio import write_wav
from latentsync.media.frame_reader import read_times
from latentsync.media.video import VideoWriter, read_frames
from latentsync.pipeline import Choice, lipsync
from latentsync.pipeline.outputs import parts_folder, written_files
from media.sources import blank_group
from pipeline.inputs import HEIGHT, WIDTH, build_tiny_model, picture, write_video, write_voice

PLAIN = Choice(min_size=0, min_seconds=0)
INFER = Path(__file__).parents[2] / "infer.py"
FACES = "faces.points=[[48,48],[80,48],[64,64]]"


@pytest.fixture
def parts(tiny_model, detector, sampler) -> dict:
    return {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}


def still(index: int) -> np.ndarray:
    return picture(0) + np.uint8(index % 40)


def test_of_a_damaged_middle_the_good_part_comes_out_and_the_report_says_where(
    tmp_path: Path, parts: dict, rng: np.random.Generator
) -> None:
    video = tmp_path / "in.mp4"
    with VideoWriter(video, fps=25, width=WIDTH, height=HEIGHT, keyframe_interval=10) as writer:
        for index in range(100):
            frame = still(index)
            frame[:24] = rng.integers(0, 255, (24, WIDTH, 3))
            writer.write(frame)
    first, _ = blank_group(video, 4)
    out = tmp_path / "out.mp4"
    report = lipsync(video, write_voice(tmp_path / "v.wav", 4.0), out, **parts)
    times = read_times(out)
    assert times.seconds == pytest.approx(4.0, abs=0.04)
    assert len(report.damage) == 1
    assert f"{first / 25:g}" in report.damage[0]
    assert report.num_frames_with_face == report.num_frames == len(times)


def test_a_full_disk_is_told_and_leaves_no_half_file(
    tmp_path: Path, parts: dict, rng: np.random.Generator
) -> None:
    frames = [
        np.vstack([still(index)[:64], rng.integers(0, 255, (48, WIDTH, 3), dtype=np.uint8)])
        for index in range(50)
    ]
    video = write_video(tmp_path / "in.mp4", frames, crf=10)
    voice = write_voice(tmp_path / "voice.wav", 2.0)
    before = {path.name for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match=r"could not be written .*make room"):
            lipsync(video, voice, tmp_path / "out.mp4", crf=4, **parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("last", [".json", ".png", ".html", ".published"])
def test_a_disk_that_is_full_at_the_report_is_told_and_the_next_run_ends_it(
    tmp_path: Path, parts: dict, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(10)])
    voice = write_voice(tmp_path / "v.wav", 0.4)
    out = tmp_path / "out.mp4"

    def full_at(write: Callable) -> Callable:
        def written(self: Path, *args: object, **names: object) -> object:
            if self.name.startswith((".whole", ".published")) and last in self.name:
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
            return write(self, *args, **names)

        return written

    with monkeypatch.context() as patched:
        for name in ("write_text", "write_bytes"):
            patched.setattr(Path, name, full_at(getattr(Path, name)))
        with pytest.raises(OSError, match="No space left"):
            lipsync(video, voice, out, **parts)
    assert not list(tmp_path.glob("out*")), "all or nothing"
    report = lipsync(video, voice, out, **parts)
    assert "10 frames are those of an earlier run that was stopped" in report.notes
    written = {path.name for path in written_files(out)}
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "v.wav"} | written


def test_a_video_that_is_removed_while_it_runs(tmp_path: Path, parts: dict) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(60)])
    voice = write_voice(tmp_path / "v.wav", 2.4)
    out = tmp_path / "out.mp4"

    def remove(stage: str, done: int, _: int) -> None:
        if stage == "faces" and done == 30:
            video.unlink()

    with pytest.raises(FileNotFoundError, match=r"in\.mp4"):
        lipsync(video, voice, out, progress=remove, **parts)
    assert {path.name for path in tmp_path.iterdir()} == {"v.wav"}


def test_samples_that_are_no_numbers_are_silence_and_said(tmp_path: Path, parts: dict) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(30)])
    voice = tmp_path / "v.wav"
    samples = np.sin(np.arange(16000) / 12).astype(np.float32) * 0.5
    samples[4000:8000] = np.nan
    samples[9000] = np.inf
    write_float_wav(voice, samples)
    report = lipsync(video, voice, tmp_path / "out.mp4", **parts)
    assert report.num_frames == 30
    frames = np.stack(list(read_frames(tmp_path / "out.mp4")))
    assert frames.std() > 10
    assert 1 <= len(report.damage) <= 2, "neighbouring pieces are told as one span"
    assert "a voice" in report.damage[0]
    start = float(report.damage[0].split("from ")[1].split(" s")[0])
    assert 0.15 <= start <= 0.25, "where the piece begins that holds the first"
    assert "not numbers" in report.damage[0]


def write_float_wav(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.mark.slow
def test_three_hours_of_voice_are_heard_in_little_memory(tmp_path: Path) -> None:
    """In a separate process; the video does not repeat, so that only the voice is long."""
    write_video(tmp_path / "in.mp4", [still(index) for index in range(30)])
    voice = tmp_path / "long.wav"
    hour = (
        0.3
        * torch.sin(torch.arange(3600 * 16000) / 30)
        * torch.sin(torch.arange(3600 * 16000) / 9e4)
    )
    write_wav(voice, hour.repeat(3))
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from pipeline.inputs import POINTS, SeesLight, build_tiny_model\n"
        "from latentsync.diffusion.sampler import Sampler\n"
        "from latentsync.pipeline import Choice, Timing, lipsync\n"
        "folder = Path(sys.argv[2])\n"
        "report = lipsync(folder / 'in.mp4', folder / 'long.wav', folder / 'out.mp4',\n"
        "    model=build_tiny_model(), detector=SeesLight(POINTS), sampler=Sampler(num_steps=1),\n"
        "    choice=Choice(min_size=0), timing=Timing(loop='stop'))\n"
        "print(report.num_frames, report.audio_seconds, report.peak_memory_mib)\n"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    frames, seconds, peak = map(float, done.stdout.split())
    assert (frames, seconds) == (30, 3 * 3600)
    assert peak < 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "a folder with spaces"
    place.mkdir()
    build_tiny_model().save_pretrained(place / "model")
    write_video(place / "face.mp4", [still(index) for index in range(150)], crf=1)
    write_voice(place / "voice.wav", 30.0)
    return place


def started(folder: Path, out: str) -> subprocess.Popen:
    words = ["video=face.mp4", "audio=voice.wav", "ckpt=model", f"out={out}", "faces=fixed", FACES]
    more = ["faces.min_size=0", "sampler=dpmpp", "sampler.num_steps=2", "device=cpu", "cache=false"]
    return subprocess.Popen(
        [sys.executable, str(INFER), *words, *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that starts tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def wait_for_part(process: subprocess.Popen, folder: Path, out: str) -> None:
    place = parts_folder(folder / out)
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if list(place.glob("part-*.json")):
            return
        time.sleep(0.02)
    pytest.fail("it ended, or wrote no part: " + (process.communicate()[0] or ""))


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen]]:
    those: list[subprocess.Popen] = []
    yield those
    for process in those:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_killed_at_once_and_started_again_gives_the_same_file(
    folder: Path, processes: list[subprocess.Popen]
) -> None:
    processes.append(started(folder, "whole.mp4"))
    assert processes[0].wait() == 0
    processes.append(killed := started(folder, "again.mp4"))
    wait_for_part(killed, folder, "again.mp4")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (folder / "again.mp4").exists()
    processes.append(resumed := started(folder, "again.mp4"))
    assert resumed.wait() == 0
    assert "frames are those of an earlier run" in (folder / "again.report.json").read_text()
    for a, b in zip(
        read_frames(folder / "whole.mp4"), read_frames(folder / "again.mp4"), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert not parts_folder(folder / "again.mp4").exists()


def test_an_interrupted_run_leaves_no_half_file_and_no_process(
    folder: Path, processes: list[subprocess.Popen]
) -> None:
    processes.append(run := started(folder, "out.mp4"))
    wait_for_part(run, folder, "out.mp4")
    os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 130
    assert said.count("Traceback") == 0
    assert not list(folder.glob("out*")), "no half file"
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
