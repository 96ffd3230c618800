"""Interlaced sources: two fields woven into a frame come out as one field each."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from latentsync.media.deinterlace import Deinterlacer
from latentsync.media.frame_reader import FrameReader, read_times, stored_frames
from latentsync.media.video import read_frames
from media.sources import write_media

NUM_FRAMES = 40
WIDTH, HEIGHT = 160, 96


def moment(time: int) -> np.ndarray:
    """A light bar that moves by three pixels per field, on a grey gradient."""
    picture = np.tile(np.linspace(40, 90, WIDTH).astype(np.uint8), (HEIGHT, 1))
    left = 5 + 3 * time % (WIDTH - 40)
    picture[:, left : left + 24] = 210
    return np.repeat(picture[..., None], 3, axis=2)


def woven(index: int) -> np.ndarray:
    """Odd lines of one field, even lines of the next: encoders assume bottom field first unless a
    frame says otherwise."""
    picture = moment(2 * index)
    picture[0::2] = moment(2 * index + 1)[0::2]
    return picture


def fields(stream: av.VideoStream) -> None:
    options = {
        "libx264": {"x264-params": "bff=1:keyint=12", "crf": "10"},
        "mpeg2video": {"flags": "+ildct+ilme", "g": "12", "b": "8000000"},
        "prores_ks": {"flags": "+ildct"},
    }
    stream.options = options[stream.codec_context.name]


def write_woven(path: Path, codec: str, pixel_format: str) -> Path:
    return write_media(
        path,
        [woven(index) for index in range(NUM_FRAMES)],
        codec=codec,
        pixel_format=pixel_format,
        prepare=fields,
        clock=Fraction(1, 25),
    )


SOURCES = [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.mkv", "libx264", "yuv422p"),
    ("a.ts", "mpeg2video", "yuv420p"),
    ("a.mpg", "mpeg2video", "yuv420p"),
    ("a.mov", "prores_ks", "yuv422p10le"),
]


@pytest.fixture(params=SOURCES, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, codec, pixel_format = request.param
    return write_woven(tmp_path / name, codec, pixel_format)


def combing(frame: np.ndarray) -> float:
    """How much lines differ from their neighbours where these are alike."""
    lines = frame[..., 1].astype(float)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


def test_lines_of_two_moments_come_apart(source: Path) -> None:
    as_stored = [frame for _, _, frame in stored_frames(source, deinterlacer=Deinterlacer("off"))]
    deinterlacer = Deinterlacer()
    shown = [frame for _, _, frame in stored_frames(source, deinterlacer=deinterlacer)]
    assert deinterlacer.num_frames == len(shown) == len(as_stored) == NUM_FRAMES
    before, after = (np.mean([combing(f) for f in frames]) for frames in (as_stored, shown))
    assert before > 4
    assert after < before / 5
    # Every frame shows the first of its two fields.
    middle = shown[20].astype(int)
    now, then = (np.abs(middle - moment(time)).mean() for time in (40, 41))
    assert now < then / 2


def test_times_are_those_of_the_file(source: Path) -> None:
    times = read_times(source)
    starts = [start for start, _, _ in stored_frames(source)]
    assert starts == times.starts.tolist()
    assert len(starts) == NUM_FRAMES


def test_any_frame_by_its_number_is_the_one_read_in_order(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both passes must see the same; after a seek, a filter's first frame has no predecessor."""
    from latentsync.media import frame_reader

    monkeypatch.setattr(frame_reader, "JUMP_SECONDS", 0)
    monkeypatch.setattr(frame_reader, "SEEK_MARGIN_SECONDS", 0)
    times = read_times(source)
    in_order = [frame for _, _, frame in stored_frames(source)]
    reader = FrameReader(source, times)
    for number, frame in enumerate(reader.read(range(NUM_FRAMES))):
        np.testing.assert_array_equal(frame, in_order[number])
    for numbers in ([24], [0, 25], [39, 12, 13], [30, 29, 28, 11, 0], [1], [36, 36, 24]):
        for number, frame in zip(numbers, reader.read(numbers), strict=True):
            np.testing.assert_array_equal(frame, in_order[number], err_msg=f"frame {number}")


def test_prepare_and_evaluate_read_progressive_frames(source: Path) -> None:
    in_order = [frame for _, _, frame in stored_frames(source)]
    for number, frame in enumerate(read_frames(source)):
        np.testing.assert_array_equal(frame, in_order[number])
    late = next(read_frames(source, start_seconds=1.2))
    np.testing.assert_array_equal(late, in_order[30])


def decoded(path: Path) -> list[VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_what_is_progressive_passes_untouched(tmp_path: Path) -> None:
    plain = write_media(tmp_path / "p.mp4", [moment(2 * i) for i in range(10)])
    frames = decoded(plain)
    deinterlacer = Deinterlacer()
    assert all(a is b for a, b in zip(deinterlacer.over(frames), frames, strict=True))
    assert deinterlacer.num_frames == 0


@pytest.mark.parametrize(
    ("order", "count"),
    [
        (lambda plain, woven: plain + woven, NUM_FRAMES),
        (lambda plain, woven: woven + plain, NUM_FRAMES),
        (lambda plain, woven: plain[:1] + woven[:1], 1),
        (lambda plain, woven: woven[:1] + plain[:2] + woven[5:6], 2),
    ],
)
def test_only_interlaced_frames_of_a_mixed_stream_change(
    tmp_path: Path, order: Callable[[list, list], list], count: int
) -> None:
    plain = decoded(write_media(tmp_path / "p.mp4", [moment(2 * i) for i in range(10)]))
    frames = order(plain, decoded(write_woven(tmp_path / "w.mp4", "libx264", "yuv420p")))
    deinterlacer = Deinterlacer()
    made = list(deinterlacer.over(frames))
    assert len(made) == len(frames)
    assert deinterlacer.num_frames == count
    assert not any(frame.interlaced_frame for frame in made)
    for old, new in zip(frames, made, strict=True):
        assert (old.pts, old.duration, old.time_base) == (new.pts, new.duration, new.time_base)
        same = np.array_equal(old.to_ndarray(), new.to_ndarray())
        assert same is not old.interlaced_frame


def test_colours_stay_tagged(tmp_path: Path) -> None:
    def tagged(stream: av.VideoStream) -> None:
        fields(stream)
        stream.codec_context.colorspace = 1
        stream.codec_context.color_trc = 1
        stream.codec_context.color_primaries = 1
        stream.codec_context.color_range = 2

    path = write_media(tmp_path / "a.mp4", [woven(i) for i in range(8)], prepare=tagged)
    frames = decoded(path)
    for old, new in zip(frames, Deinterlacer().over(frames), strict=True):
        for name in ("colorspace", "color_trc", "color_primaries", "color_range"):
            assert getattr(new, name) == getattr(old, name), name


def test_two_sizes_in_one_stream(tmp_path: Path) -> None:
    large = decoded(write_woven(tmp_path / "w.mp4", "libx264", "yuv420p"))
    small = decoded(
        write_media(tmp_path / "s.mp4", [woven(i)[:64, :96] for i in range(9)], prepare=fields)
    )
    frames = [*large[:5], *small, *large[5:]]
    made = list(Deinterlacer().over(frames))
    assert [f.width for f in made] == [f.width for f in frames]
    assert [f.pts for f in made] == [f.pts for f in frames]


@pytest.mark.parametrize(("order", "time"), [("tff", 11), ("bff", 10)])
def test_the_first_field_is_kept_whichever_it_is(order: str, time: int) -> None:
    marked = av.filter.Graph()
    source = marked.add_buffer(
        width=WIDTH, height=HEIGHT, format=av.VideoFormat("yuv444p"), time_base=Fraction(1, 25)
    )
    marked.link_nodes(source, marked.add("setfield", order), marked.add("buffersink")).configure()
    frames = []
    for index in range(10):
        frame = VideoFrame.from_ndarray(woven(index), format="rgb24").reformat(format="yuv444p")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        marked.vpush(frame)
        frames.append(marked.vpull())
    made = list(Deinterlacer().over(frames))
    shown = made[5].to_ndarray(format="rgb24").astype(int)
    best = min(range(20), key=lambda time: np.abs(shown - moment(time)).mean())
    assert best == time


@pytest.mark.parametrize("mode", ["on", "bwdif", "", "Auto"])
def test_another_mode_is_told(mode: str) -> None:
    with pytest.raises(ValueError, match="must be one of auto, off"):
        Deinterlacer(mode)
