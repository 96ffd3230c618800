"""The page of a prepared set: seconds stage by stage, histograms, pictures, and what it holds."""

import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from latentsync.data import Clip
from latentsync.prepare import Dropped, Limit, Outcome, filter_clips, prepare_clips
from latentsync.prepare.limits import within
from latentsync.prepare.reporting.funnel import kind_of, steps_of
from latentsync.prepare.reporting.histograms import histogram, histograms_of
from latentsync.prepare.reporting.page import Prepared, build_page, spread
from latentsync.prepare.reporting.wall import Looks, outline
from latentsync.prepare.stage import Source

STAGES = {"stages": ["probe", "segment", "align", "write"]}


def clip(name: str, start: int, num_frames: int, **measures) -> Clip:
    path = Path("/set/clips") / f"{name}.mp4"
    features = Path("/set/features") / f"{name}.safetensors"
    return Clip(path, features, None, num_frames, "/raw/a.mp4", start, 64, 25.0, measures=measures)


def outcome(name: str, clips: list[Clip], dropped: list[Dropped], seconds: float) -> Outcome:
    return Outcome(Source(Path("/raw") / name, name, name, Path("/set")), clips, dropped, seconds)


@pytest.fixture
def outcomes() -> list[Outcome]:
    """Ten seconds: 1 lost in segment, 3 in align, two clips of 2 and 4 s. And a text."""
    parts = [
        Dropped("a.mp4", "segment", "a shot of 25 frames, 50 are needed", 0, 0.0, 1.0),
        Dropped("a.mp4", "align", "no face in any of 75 frames", 25, 1.0, 4.0),
    ]
    clips = [clip("a_000", 100, 50, level=-20.0), clip("a_001", 150, 100, level=-70.0)]
    text = Outcome(Source(Path("/raw/b.txt"), "b.txt", "b", Path("/set")))
    text.dropped.append(Dropped("b.txt", "probe", "it is no video"))
    return [outcome("a.mp4", clips, parts, 10.0), text]


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path / "looks.json")


def test_what_leaves_a_stage_enters_the_next_and_the_rest_was_dropped_there(outcomes) -> None:
    limited = within(outcomes, {"level": Limit(min=-60, stage="sound")})
    steps = steps_of(limited, STAGES["stages"])
    assert [(step.stage, step.seconds_in, step.seconds_out) for step in steps] == [
        ("probe", 10.0, 10.0),
        ("segment", 10.0, 9.0),
        ("align", 9.0, 6.0),
        ("sound", 6.0, 2.0),
    ]


def test_seconds_with_two_people_count_once(outcomes) -> None:
    twice = replace(outcomes[0], clips=[*outcomes[0].clips, clip("a_002", 100, 50)])
    assert steps_of([twice], STAGES["stages"])[-1].seconds_out == 6.0


def test_reasons_that_differ_in_numbers_and_clips_are_one() -> None:
    assert (
        kind_of("level is -70, -60 is the least (clips/a-1f_001.mp4)")
        == kind_of("level is -70.25, -60 is the least (clips/b_000.mp4)")
        == "level is #, # is the least"
    )
    assert kind_of("it is H264 at 25 fps") == "it is H264 at # fps"


def test_a_histogram_counts_every_clip_once_and_shows_near_limits() -> None:
    values = np.array([*np.arange(10.0), np.nan])
    kept = np.array([True] * 6 + [False] * 5)
    shown = histogram("yaw", values, kept, Limit(max=5.5))
    counts = [re.findall(r"(\d+) kept, (\d+) dropped", bar.title)[0] for bar in shown.bars]
    assert sum(int(number) for number, _ in counts) == 6
    assert sum(int(number) for _, number in counts) == 4
    (x, title), = shown.lines  # fmt: skip
    assert title == "most 5.5"
    assert x == pytest.approx(8 + 304 * 5.5 / 9, abs=0.01)
    assert "1 not measured" in shown.note
    far = histogram("yaw", values, kept, Limit(max=1000))
    assert not far.lines
    assert "limit: at most 1000" in far.note


def test_a_measure_of_equal_values_or_of_none_at_all_is_shown() -> None:
    clips = [clip("a", 0, 50, level=-20.0, offset=None), clip("b", 0, 50, level=-20.0, offset=None)]
    shown = histograms_of(clips, frozenset({"a"}), {})
    assert [chart.name for chart in shown] == ["seconds", "level"]
    assert len(shown[1].bars) == 1


def test_the_outline_of_a_level_is_full_at_0_db_and_flat_in_silence() -> None:
    assert set(re.findall(r"L[\d.]+ ([\d.]+)", outline(np.zeros(500)))) == {"0.0", "24"}
    assert set(re.findall(r"L[\d.]+ ([\d.]+)", outline(np.full(500, -120.0)))) == {"24.0", "24"}


def test_spread_takes_all_or_evenly() -> None:
    assert spread([1, 2], 5) == [1, 2]
    assert spread(list(range(100)), 4) == [0, 25, 50, 75]


class Page(HTMLParser):
    """Collects the addresses and the images of a page; no tag may stay open."""

    VOID = frozenset(("meta", "img", "br", "rect", "line", "path"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_of_a_set_shows_clips_and_what_was_dropped(spoiled_dir, recipe, tmp_path) -> None:
    prepare_clips(spoiled_dir, tmp_path / "set", stages=recipe.stages())
    text = (tmp_path / "set" / "report.html").read_text()
    page = Page(text)
    assert not page.open
    # good.mp4, black.mp4 and cut_off.mp4 can be shown; whatever is shown is in the page itself.
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "good.mp4, 0.00 to 2.40 s" in text
    assert "it has no audio stream" in text
    work = re.findall(r"<td>good.mp4</td><td>0:02.40</td><td>0:(\d\d\.\d\d)</td>", text)
    assert len(work) == 1
    assert float(work[0]) > 0


def test_a_page_with_other_limits_reads_no_video_again(spoiled_dir, recipe, tmp_path) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("good.mp4", "black.mp4"):
        shutil.copy(spoiled_dir / name, tmp_path / "raw")
    prepare_clips(tmp_path / "raw", tmp_path / "set", stages=recipe.stages())
    page = tmp_path / "set" / "report.html"
    before = page.read_text()
    path = next((tmp_path / "set" / "clips").iterdir())
    # A file of the same size and time that is no video: only what was kept can be shown.
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    filter_clips(tmp_path / "set", {})
    assert page.read_text().count("data:image") == before.count("data:image") > 0
    path.write_bytes(b"")
    filter_clips(tmp_path / "set", {})
    assert page.read_text().count("data:image") == before.count("data:image") - 1


def test_names_in_the_page_are_text(outcomes, looks) -> None:
    name = "<script>alert(1)</script>.mp4"
    odd = replace(outcomes[0], source=replace(outcomes[0].source, name=name), clips=[])
    odd = replace(odd, dropped=[replace(part, source=name) for part in odd.dropped])
    text = build_page(Prepared([odd], [odd], {}, STAGES), "<b>", looks)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text.replace("<b>", "", text.count("</b>"))


def test_people_and_splits_are_listed_where_they_are_known(outcomes, looks) -> None:
    plain = build_page(Prepared(outcomes, outcomes, {}, STAGES), "set", looks)
    assert "People of a file" not in plain
    assert "Splits" not in plain
    people = [
        clip("a_000", 0, 50, person=0, split="train"),
        clip("a_001", 50, 25, person=1, split="train"),
        clip("a_002", 75, 25, person=0, split="val"),
    ]
    known = [replace(outcomes[0], clips=people)]
    text = build_page(Prepared(known, known, {}, STAGES), "set", looks)
    assert "<td>a.mp4</td><td>2</td><td>0: 0:03.00, 1: 0:01.00</td>" in text
    assert "<td>train</td><td>2</td><td>1</td><td>0:03.00</td>" in text
    assert "<td>val</td><td>1</td><td>1</td><td>0:01.00</td>" in text


def test_an_empty_set_has_a_page(looks) -> None:
    text = build_page(Prepared([], [], {}, {}), "set", looks)
    assert "0 of 0" in text
