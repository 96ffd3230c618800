"""300 broken files: each is processed or rejected in one line, within a minute, leaving nothing
behind."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from media.sources import write_media
from pipeline.inputs import picture, write_voice

TESTS = Path(__file__).parents[1]
NUM_CUTS, NUM_FLIPS = 40, 60
NUM_FRAMES = 20
PROCESSES = 2
LONGEST_LINE = 500
RESULTS = {"out.mp4", "out.report.json", "out.report.html", "out.report.png", "out.report.jpg"}


@pytest.mark.slow
def test_broken_files_come_out_or_are_refused_in_a_line(tmp_path: Path) -> None:
    cases = broken(tmp_path)
    assert len(cases) >= 300
    results = run(cases, tmp_path)
    logging.getLogger(__name__).info("%s", Counter(told["end"] for told in results.values()))
    bad = {name: told for name, told in results.items() if not clean(told)}
    assert bad == {}
    assert len(results) == len(cases)


def clean(told: dict) -> bool:
    if told["end"] == "done":
        return "out.mp4" in told["left"] and set(told["left"]) <= RESULTS
    one_line = "\n" not in told.get("line", "\n") and len(told["line"]) <= LONGEST_LINE
    return told["end"] == "refused" and one_line and told["left"] == []


def run(cases: list[dict], folder: Path) -> dict[str, dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), environment.get("PYTHONPATH", "")])
    shares = [cases[start::PROCESSES] for start in range(PROCESSES)]
    started, written = [], []
    for index, share in enumerate(shares):
        asked, answered = folder / f"cases{index}.json", folder / f"results{index}.json"
        asked.write_text(json.dumps(share))
        command = [sys.executable, TESTS / "pipeline" / "broken_runs.py", asked, answered]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        written.append(answered)
    assert [process.wait() for process in started] == [0] * PROCESSES
    return {name: told for path in written for name, told in json.loads(path.read_text()).items()}


def broken(folder: Path) -> list[dict]:
    """The cases, whose files are in `folder`; each gets an empty folder for its results."""
    good_video, good_voice = sound_files(folder / "good")
    cases = []

    def add(name: str, *, video: Path = good_video, audio: Path = good_voice) -> None:
        place = folder / "out" / f"{len(cases):03d}"
        place.mkdir(parents=True)
        files = {"video": str(video), "audio": str(audio), "folder": str(place)}
        cases.append({"name": name, **files})

    rng = np.random.default_rng(0)
    for source, part in (
        (good_video, "video"),
        (folder / "good" / "in.webm", "video"),
        (folder / "good" / "voice.mp3", "audio"),
    ):
        for kind, spoiled in spoilt(source, folder / "spoilt", rng):
            add(f"{source.name} {kind}", **{part: spoiled})
    for name, (part, path) in special(folder / "special", good_video, good_voice).items():
        add(name, **{part: path})
    return cases


def sound_files(folder: Path) -> tuple[Path, Path]:
    """A valid short mp4 and webm with sound, an mp3 and a wav."""
    folder.mkdir()
    frames = [picture(index) for index in range(NUM_FRAMES)]
    voice = write_voice(folder / "voice.wav", NUM_FRAMES / 25)
    silent = {
        "in.mp4": write_media(folder / "silent.mp4", frames, codec="libx264"),
        "in.webm": write_media(folder / "silent.webm", frames, codec="libvpx-vp9"),
    }
    for name, video in silent.items():
        with_sound(video, voice, folder / name, "aac" if name.endswith("mp4") else "libopus")
    with_sound(None, voice, folder / "voice.mp3", "libmp3lame")
    return folder / "in.mp4", voice


def with_sound(video: Path | None, voice: Path, path: Path, codec: str) -> None:
    """The packets of a video and the encoded sound of a wav in one file."""
    with av.open(str(path), "w") as target, av.open(str(voice)) as sound:
        heard = target.add_stream(codec, rate=48_000)
        if video is not None:
            with av.open(str(video)) as source:
                shown = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.stream = shown
                        target.mux(packet)
        for frame in sound.decode(audio=0):
            target.mux(heard.encode(frame))
        target.mux(heard.encode(None))


def spoilt(source: Path, folder: Path, rng: np.random.Generator):
    """Copies of a file, truncated at many positions or with single bytes flipped."""
    folder.mkdir(exist_ok=True)
    whole = source.read_bytes()
    for index in range(NUM_CUTS):
        # From a few bytes to all but one; every second one in the header, where the structure is.
        size = min(len(whole), 2000) if index % 2 else len(whole)
        end = 1 + (size - 2) * index // NUM_CUTS
        path = folder / f"cut{index}-{source.name}"
        path.write_bytes(whole[:end])
        yield f"cut {end}", path
    for index in range(NUM_FLIPS):
        size = min(len(whole), 2000) if index % 2 else len(whole)
        place, bits = int(rng.integers(size)), int(rng.integers(1, 256))
        turned = bytearray(whole)
        turned[place] ^= bits
        path = folder / f"flip{index}-{source.name}"
        path.write_bytes(turned)
        yield f"flip {place} {bits}", path


def special(folder: Path, video: Path, voice: Path) -> dict[str, tuple[str, Path]]:
    """Files that are not media, or unusual ones: name => the part it replaces, and its path."""
    folder.mkdir()
    made = {
        "nothing.bin": b"",
        "text.txt": b"Neither sound nor picture.\n" * 40,
        "zeros.mp4": bytes(5000),
        "riff.wav": b"RIFF",
        "html.mp4": b"<!doctype html><p>404",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "nowhere.mp4").symlink_to(folder / "not there")
    (folder / "folder.mp4").mkdir()
    shutil.copy(video, folder / "closed.mp4")
    time = np.arange(16_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time)
    sounds = {
        "nan.wav": float_wav(np.full((16_000, 1), np.nan)),
        "huge.wav": float_wav((tone * 1e38)[:, None]),
        "loud.wav": float_wav((tone * 2**31)[:, None]),
        "channels300.wav": float_wav(np.repeat(tone[:, None], 300, axis=1)),
        "rate1.wav": float_wav(tone[:2, None], rate=1),
        "rate_max.wav": float_wav(tone[:, None], rate=2**31 - 1),
        "rate0.wav": float_wav(tone[:, None], rate=0),
        "channels0.wav": float_wav(np.empty((0, 0))),
        "piped.wav": float_wav(tone[:, None], size=0xFFFFFFFF),
        "one_sample.wav": float_wav(tone[:1, None]),
        "no_sample.wav": float_wav(tone[:0, None]),
    }
    pictures = {
        "wide.y4m": y4m(65535, 65535, "25:1"),
        "wide_and_flat.y4m": y4m(65535, 2, "25:1", frames=2),
        "none_a_second.y4m": y4m(128, 112, "0:0", frames=20),
        "million_a_second.y4m": y4m(128, 112, "1000000:1", frames=20),
        "slow.y4m": y4m(128, 112, "1:100", frames=3),
        "no_frame.y4m": y4m(128, 112, "25:1"),
        "small.y4m": y4m(1, 1, "25:1", frames=20),
    }
    for name, content in {**sounds, **pictures}.items():
        (folder / name).write_bytes(content)
    parts = {}
    for path in sorted(folder.iterdir()):
        if path.name not in sounds:
            parts[f"video {path.name}"] = ("video", path)
        if path.name not in pictures:
            parts[f"voice {path.name}"] = ("audio", path)
    return parts


def float_wav(samples: np.ndarray, *, rate: int = 16_000, size: int | None = None) -> bytes:
    """A wav of float32, regardless of what its header says."""
    data = samples.astype("<f4").tobytes()
    channels = samples.shape[1]
    width = 4 * channels
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size or 36 + len(data), b"WAVE", b"fmt ", 16, 3, channels,
        rate, rate * width & 0xFFFFFFFF, width, 32, b"data", size or len(data),
    )  # fmt: skip
    return head + data


def y4m(width: int, height: int, rate: str, *, frames: int = 0) -> bytes:
    """A raw 4:2:0 video of `frames` frames."""
    head = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\n".encode()
    size = width * height + 2 * (-(-width // 2) * -(-height // 2))
    return head + (b"FRAME\n" + bytes([128]) * size) * frames
