import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media import frame_reader
from latentsync.media.container import Damage
from latentsync.media.frame_reader import FrameReader, build_timeline, read_times, stored_frames
from latentsync.media.video import probe, read_frames
from latentsync.media.writer import VideoWriter
from media.sources import SIZE, blank_group, index_of, shade, shades, tone, write_media

RATES = [
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
]
NUM_FRAMES = 60


def quiet(stream: av.VideoStream) -> None:
    if "265" in stream.codec_context.name or stream.codec_context.name == "hevc":
        stream.options = {"x265-params": "log-level=none"}


def uneven(index: int) -> Fraction:
    """30 fps with the jitter of phones: 20 to 50 ms per frame."""
    return index * Fraction(33, 1000) + Fraction((index * 7) % 13, 1000)


def as_read_frames(path: Path) -> list[np.ndarray]:
    return list(read_frames(path))


@pytest.mark.parametrize("fps", RATES)
def test_steady_times(tmp_path: Path, fps: Fraction) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=fps, width=SIZE, height=SIZE) as writer:
        for frame in shades(NUM_FRAMES):
            writer.write(frame)
    times = read_times(path)
    assert [tick * times.time_base for tick in times.starts.tolist()] == [
        index / fps for index in range(NUM_FRAMES)
    ]
    assert times.end * times.time_base == NUM_FRAMES / fps
    assert times.time_base == probe(path).time_base


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv422p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "libx265", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
    ],
)
def test_stored_frames_are_those_of_read_frames_at_their_own_times(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    path = write_media(
        tmp_path / name,
        shades(NUM_FRAMES),
        times=uneven,
        codec=codec,
        pixel_format=pixel_format,
        prepare=quiet,
    )
    base = probe(path).time_base
    stored = list(stored_frames(path))
    for index, (start, duration, frame) in enumerate(stored):
        assert abs(start * base - (uneven(index) - uneven(0))) <= base / 2
        assert index_of(frame) == index
        if index + 1 < len(stored):
            assert start + duration == stored[index + 1][0]
    for (_, _, frame), expected in zip(stored, read_frames(path), strict=True):
        np.testing.assert_array_equal(frame, expected)


ORDERS: dict[str, Callable[[int], list[int]]] = {
    "forwards": lambda n: list(range(n)),
    "backwards": lambda n: list(range(n - 1, -1, -1)),
    "to and fro": lambda n: [*range(n), *range(n - 1, -1, -1), *range(n)],
    "again": lambda n: [*range(n), *range(n)],
    "held": lambda n: [0, 0, 5, 5, 5, n - 1, n - 1],
    "every third": lambda n: list(range(0, n, 3)),
    "anyhow": lambda n: [30, 31, 2, n - 1, 0, 45, 44, 44, 43, 20, 21, 20, 19],
}


@pytest.fixture(scope="module", params=["a.mp4", "b.ts", "intra.mp4", "open.mp4", "rotated.mp4"])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FrameReader, list[np.ndarray]]:
    """3 s of 30 fps, variable, as read by `read_frames`; key frames every 25 frames, or open GOPs
    only."""

    def prepare(stream: av.VideoStream) -> None:
        options = {"g": "25"}
        if request.param == "intra.mp4":
            options["intra-refresh"] = "1"
        if request.param == "open.mp4":
            options["x264-params"] = "open-gop=1"
        stream.options = options
        if request.param == "rotated.mp4":
            stream.set_display_rotation(90)

    path = tmp_path_factory.mktemp("source") / request.param
    write_media(path, shades(90), times=uneven, prepare=prepare)
    return FrameReader(path, read_times(path)), list(read_frames(path))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("piece", [1 << 30, 40_000])
def test_any_order_gives_the_frames_of_read_frames(
    source: tuple[FrameReader, list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    piece: int,
) -> None:
    # Jumps of more than half a second seek here, and a reversed piece has 6 frames.
    monkeypatch.setattr(frame_reader, "JUMP_SECONDS", 0.5)
    monkeypatch.setattr(frame_reader, "SEEK_MARGIN_SECONDS", Fraction(1, 5))
    monkeypatch.setattr(frame_reader, "REVERSED_BYTES", piece)
    reader, expected = source
    numbers = ORDERS[order](len(expected))
    for number, frame in zip(numbers, reader.read(numbers), strict=True):
        np.testing.assert_array_equal(frame, expected[number])


def test_a_jump_does_not_decode_what_lies_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_media(
        tmp_path / "a.mp4",
        (shade(index % 256) for index in range(1000)),
        prepare=lambda stream: setattr(stream, "options", {"g": "25"}),
    )
    times = read_times(path)
    seen: list[int] = []
    ticked = frame_reader._ticked

    def counted(*arguments, **options):
        for item in ticked(*arguments, **options):
            seen.append(item[0])
            yield item

    monkeypatch.setattr(frame_reader, "_ticked", counted)
    frames = list(FrameReader(path, times).read([0, 900]))
    assert [index_of(frame) for frame in frames] == [0, 900 % 256]
    assert len(seen) < 100


def test_numbers_are_taken_as_they_are_needed(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(20))
    taken: list[int] = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    frames = FrameReader(path, read_times(path)).read(numbers())
    for count in range(1, 6):
        next(frames)
        assert len(taken) <= count + 1
    frames.close()


def test_only_a_piece_is_held_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", shades(90))
    monkeypatch.setattr(frame_reader, "REVERSED_BYTES", 10 * SIZE * SIZE * 3 // 2)
    decoded: list[int] = []
    at = frame_reader._Cursor.at

    def watched(cursor, number):
        decoded.append(number)
        return at(cursor, number)

    monkeypatch.setattr(frame_reader._Cursor, "at", watched)
    alive: list[weakref.ref[np.ndarray]] = []
    for frame in FrameReader(path, read_times(path)).read([89, *range(89, -1, -1)]):
        alive.append(weakref.ref(frame))
        assert sum(reference() is not None for reference in alive) <= 2
        assert len(decoded) - len(alive) <= 10
    assert len(alive) == 91


def test_what_is_done_to_a_repeated_frame_does_not_reach_the_next(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(4))
    indices = []
    for frame in FrameReader(path, read_times(path)).read([1, 1, 3, 2, 2, 1]):
        indices.append(index_of(frame))
        frame[:] = 255
    assert indices == [1, 1, 3, 2, 2, 1]


def test_a_number_that_the_video_lacks(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(4))
    reader = FrameReader(path, read_times(path))
    for number in (4, -1):
        with pytest.raises(ValueError, match=rf"a\.mp4 has frames 0 to 3, got {number}"):
            list(reader.read([1, number]))


@pytest.mark.parametrize("late", [-40, 0, 40])
def test_the_first_frame_is_shown_from_0(tmp_path: Path, late: int) -> None:
    path = write_media(
        tmp_path / "a.mkv",
        shades(10),
        times=lambda i: Fraction(i + 50 + late, 25),
        sound=tone(3, 48000),
        sound_starts=2,
    )
    times = read_times(path)
    assert (times.starts * times.time_base * 25).tolist() == list(range(10))


def test_a_broadcast_joined_in_the_middle_starts_with_its_first_whole_picture(
    tmp_path: Path,
) -> None:
    whole = write_media(
        tmp_path / "whole.ts",
        shades(60),
        prepare=lambda stream: setattr(
            stream, "options", {"g": "20", "bf": "0", "sc_threshold": "0"}
        ),
        sound=tone(2.4, 48_000),
    )
    data = whole.read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(data[len(data) // 6 // 188 * 188 :])
    damage: list[Damage] = []
    times = read_times(path, on_damage=damage.append)
    frames = [index_of(f) for f in FrameReader(path, times).read(range(len(times)))]
    assert frames == list(range(20, 60))
    # Shown from the start, so that sound and picture stay in sync.
    assert times.starts[0] == 0
    assert times.starts[1] * times.time_base > Fraction(1, 20)


def test_times_that_jump_back_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings concatenated."""
    monkeypatch.setattr(frame_reader, "JUMP_SECONDS", 0.1)
    monkeypatch.setattr(frame_reader, "SEEK_MARGIN_SECONDS", Fraction(1, 5))
    parts = [write_media(tmp_path / f"{number}.ts", shades(20)) for number in range(2)]
    path = tmp_path / "glued.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    times = read_times(path)
    frames = [index_of(frame) for _, _, frame in stored_frames(path)]
    # The joint costs the first one its last packet and the frames that depend on it.
    assert frames[:16] == list(range(16))
    assert frames[-20:] == list(range(20))
    assert np.diff(times.starts * float(times.time_base))[-20:] == pytest.approx(1 / 25)
    assert times.seconds == pytest.approx(1.6)
    for order in ORDERS.values():
        numbers = [number for number in order(len(times)) if number < len(times)]
        pictures = FrameReader(path, times).read(numbers)
        assert [index_of(frame) for frame in pictures] == [frames[number] for number in numbers]


@pytest.fixture
def noisy(tmp_path: Path, rng: np.random.Generator) -> Path:
    """4 s, with the index at the front of the file and a large packet for every frame."""
    path = tmp_path / "whole.mp4"
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, keyframe_interval=10) as writer:
        for frame in shades(100):
            frame[:32] = rng.integers(0, 255, (32, SIZE, 3))
            writer.write(frame)
    return path


def bottom(frame: np.ndarray) -> int:
    return index_of(frame[48:])


def test_a_damaged_middle_is_told_with_its_place(
    noisy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = blank_group(noisy, 4)
    damage: list[Damage] = []
    frames = {
        start: bottom(frame) for start, _, frame in stored_frames(noisy, on_damage=damage.append)
    }
    base = probe(noisy).time_base
    assert sorted(frames.values()) == [*range(first), *range(last, 100)]
    assert all(start * base * 25 == index for start, index in frames.items())
    [told] = damage
    assert (told.start_seconds, told.end_seconds) == pytest.approx((first / 25, last / 25))
    # The timeline keeps its length: the last good picture is held.
    times = read_times(noisy, on_damage=damage.append)
    assert times.seconds == pytest.approx(4)
    timeline = build_timeline(times, seconds=1)
    shown = [bottom(frame) for frame in FrameReader(noisy, times).read(timeline.numbers.tolist())]
    assert shown == [*range(first), *[first - 1] * (last - first), *range(last, 100)]
    monkeypatch.setattr(frame_reader, "JUMP_SECONDS", 0.1)
    jumped = FrameReader(noisy, times).read([0, first - 1, first, first - 1, 0, first])
    assert [bottom(frame) for frame in jumped] == [0, first - 1, last, first - 1, 0, last]


def test_a_cut_file_gives_its_good_part_and_tells_where_it_ends(noisy: Path) -> None:
    noisy.write_bytes(noisy.read_bytes()[: int(noisy.stat().st_size * 0.6)])
    damage: list[Damage] = []
    times = read_times(noisy, on_damage=damage.append)
    assert 45 <= len(times) <= 65
    [spot] = damage
    assert spot.end_seconds is None
    assert spot.start_seconds == pytest.approx(times.seconds)
    good = [bottom(frame) for frame in FrameReader(noisy, times).read(range(len(times)))]
    assert good[:-3] == list(range(len(good) - 3))


def test_a_picture_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    parts = []
    for side in (64, 128):
        picture = np.full((side, side, 3), side, np.uint8)
        parts.append(write_media(tmp_path / f"{side}.ts", [picture] * 5))
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = [frame for _, _, frame in stored_frames(path)]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 9
    assert [round(frame.mean(), -1) for frame in frames] == [60] * 4 + [130] * 5
