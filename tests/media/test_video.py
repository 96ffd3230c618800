import gc
import logging
import weakref
from fractions import Fraction
from math import floor
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.video import VideoWriter, open_clip, probe, read_frames
from media.sources import (
    SIZE,
    blank_packet,
    filter_fps,
    index_of,
    shade,
    shades,
    tone,
    write_media,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(height: int = 64, width: int = 96) -> np.ndarray:
    """Red, green over blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def read_indices(path: Path, **options: float) -> list[int]:
    return [index_of(frame) for frame in read_frames(path, **options)]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "libx265", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
    ],
)
def test_every_frame_in_order(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    def quiet(stream: av.VideoStream) -> None:
        if codec == "mpeg4":
            stream.codec_context.time_base = Fraction(1, 25)
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}

    path = write_media(
        tmp_path / name, shades(30), codec=codec, pixel_format=pixel_format, prepare=quiet
    )
    assert read_indices(path) == list(range(30))
    assert probe(path).codec in {codec.removeprefix("lib"), "h264", "hevc", "prores", "vp9"}


@pytest.mark.parametrize(
    ("rate", "num_frames", "fps", "expected"),
    [(24, 96, 25, 100), (30, 90, 25, 75), (60, 90, 25, 38), (25, 50, 25, 50), (25, 50, 50, 100)],
)
def test_a_time_grid_keeps_the_duration(
    tmp_path: Path, rate: int, num_frames: int, fps: int, expected: int
) -> None:
    frames = [shade(index) for index in range(num_frames)]
    path = write_media(
        tmp_path / "a.mkv", frames, times=lambda index: Fraction(index, rate), codec="ffv1",
        pixel_format="yuv444p",
    )  # fmt: skip
    indices = read_indices(path, fps=fps)
    assert len(indices) == pytest.approx(expected, abs=1)
    # Each slot shows what was on screen at that time, within half a slot.
    for slot, index in enumerate(indices):
        assert abs(index / rate - slot / fps) <= 0.5 / fps + 1 / rate


@pytest.mark.parametrize(("rate", "fps"), [(24, 25), (30, 25), (60, 25), (15, 25), (25, 30)])
def test_the_grid_is_the_one_of_libavs_fps_filter(tmp_path: Path, rate: int, fps: int) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=rate, width=SIZE, height=SIZE) as writer:
        for frame in shades(60):
            writer.write(frame)
    indices = read_indices(path, fps=fps)
    assert len(indices) == floor(60 * fps / rate + 0.5)
    assert indices == filter_fps(path, fps)


def test_variable_frame_rate_is_shown_at_its_own_times(tmp_path: Path) -> None:
    times = [0, 0.04, 0.2, 0.21, 0.22, 0.6, 1.0]
    path = write_media(
        tmp_path / "a.mkv",
        shades(7),
        times=lambda index: Fraction(times[index]).limit_denominator(1000),
        codec="ffv1",
        pixel_format="yuv444p",
    )
    indices = read_indices(path, fps=25)
    expected = [max(i for i, time in enumerate(times) if round(time * 25) <= s) for s in range(26)]
    assert indices[:26] == expected
    assert read_indices(path) == list(range(7))


def test_a_late_first_frame_is_frame_0(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "a.mkv", shades(10), times=lambda i: Fraction(i + 40, 25), sound=tone(3, 48000)
    )
    assert read_indices(path, fps=25) == list(range(10))


@pytest.mark.parametrize("fps", [None, 25])
@pytest.mark.parametrize("start", [0, 1, 26, 63, 99])
def test_reading_from_the_middle(tmp_path: Path, fps: int | None, start: int) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE) as writer:
        for frame in shades(100):
            writer.write(frame)
    wanted = list(range(start, min(start + 12, 100)))
    assert read_indices(path, fps=fps, start_seconds=start / 25, num_frames=12) == wanted


# Displayed pictures according to FFmpeg's convention: the angle turns the stored picture
# counter-clockwise, flips are applied afterwards.
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [None, "hflip", "vflip"])
def test_rotation_is_applied(tmp_path: Path, degrees: int, flip: str | None) -> None:
    path = write_media(
        tmp_path / "phone.mp4",
        [corners()] * 3,
        prepare=lambda stream: stream.set_display_rotation(
            degrees, **({flip: True} if flip else {})
        ),
    )
    expected = np.rot90(corners(), degrees // 90)
    if flip is not None:
        expected = expected[:, ::-1] if flip == "hflip" else expected[::-1]
    frame = next(read_frames(path))
    assert frame.shape == expected.shape
    assert frame.flags.c_contiguous
    for y, x in [(10, 10), (10, -10), (-10, 10), (-10, -10)]:
        assert np.abs(frame[y, x].astype(int) - expected[y, x]).max() <= 12
    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    if flip is None:
        assert info.rotation == -degrees % 360


WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def store(picture: np.ndarray, matrix: int, *, depth: int, full: bool) -> list[np.ndarray]:
    """Y, Cb, Cr as defined in BT.601, 709, 2020."""
    red, blue = WEIGHTS[matrix]
    rgb = picture / 255
    y = rgb @ [red, 1 - red - blue, blue]
    cb, cr = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    scale = 2 ** (depth - 8)
    if full:
        return [
            y * (256 * scale - 1),
            cb * 255 * scale + 128 * scale,
            cr * 255 * scale + 128 * scale,
        ]
    return [scale * (16 + 219 * y), scale * (128 + 224 * cb), scale * (128 + 224 * cr)]


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize(
    ("codec", "pixel_format", "full"),
    [("ffv1", "yuv420p", False), ("ffv1", "yuv420p10le", False), ("ffv1", "yuv444p", True)],
)
def test_colours_follow_the_tags(
    tmp_path: Path, matrix: int, codec: str, pixel_format: str, full: bool
) -> None:
    depth = 10 if "10" in pixel_format else 8
    planes = store(corners(), matrix, depth=depth, full=full)
    step = 2 if "420" in pixel_format else 1
    frame = av.VideoFrame(96, 64, pixel_format)
    kind = np.dtype(np.uint16 if depth == 10 else np.uint8)
    for plane, values in zip(
        frame.planes, [planes[0], *(p[::step, ::step] for p in planes[1:])], strict=True
    ):
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        rows[:, : plane.width] = values.round().clip(0, 2**depth - 1)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        container.mux([*stream.encode(frame), *stream.encode(None)])
    error = next(read_frames(path)).astype(int) - corners()
    inside = np.ix_([*range(30), *range(34, 64)], [*range(46), *range(50, 96)])
    assert np.abs(error[inside]).max() <= 2


def test_reading_is_a_stream(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(90))
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    for frame in read_frames(path, fps=50):
        alive.append(weakref.ref(frame))
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 180
    assert most <= 3


def test_what_is_done_to_a_repeated_frame_does_not_reach_the_next(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(2))
    indices = []
    for frame in read_frames(path, fps=100):
        indices.append(index_of(frame))
        frame[:] = 255
    assert indices == [0] * 4 + [1] * 4


def test_probe(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=30000 / 1001, width=96, height=64) as writer:
        for _ in range(45):
            writer.write(corners())
    info = probe(path)
    assert (info.fps, info.num_frames) == (Fraction(30000, 1001), 45)
    assert (info.width, info.height, info.rotation) == (96, 64, 0)
    assert info.duration_seconds == pytest.approx(45 * 1001 / 30000, abs=1e-3)
    assert (info.codec, info.pixel_format, info.has_audio) == ("h264", "yuv420p", False)


def cut(whole: Path, share: float) -> Path:
    path = whole.with_stem("cut")
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    return path


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


def test_a_cut_file_gives_its_good_part_and_then_says_where_it_breaks(noisy: Path) -> None:
    good: list[int] = []
    with pytest.raises(ValueError, match=r"cut\.mp4 is damaged: its video breaks off at") as error:
        good.extend(map(bottom, read_frames(cut(noisy, 0.6))))
    # Of the last few, which are coded out of order, one may depend on data after the truncation.
    assert 45 <= len(good) <= 65
    assert good[:-3] == list(range(len(good) - 3))
    assert f"at {(good[-1] + 1) / 25:.2f} s" in str(error.value)


def test_a_cut_matroska_file_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    whole = write_media(tmp_path / "a.mkv", shades(100), codec="ffv1", pixel_format="yuv444p")
    with pytest.raises(ValueError, match=r"cut\.mkv is damaged: its video breaks off at"):
        list(read_frames(cut(whole, 0.5)))


def test_a_damaged_spot_is_skipped_with_a_warning(
    noisy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blank_packet(noisy, 50)
    with caplog.at_level(logging.WARNING):
        indices = [bottom(frame) for frame in read_frames(noisy)]
    assert 95 <= len(indices) <= 100
    assert indices[:40] == list(range(40))
    assert indices[-30:] == list(range(70, 100))
    assert "whole.mp4 is damaged: nothing to read from" in caplog.text


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.mp4 does not exist: check the path"):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(ValueError, match="is a folder: give one video"):
        probe(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        probe(empty)
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be opened as video or audio"):
        next(read_frames(text))
    headless = cut(write_media(tmp_path / "a.mp4", shades(50)), 0.5)
    with pytest.raises(ValueError, match=r"cut\.mp4 cannot be opened .* cut off"):
        probe(headless)
    sound = write_media(tmp_path / "sound.mp4", sound=tone(1, 48000))
    for function in (probe, open_clip, lambda path: next(read_frames(path))):
        with pytest.raises(ValueError, match=r"sound\.mp4 has no video stream: give a video"):
            function(sound)


def test_a_frame_rate_above_0_is_asked_for(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", shades(2))
    with pytest.raises(ValueError, match="above 0, got 0"):
        next(read_frames(path, fps=0))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = SIZE
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for packet in cover.encode(av.VideoFrame.from_ndarray(shade(3), format="rgb24")):
            container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 48000
        container.mux([*audio.encode(silence), *audio.encode(None)])
    with pytest.raises(ValueError, match="has no video stream"):
        probe(path)


def test_frames_are_freed_without_the_cycle_collector(tmp_path: Path) -> None:
    """It runs rarely: hundreds of large frames would accumulate."""
    path = write_media(
        tmp_path / "a.mp4", shades(60), prepare=lambda stream: stream.set_display_rotation(90)
    )
    gc.collect()
    gc.disable()
    try:
        for _ in read_frames(path):
            pass
        assert gc.collect() < 30
    finally:
        gc.enable()


@pytest.mark.parametrize("quarter", [0, 90])
def test_the_shape_of_pixels_is_told_as_seen(tmp_path: Path, quarter: int) -> None:
    def prepare(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        stream.set_display_rotation(quarter)

    path = write_media(tmp_path / "a.mp4", shades(3), prepare=prepare)
    expected = Fraction(16, 11) if quarter == 0 else Fraction(11, 16)
    assert probe(path).sample_aspect_ratio == expected
