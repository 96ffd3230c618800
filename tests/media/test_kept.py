"""Copies preserve rate, size, colours, sound and sync of the source."""

import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.colour import ColourTags
from latentsync.media.frame_reader import FrameReader, build_timeline, read_times
from latentsync.media.planes import planes_of
from latentsync.media.video import VideoWriter, probe, read_frames
from media.sources import MILLISECONDS, SIZE, index_of, shade, shades, tone, write_media

RATES = {
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "50": Fraction(50),
    "60": Fraction(60),
    "variable": None,
}
BEEP_SECONDS = 1.0


def start_of(rate: Fraction | None, index: int) -> Fraction:
    if rate is None:
        return Fraction(index * 33 + (index * 7) % 13, 1000)
    return index / rate


def with_sound(
    path: Path, rate: Fraction | None, *, hertz: int = 48_000, layout: str = "mono", **options
) -> Path:
    """2 s, white from the frame nearest to second 1, and a tone from second 1."""
    frames = []
    while start_of(rate, len(frames)) < 2:
        is_late = start_of(rate, len(frames)) >= Fraction(BEEP_SECONDS) - Fraction(1, 200)
        frames.append(shade(255 if is_late else 0))
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    silence = np.zeros((channels, hertz), np.float32)
    sound = np.hstack([silence, tone(1, hertz, channels=channels)])
    return write_media(
        path,
        frames,
        times=lambda index: start_of(rate, index),
        clock=MILLISECONDS if rate is None else 1 / rate,
        sound=sound,
        rate=hertz,
        layout=layout,
        **options,
    )


def copy(source: Path, target: Path, **options) -> None:
    """What the pipeline does with frames without a face."""
    info, times = probe(source), read_times(source)
    timeline = build_timeline(times, seconds=0.1)
    with VideoWriter(
        target,
        fps=info.fps,
        width=info.width,
        height=info.height,
        time_base=timeline.time_base,
        colour=info.colour,
        sample_aspect_ratio=info.sample_aspect_ratio,
        audio=source,
        copy_audio="auto",
        **options,
    ) as writer:
        frames = FrameReader(source, times).read(timeline.numbers.tolist())
        for entry, frame in enumerate(frames):
            writer.write(frame, timeline.start(entry))
        writer.finish_at(timeline.start(len(timeline)))


def flash_and_beep(path: Path) -> tuple[float, float]:
    times = read_times(path)
    flash = next(i for i, frame in enumerate(read_frames(path)) if frame.mean() > 100)
    beep = int((read_waveform(path).abs() > 0.1).nonzero()[0]) / 16000
    return float(times.starts[flash] * times.time_base), beep


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_times_length_and_sound(tmp_path: Path, name: str, container: str) -> None:
    rate = RATES[name]
    source = with_sound(tmp_path / "in.mp4", rate, layout="stereo")
    target = tmp_path / f"out.{container}"
    copy(source, target)
    before, after = read_times(source), read_times(target)
    assert len(before) == len(after)
    wanted = before.starts * float(before.time_base)
    assert after.starts * float(after.time_base) == pytest.approx(wanted, abs=0.0006)
    assert after.seconds == pytest.approx(before.seconds, abs=0.04)
    if rate is not None:
        assert probe(source).fps == rate
        assert float(probe(target).fps) == pytest.approx(float(rate), rel=1e-6)
    flash, beep = flash_and_beep(target)
    assert flash == pytest.approx(flash_and_beep(source)[0], abs=0.0006)
    assert flash == pytest.approx(BEEP_SECONDS, abs=0.034)
    assert beep == pytest.approx(BEEP_SECONDS, abs=0.02)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("hertz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("sound_codec", ["aac", "pcm_s16le"])
def test_the_sound_keeps_its_rate_and_channels(
    tmp_path: Path, layout: str, hertz: int, sound_codec: str
) -> None:
    source = with_sound(
        tmp_path / "in.mkv", Fraction(25), hertz=hertz, layout=layout, sound_codec=sound_codec
    )
    copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.audio[0]
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        assert (stream.rate, stream.channels) == (hertz, channels)
        assert stream.codec_context.name == "aac"
    assert flash_and_beep(tmp_path / "out.mp4") == pytest.approx((1, 1), abs=0.03)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    ("source_name", "sound_codec", "target_name", "copied"),
    [
        ("in.mp4", "aac", "out.mp4", True),
        ("in.ts", "aac", "out.mp4", True),
        ("in.mkv", "libmp3lame", "out.mp4", True),
        ("in.mkv", "ac3", "out.mov", True),
        ("in.mkv", "pcm_s16le", "out.mkv", True),
        ("in.mkv", "flac", "out.mkv", True),
        ("in.mkv", "pcm_s16le", "out.mp4", False),
        ("in.mkv", "libopus", "out.mp4", False),
        ("in.mkv", "flac", "out.mov", False),
    ],
)
def test_sound_is_copied_where_players_expect_it(
    tmp_path: Path, source_name: str, sound_codec: str, target_name: str, copied: bool
) -> None:
    source = with_sound(tmp_path / source_name, Fraction(25), sound_codec=sound_codec)
    target = tmp_path / target_name
    copy(source, target)
    with av.open(str(target)) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
    assert codec == (sound_codec.removeprefix("lib").removesuffix("lame") if copied else "aac")
    if copied and source_name != "in.ts":
        assert packets(source) == packets(target)
    assert flash_and_beep(target) == pytest.approx((1, 1), abs=0.03)


@pytest.mark.parametrize("late", [-0.5, 0.5])
def test_sound_and_picture_that_start_apart(tmp_path: Path, late: float) -> None:
    frames, sound = shades(50), tone(2, 48_000)
    first = max(0.0, -late)
    source = write_media(
        tmp_path / "in.mkv",
        frames,
        times=lambda index: Fraction(index, 25) + Fraction(first),
        sound=sound,
        sound_starts=max(0.0, late),
    )
    copy(source, tmp_path / "out.mp4")
    waveform = read_waveform(tmp_path / "out.mp4")
    onset = int((waveform.abs() > 0.1).nonzero()[0]) / 16000
    assert onset == pytest.approx(max(0.0, late), abs=0.03)
    assert len(waveform) / 16000 == pytest.approx(2 + late, abs=0.05)
    assert len(read_times(tmp_path / "out.mp4")) == 50


def turned(stream: av.VideoStream) -> None:
    stream.set_display_rotation(90)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size", "prepare"),
    [
        ("libx264", "yuv420p", (64, 96), None),
        ("libx264", "yuv422p", (64, 96), None),
        ("libx264", "yuv420p10le", (64, 96), None),
        ("libx264", "yuv422p10le", (64, 96), None),
        ("libx264", "yuv420p", (64, 96), turned),
        ("ffv1", "yuv444p", (65, 97), None),
        ("ffv1", "yuv420p", (16, 16), None),
    ],
)
@pytest.mark.parametrize("output", ["h264", "hevc"])
def test_every_kind_of_picture(
    tmp_path: Path,
    codec: str,
    pixel_format: str,
    size: tuple[int, int],
    prepare: Callable[[av.VideoStream], None] | None,
    output: str,
) -> None:
    if output == "hevc" and min(size) < 64:
        pytest.skip("H.265 needs 64 pixels")
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.stack([40 + y % 128, 60 + x % 128, 100 + (x + y) % 64], -1).astype(np.uint8)
    source = write_media(
        tmp_path / "in.mov" if codec == "libx264" else tmp_path / "in.mkv",
        [picture] * 4,
        codec=codec,
        pixel_format=pixel_format,
        sound=tone(0.2, 48_000),
        **({} if prepare is None else {"prepare": prepare}),
    )
    copy(source, tmp_path / "out.mp4", codec=output, crf=4)
    expected, frame = next(read_frames(source)), next(read_frames(tmp_path / "out.mp4"))
    height, width = expected.shape[:2]
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    difference = np.abs(frame[:height, :width].astype(int) - expected)
    assert difference.mean() < 3
    info = probe(tmp_path / "out.mp4")
    assert (info.codec, info.rotation) == (output, 0)


COLOURS = np.array(
    [(r, g, b) for r in (20, 128, 235) for g in (20, 128, 235) for b in (20, 128, 235)], np.uint8
)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    "colour",
    [
        ColourTags(1, False, 1, 1),
        ColourTags(5, False, 5, 6),
        ColourTags(6, True, 6, 6),
        ColourTags(9, False, 9, 16, depth=10),
        ColourTags(9, False, 9, 18, depth=10),
        ColourTags(1, False, 1, 1, depth=10),
        ColourTags(1, True, 1, 1, "left", depth=10),
        ColourTags(9, False, 9, 14, "topleft", depth=10),
        ColourTags(2, False, 2, 2),
        ColourTags(1, True, 1, 13),
    ],
)
def test_colours_are_converted_by_the_tags_they_get(
    tmp_path: Path, codec: str, colour: ColourTags
) -> None:
    picture = np.repeat(np.repeat(COLOURS[None], 64, axis=0), 16, axis=1)
    path = tmp_path / "a.mp4"
    with VideoWriter(
        path, fps=25, width=432, height=64, crf=1, codec=codec, colour=colour
    ) as writer:
        for _ in range(3):
            writer.write(picture)
    assert probe(path).colour == colour
    for frame in read_frames(path):
        difference = np.abs(frame[32, 8::16].astype(int) - COLOURS)
        # Dark parts of strong colours are close together in HDR.
        assert difference.max() <= (20 if colour.transfer in (16, 18) else 4)
        assert difference.mean() < 2


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_crf_0_loses_nothing_but_the_rounding(
    tmp_path: Path, rng: np.random.Generator, codec: str, size: tuple[int, int]
) -> None:
    frames = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(3)]
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=25, width=size[1], height=size[0], crf=0, codec=codec) as writer:
        for frame in frames:
            writer.write(frame)
    for frame, expected in zip(read_frames(path), frames, strict=True):
        # 219 levels of grey instead of 256, and 224 of colour.
        assert np.abs(frame.astype(int) - expected).max() <= 3
    assert probe(path).pixel_format == "yuv444p"


def test_wide_pixels_stay_wide(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        path = tmp_path / name
        with VideoWriter(
            path, fps=25, width=SIZE, height=SIZE, sample_aspect_ratio=Fraction(16, 11)
        ) as writer:
            writer.write(shade(0))
        assert probe(path).sample_aspect_ratio == Fraction(16, 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 52}, r"crf must be from 0 \(lossless\) to 51 \(worst\), got 52"),
        ({"codec": "av1"}, "codec must be one of h264, hevc, got 'av1'"),
        ({"codec": "hevc", "width": 40}, "hevc needs 64x64 pixels or more, got 40x64: use .*h264"),
    ],
)
def test_wrong_choices(tmp_path: Path, options: dict, message: str) -> None:
    chosen = {"fps": 25, "width": SIZE, "height": SIZE, **options}
    with pytest.raises(ValueError, match=message):
        VideoWriter(tmp_path / "a.mp4", **chosen)


@pytest.mark.parametrize(
    ("starts", "end", "message"),
    [
        ([1], 2, r"the first frame of .*a\.mp4 must start at 0, got 1"),
        ([0, 1, 1], 2, r"got 1\.000000 s after 1\.000000 s"),
        ([0, 1], 1, r"got 1\.000000 s after 1\.000000 s"),
    ],
)
def test_starts_rise(tmp_path: Path, starts: list[int], end: int, message: str) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", fps=25, width=SIZE, height=SIZE)
    with pytest.raises(ValueError, match=message), writer:
        for start in starts:
            writer.write(shade(0), Fraction(start))
        writer.finish_at(Fraction(end))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_is_not_called_a_full_disk(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", fps=25, width=SIZE, height=SIZE, preset="quick")
    with pytest.raises(ValueError, match=r"a\.mp4 could not be encoded .*check preset"), writer:
        writer.write(shade(0))


@pytest.mark.parametrize("max_bytes", [20_000, 200_000])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, max_bytes: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = VideoWriter(tmp_path / "a.mp4", fps=25, width=256, height=256, crf=1, preset="fast")
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        with pytest.raises(OSError, match=r"a\.mp4 could not be written .*make room"), writer:
            for _ in range(60):
                writer.write(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_order_survives_a_trip(tmp_path: Path) -> None:
    source = write_media(tmp_path / "in.mp4", shades(60), sound=tone(2.4, 48_000))
    copy(source, tmp_path / "out.mp4")
    assert [index_of(frame) for frame in read_frames(tmp_path / "out.mp4")] == list(range(60))


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("crf", [0, 18])
@pytest.mark.parametrize("place", ["left", "centre", "topleft"])
@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("hevc", "mkv"), ("hevc", "mov")])
def test_hdr_of_ten_bits_goes_through_as_it_is(
    tmp_path: Path, codec: str, suffix: str, place: str, crf: int
) -> None:
    """Tags, mastering display, light levels and, if lossless, every code of the planes."""
    colour = ColourTags(9, False, 9, 16, place, 10, MASTERING, "1000,400")
    first = tmp_path / f"in.{suffix}"
    y, x = np.mgrid[:64, :96]
    picture = np.stack([40 + y, 60 + x, 100 + (x + y) % 64], -1).astype(np.uint8)
    options = {"fps": 25, "width": 96, "height": 64, "codec": codec, "colour": colour}
    with VideoWriter(first, crf=4, **options) as writer:
        for _ in range(4):
            writer.write(picture)
    assert probe(first).colour == colour
    second = tmp_path / f"out.{suffix}"
    times = read_times(first)
    with VideoWriter(second, crf=crf, **{**options, "colour": probe(first).colour}) as writer:
        for frame in FrameReader(first, times).pictures(range(4)):
            writer.write(frame)
    assert probe(second).colour == colour
    assert probe(second).pixel_format == "yuv420p10le"
    stored, copied = (_planes(path) for path in (first, second))
    for old, new in zip(stored, copied, strict=True):
        difference = np.abs(old.astype(int) - new)
        assert difference.max() == 0 if crf == 0 else difference.mean() < 8


def _planes(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [plane.copy() for f in container.decode(video=0) for plane in planes_of(f)]
