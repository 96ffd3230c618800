"""The report: its figures, curves and page."""

import base64
import json
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from latentsync.media.silence import levels_db
from latentsync.pages import clock
from latentsync.pipeline.reporting.curves import Curves, loudness, sync_of
from latentsync.pipeline.reporting.html import build_page, write_page
from latentsync.pipeline.reporting.report import (
    ContactSheet,
    Report,
    ShotReport,
    SkippedSpan,
    plain,
    skipped_spans,
)
from latentsync.runtime import Stopwatch, forget_peak_memory, peak_memory_mib

RATE = 16000
NAN = float("nan")


def make_report(**changes) -> Report:
    told = {
        "video": "face.mp4",
        "audio": "voice.wav",
        "out": "out.mp4",
        "model": "0123456789ab",
        "model_format": {"fps": 25.0},
        "sampler": {"scheduler": "ddim"},
        "seed": 1,
        "reference": "self",
        "crf": 18,
        "source_fps": 25.0,
        "fps": 25.0,
        "num_frames": 100,
        "num_frames_with_face": 75,
        "video_seconds": 4.0,
        "audio_seconds": 4.0,
        "skipped": [SkippedSpan(3.0, 4.0, "no face found")],
        "stage_seconds": {"read": 1.0, "generate": 4.0},
        "total_seconds": 4.5,
        "peak_memory_mib": 512.0,
    }
    return Report(**{**told, **changes})


def make_sheet(num_frames: int = 20) -> ContactSheet:
    sheet = ContactSheet(num_frames)
    rng = np.random.default_rng(0)
    for index in range(num_frames):
        noise = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        frame = cv2.resize(noise[:9, :9], (90, 90))
        sheet.add(index, frame, 255 - frame, seconds=index / 25)
    return sheet


class Reader(HTMLParser):
    """All tags with their attributes, all text, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def paths(self) -> dict[str, str]:
        return {found["class"]: found["d"] for tag, found in self.tags if tag == "path"}


def test_neighbours_left_alone_for_one_reason_are_one_span():
    reasons = ["", "black", "black", "turned away", "", "black"]
    starts = [0.0, 0.1, 0.25, 0.3, 0.5, 0.6]  # a variable rate
    assert skipped_spans(reasons, starts, 0.7) == [
        SkippedSpan(0.1, 0.3, "black"),
        SkippedSpan(0.3, 0.5, "turned away"),
        SkippedSpan(0.6, 0.7, "black"),
    ]
    assert skipped_spans([], [], 0.0) == []


def test_the_report_is_json_that_everybody_reads(tmp_path: Path):
    shot = ShotReport(0, 0.0, 4.0, [1], 100, 75, sync_before=NAN, sync_after=0.5)
    path = tmp_path / "out.report.json"
    make_report(shots=[shot], source_fps=float("inf")).save(path)
    # NaN and Infinity are not valid JSON, though Python writes and reads them.
    told = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert told["shots"][0]["sync_before"] is None
    assert told["shots"][0]["sync_after"] == 0.5
    assert told["source_fps"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["out.report.json"]
    assert plain({1: (1.5, None, "nan", True)}) == {"1": [1.5, None, "nan", True]}


def test_threads_share_a_watch(monkeypatch: pytest.MonkeyPatch):
    stopwatch, begun, over = Stopwatch(), threading.Event(), threading.Event()

    def other() -> None:
        with stopwatch.stage("draw"):
            begun.set()
            over.wait()

    with stopwatch.stage("write"):
        thread = threading.Thread(target=other)
        thread.start()
        begun.wait()
        with stopwatch.stage("read"):
            time.sleep(0.05)
        over.set()
        thread.join()
    # One thread reads and writes while the other generates: each second counts for both.
    own = stopwatch.seconds["read"] + stopwatch.seconds["write"]
    assert 0 < stopwatch.seconds["write"] < stopwatch.seconds["draw"] + stopwatch.seconds["write"]
    assert stopwatch.seconds["read"] >= 0.05
    assert 0.05 <= stopwatch.seconds["draw"] <= own


def test_a_program_started_by_a_big_one_tells_its_own_memory():
    child = "from latentsync.runtime import peak_memory_mib; print(peak_memory_mib())"
    ballast = np.ones(600 << 17)  # 600 MiB
    done = subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE, check=True)
    assert ballast.nbytes == 600 << 20
    assert 10 < float(done.stdout) < 500 < peak_memory_mib()


@pytest.mark.skipif(not forget_peak_memory(), reason="the system cannot forget a peak")
def test_a_peak_can_be_forgotten():
    ballast = np.ones(300 << 17)
    high = peak_memory_mib()
    del ballast
    assert peak_memory_mib() > high - 50
    assert forget_peak_memory()
    assert peak_memory_mib() < high - 200


def test_loudness_is_0_in_silence_and_1_at_the_loudest():
    times = torch.arange(2 * RATE) / RATE
    waveform = torch.sin(2 * torch.pi * 300 * times) * 0.01
    waveform[: RATE // 2] = 0
    waveform[RATE:] *= 10  # 20 dB up
    loud = loudness(levels_db(waveform, RATE), fps=25.0, num_slots=60)
    np.testing.assert_array_equal(loud[:10], 0)
    np.testing.assert_allclose(loud[14:23], 1 - 20 / 50, atol=0.01)
    np.testing.assert_allclose(loud[27:48], 1, atol=0.01)
    np.testing.assert_array_equal(loud[50:], 0)
    assert not loudness(levels_db(torch.zeros(RATE), RATE), fps=25.0, num_slots=25).any()
    assert not loudness(levels_db(torch.zeros(0), RATE), fps=25.0, num_slots=3).any()


def test_sync_is_1_for_a_mouth_that_follows_even_a_little_late():
    loud = np.random.default_rng(0).random(200)
    late = 0.1 + 2 * np.roll(loud, 3)
    late[:3] = NAN
    late[50:60] = NAN
    assert sync_of(late, loud, fps=25.0) == pytest.approx(1.0)
    assert sync_of(-loud, loud, fps=25.0) < 0.3
    far = np.roll(loud, 12)
    assert abs(sync_of(far, loud, fps=25.0)) < 0.3
    assert sync_of(np.full(200, NAN), loud, fps=25.0) is None
    assert sync_of(np.ones(200), loud, fps=25.0) is None
    assert sync_of(loud[:8], loud[:8], fps=25.0) is None


def test_the_sheet_keeps_eight_columns_in_order_whatever_order_they_come_in():
    sheet = ContactSheet(15)
    for index in reversed(range(15)):
        square = np.full((40, 40, 3), index, dtype=np.uint8)
        sheet.add(index, square, square + 100, seconds=index / 10)
    shown = range(0, 15, 2)
    assert sheet.seconds == [index / 10 for index in shown]
    assert [(cell[0, 0, 0], cell[-1, 0, 0]) for cell in sheet.cells] == [
        (index, index + 100) for index in shown
    ]
    picture = cv2.imdecode(np.frombuffer(sheet.jpeg(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (384, 8 * 192, 3)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0:00.00"), (59.999, "1:00.00"), (61.25, "1:01.25"), (3725.5, "1:02:05.50")],
)
def test_a_clock(seconds: float, told: str):
    assert clock(seconds) == told


def test_the_page_stands_alone_and_says_what_was_done(tmp_path: Path):
    loud = np.linspace(0, 1, 100)
    curves = Curves(25.0, loud, np.full(100, 0.2), np.where(loud > 0.5, NAN, loud))
    shots = [
        ShotReport(0, 0.0, 3.0, [0, 2], 75, 75, sync_before=0.111, sync_after=0.777),
        ShotReport(1, 3.0, 4.0, [], 25, 0),
    ]
    report = make_report(shots=shots, damage=["12.3 s: unreadable"], notes=["<b>careful</b>"])
    path = tmp_path / "out.report.html"
    write_page(path, report, sheet=make_sheet(), curves=curves)
    read = Reader(path.read_text())
    assert read.open == []
    said = " ".join(read.text)
    for words in (
        "75 of 100 frames",
        "no face found",
        "0.11",
        "0.78",
        "0, 2",
        "12.3 s: unreadable",
        "<b>careful</b>",
        "generate",
        "4.50 s",
        "0.50 GiB",
        "voice.wav",
    ):
        assert words in said
    # Nothing is fetched: no URLs, no scripts.
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe")
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?:", path.read_text())
    (image,) = [attributes["src"] for tag, attributes in read.tags if tag == "img"]
    coded = np.frombuffer(base64.b64decode(image.split(",")[1]), np.uint8)
    assert cv2.imdecode(coded, cv2.IMREAD_COLOR).shape == (384, 8 * 192, 3)
    bands = [(found["class"], float(found["width"])) for tag, found in read.tags if tag == "rect"]
    assert bands == [("drawn", 899.0), ("alone", 299.0)]


def corners(path: str) -> np.ndarray:
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[MLZ]", path) if pair])


def test_the_curves_are_drawn_where_the_values_are():
    loud = np.array([0.0, 1.0, 0.5, 0.0])
    mouth = np.array([0.3, NAN, 0.15, 0.6])
    paths = Reader(build_page(make_report(), curves=Curves(2.0, loud, mouth, mouth / 2))).paths()
    assert paths["before"].count("M") == 2
    x, y = corners(paths["before"]).T
    np.testing.assert_allclose(x / 1200 * 4, [0.5, 2.5, 3.5], atol=1e-3)
    height = y[2] - y  # the widest mouth is the top
    np.testing.assert_allclose(height / (y[1] - y[2]), [-2 / 3, -1, 0], atol=1e-2)
    area = corners(paths["voice"])
    assert area[2, 1] == y[2] and area[0, 1] == area[-1, 1] == area[1, 1]
    # The SVG is well-formed on its own.
    ET.fromstring(
        re.search(
            "<svg.*</svg>",
            build_page(make_report(), curves=Curves(2.0, loud, mouth, mouth)),
            re.DOTALL,
        ).group()
    )


def test_without_mouths_there_is_the_voice_alone():
    nothing = np.full(4, NAN)
    page = build_page(make_report(), curves=Curves(25.0, np.ones(4), nothing, nothing))
    assert list(Reader(page).paths()) == ["voice"]
    assert "mouth in the source" not in page
    empty = np.zeros(0)
    assert "<svg" in build_page(make_report(), curves=Curves(25.0, empty, empty, empty))
    assert "<svg" not in build_page(make_report())


def test_three_hours_make_no_bigger_page():
    num = 3 * 3600 * 25
    rng = np.random.default_rng(0)
    values = rng.random(num)
    shots = [ShotReport(index, index, index + 1, [0], 25, 25) for index in range(10_000)]
    spans = [SkippedSpan(index, index + 0.5, "black") for index in range(10_000)]
    page = build_page(
        make_report(shots=shots, skipped=spans, notes=["n"] * 5000),
        sheet=make_sheet(),
        curves=Curves(25.0, values, values, values),
    )
    assert len(page) < 400_000
    assert page.count("and 9700 more") == 2
    # A mean of neighbours, not a single value.
    middle = corners(Reader(page).paths()["after"])[:, 1]
    assert middle.std() < 10
