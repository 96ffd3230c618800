"""Files of any camera and recorder: frames, rate, length and start are preserved."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.frame_reader import FrameReader, read_times
from latentsync.media.video import probe, read_frames
from latentsync.pipeline import Cache, Choice, Timing, lipsync
from media.sources import tone, write_media
from pipeline.inputs import HEIGHT, WIDTH, picture

PLAIN = Choice(min_size=0, min_seconds=0)
SECONDS = 1.2
SIZES = {"even": (HEIGHT, WIDTH), "odd": (HEIGHT + 1, WIDTH + 1)}
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}


@pytest.fixture
def parts(tiny_model, detector, sampler) -> dict:
    return {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}


def film(
    path: Path,
    rate: Fraction,
    *,
    pixel_format: str = "yuv420p",
    size: str = "even",
    turned: bool = False,
    late: float = 0.0,
    lossless: bool = False,
) -> Path:
    """A still face; stored on its side if `turned`."""
    height, width = SIZES[size]
    shown = np.zeros((height, width, 3), np.uint8)
    shown[:HEIGHT, :WIDTH] = picture(0)
    stored = np.rot90(shown, k=-1) if turned else shown
    frames = [stored + np.uint8(index % 20) for index in range(round(SECONDS * rate))]

    def prepare(stream: av.VideoStream) -> None:
        if turned:
            stream.set_display_rotation(90)

    return write_media(
        path,
        [np.ascontiguousarray(frame) for frame in frames],
        times=lambda index: index / rate + Fraction(late),
        clock=1 / rate,
        codec="ffv1" if lossless else "libx264",
        pixel_format=pixel_format,
        prepare=prepare,
    )


def voice(path: Path, seconds: float, hertz: int, layout: str, *, starts: float = 0.0) -> Path:
    """Speech begins with the file, or later if the sound's own timestamps do."""
    sound = tone(seconds, hertz, channels=CHANNELS[layout])
    codec = "pcm_s16le" if path.suffix in {".wav", ".mkv"} else "aac"
    return write_media(
        path, sound=sound, rate=hertz, layout=layout, sound_codec=codec, sound_starts=starts
    )


# Every value of every column appears, in different combinations: name, rate, kind of picture,
# seconds, rate, channels of the voice.
CASES: list[tuple[str, Fraction, dict, float, int, str]] = [
    ("a.mp4", Fraction(24), {}, 1.2, 8_000, "mono"),
    ("a.mkv", Fraction(25), {"pixel_format": "yuv422p"}, 0.7, 16_000, "stereo"),
    ("a.mov", Fraction(30000, 1001), {"turned": True}, 2.0, 44_100, "5.1"),
    ("a.mkv", Fraction(30), {"pixel_format": "yuv420p10le"}, 1.2, 48_000, "stereo"),
    ("a.mp4", Fraction(50), {"pixel_format": "yuv422p10le"}, 2.0, 22_050, "mono"),
    ("a.mkv", Fraction(60), {"size": "odd", "lossless": True}, 0.7, 48_000, "5.1"),
    ("a.mp4", Fraction(60), {"turned": True}, 1.2, 16_000, "mono"),
    ("a.mkv", Fraction(24), {"size": "odd", "lossless": True}, 2.0, 8_000, "stereo"),
    ("a.mp4", Fraction(25), {"pixel_format": "yuv420p10le"}, 1.2, 44_100, "mono"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{float(case[1]):.3g}")
def test_frames_rate_length_and_start(tmp_path: Path, parts: dict, case: tuple) -> None:
    name, rate, kind, seconds, hertz, layout = case
    source = film(tmp_path / name, rate, **kind)
    sound = voice(tmp_path / "voice.wav", seconds, hertz, layout)
    out = tmp_path / "out.mp4"
    report = lipsync(source, sound, out, **parts)
    # Longer videos keep their rest, which passes through; short ones are continued.
    num_frames = round(SECONDS * rate) if seconds <= SECONDS else round(seconds * rate)
    info, times = probe(out), read_times(out)
    assert report.num_frames == pytest.approx(num_frames, abs=1)
    assert len(times) == report.num_frames
    assert float(info.fps) == pytest.approx(float(rate), rel=1e-4)
    assert times.seconds == pytest.approx(max(seconds, SECONDS), abs=1.01 / rate)
    steps = np.diff(times.starts * float(times.time_base))
    assert steps == pytest.approx(1 / float(rate), abs=0.0011)
    spoken = pytest.approx(min(seconds * rate, num_frames), abs=2)
    assert report.num_frames_with_face == spoken
    before = probe(source)
    assert (info.width, info.height) == (
        before.width + before.width % 2,
        before.height + before.height % 2,
    )
    assert info.rotation == 0
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (hertz, CHANNELS[layout])
        assert float((stream.start_time or 0) * stream.time_base) == pytest.approx(0, abs=0.025)
        video = container.streams.video[0]
        assert float((video.start_time or 0) * video.time_base) == pytest.approx(0, abs=1e-3)
    onset = int((read_waveform(out).abs() > 0.1).nonzero()[0]) / 16000
    assert onset == pytest.approx(0, abs=0.025)


@pytest.mark.parametrize("late", [0.4, 0.0], ids=["video late", "both at once"])
@pytest.mark.parametrize("starts", [0.3, 0.0], ids=["voice late", "voice at once"])
def test_what_starts_later_in_its_file_is_shown_and_heard_from_the_start_of_the_video(
    tmp_path: Path, parts: dict, late: float, starts: float
) -> None:
    """A video's time begins with its first picture; a voice keeps the silence before it."""
    source = film(tmp_path / "a.mkv", Fraction(25), late=late)
    sound = voice(tmp_path / "voice.mkv", 1.0, 16_000, "mono", starts=starts)
    out = tmp_path / "out.mp4"
    report = lipsync(source, sound, out, **parts)
    times = read_times(out)
    assert times.starts[0] == 0
    assert report.num_frames == len(times) == pytest.approx(30, abs=1)
    waveform = read_waveform(sound)
    heard = int((waveform.abs() > 0.1).nonzero()[0]) / 16000
    onset = int((read_waveform(out).abs() > 0.1).nonzero()[0]) / 16000
    assert onset == pytest.approx(heard, abs=0.03)


SMALL: dict[str, Callable[[], np.ndarray]] = {
    "16x16": lambda: np.full((16, 16, 3), 120, np.uint8),
    "8K": lambda: np.tile(np.uint8(90), (4320, 7680, 3)),
}


@pytest.mark.parametrize("name", SMALL)
def test_smallest_and_largest_pictures(tmp_path: Path, parts: dict, name: str) -> None:
    frame = SMALL[name]()
    height, width = frame.shape[:2]
    scale = width / WIDTH
    parts["detector"] = type(parts["detector"])(
        [[48 * scale, 30 * scale], [80 * scale, 30 * scale], [64 * scale, 45 * scale]]
    )
    source = write_media(
        tmp_path / "a.mkv", [frame] * 3, prepare=lambda s: s.options.update(preset="ultrafast")
    )
    out = tmp_path / "out.mp4"
    report = lipsync(source, voice(tmp_path / "v.wav", 0.12, 16_000, "mono"), out, **parts)
    assert report.num_frames == report.num_frames_with_face == 3
    shown = list(read_frames(out))
    assert [one.shape for one in shown] == [(height, width, 3)] * 3
    # A corner that no mouth reaches is unchanged; the middle, where the mouth was painted, is not.
    assert np.abs(shown[0][: height // 16, : width // 16].astype(int) - frame[0, 0]).max() <= 3


@pytest.mark.parametrize(
    ("mode", "flags", "count"),
    [("auto", "+ildct+ilme", 12), ("off", "+ildct+ilme", 0), ("auto", "+bitexact", 0)],
)
def test_interlaced_sources_become_progressive_and_it_is_said(
    tmp_path: Path, parts: dict, mode: str, flags: str, count: int
) -> None:
    frames = []
    for index in range(12):
        frame = picture(2 * index)
        frame[0::2] = picture(2 * index + 1)[0::2]
        frames.append(frame)
    source = write_media(
        tmp_path / "a.mpg",
        frames,
        codec="mpeg2video",
        clock=Fraction(1, 25),
        prepare=lambda s: s.options.update(flags=flags, b="8000000"),
    )
    cache = Cache(tmp_path / "cache")
    sound = voice(tmp_path / "v.wav", 0.48, 16_000, "mono")
    for name in ("first.mp4", "from_cache.mp4"):
        out = tmp_path / name
        timing = Timing(deinterlace=mode)
        report = lipsync(source, sound, out, **parts, timing=timing, cache=cache, crf=6)
        told = [note for note in report.notes if "interlaced" in note]
        assert told == (
            [
                "12 of 12 frames were interlaced and are progressive now; "
                "timing.deinterlace=off leaves their lines as they are"
            ]
            if count
            else []
        )
        # Above the mouth, lines are those of one field or, with off, of the file.
        wanted = FrameReader(source, read_times(source), deinterlace=mode).read(range(12))
        for shown, before in zip(read_frames(out), wanted, strict=True):
            assert np.abs(shown[:24].astype(int) - before[:24]).mean() < 1.5


@pytest.mark.parametrize("mode", ["on", "yes", ""])
def test_no_other_way_to_deinterlace(mode: str) -> None:
    with pytest.raises(ValueError, match=f"timing.deinterlace={mode} must be one of auto, off"):
        Timing(deinterlace=mode)
