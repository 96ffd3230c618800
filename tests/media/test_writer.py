from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.video import VideoWriter, read_frames
from media.sources import SIZE, index_of, shade, shades, tone, write_media

COLOURS = np.array(
    [(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)], np.uint8
)


def patches() -> np.ndarray:
    """All corners and middles of the RGB cube, 16 pixels wide each."""
    return np.repeat(np.repeat(COLOURS[None], 32, axis=0), 16, axis=1)


def flash_and_beep(rate: int, *, channels: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    """White from frame 25, and a tone from second 1."""
    frames = [shade(0)] * 25 + [shade(255)] * 25
    silence = np.zeros((channels, rate), np.float32)
    return frames, np.concatenate([silence, tone(1, rate, channels=channels)], axis=1)


def test_count_order_rate_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=50, width=SIZE, height=SIZE) as writer:
        for frame in shades(75):
            writer.write(frame)
    assert [index_of(frame) for frame in read_frames(path)] == list(range(75))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 50)
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)
        assert codec.color_range == 1
        assert stream.duration * stream.time_base == 1.5
        assert stream.start_time == 0


def test_saturated_colours_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=25, width=432, height=32, crf=1) as writer:
        for _ in range(3):
            writer.write(patches())
    for frame in read_frames(path):
        assert np.abs(frame[16, 8::16].astype(int) - COLOURS).max() <= 3


def test_generations_do_not_drift(tmp_path: Path, rng: np.random.Generator) -> None:
    """Repeated reading and writing neither darkens nor shifts the picture."""
    noise = cv2.GaussianBlur(rng.standard_normal((128, 128, 3)), (0, 0), 4)
    first = picture = (128 + 40 * noise / noise.std()).clip(30, 225).astype(np.uint8)
    for number in range(4):
        path = tmp_path / f"{number}.mp4"
        with VideoWriter(path, fps=25, width=128, height=128, crf=0) as writer:
            writer.write(picture)
        picture = next(read_frames(path))
    error = picture.astype(float) - first
    assert np.abs(error.mean((0, 1))).max() < 0.1
    for axis in (0, 1):
        slope = np.gradient(first.astype(float), axis=axis)
        moved = (error * slope).sum() / (slope**2).sum()
        assert abs(moved) < 0.02


@pytest.mark.parametrize(("width", "height"), [(65, 64), (64, 65), (65, 65), (1, 1)])
def test_an_odd_picture_keeps_its_pixels_and_repeats_its_edge(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "a.mp4"
    ramp = np.arange(40, 40 + width, dtype=np.uint8)
    picture = np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=2)
    with VideoWriter(path, fps=25, width=width, height=height, crf=1) as writer:
        writer.write(picture)
    frame = next(read_frames(path))
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(frame[:height, :width].astype(int) - picture).max() <= 4
    assert np.abs(frame[-1, -1].astype(int) - picture[-1, -1]).max() <= 4


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("rate", "layout"), [(48000, "stereo"), (44100, "mono"), (22050, "5.1")])
def test_sound_stays_with_the_picture(tmp_path: Path, copied: bool, rate: int, layout: str) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    frames, sound = flash_and_beep(rate, channels=channels)
    source = write_media(tmp_path / "in.mp4", frames, sound=sound, rate=rate, layout=layout)
    path = tmp_path / "out.mp4"
    with VideoWriter(
        path, fps=25, width=SIZE, height=SIZE, audio=source, copy_audio=copied
    ) as writer:
        for frame in frames:
            writer.write(frame)
    flash = next(i for i, frame in enumerate(read_frames(path)) if frame.mean() > 100)
    waveform = read_waveform(path)
    beep = int((waveform.abs() > 0.1).nonzero()[0]) / 16000
    assert flash == 25
    assert beep == pytest.approx(1, abs=0.02)
    assert len(waveform) / 16000 == pytest.approx(2, abs=0.05)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.channels) == ("aac", rate, channels)


def test_copied_packets_are_the_sources_packets(tmp_path: Path) -> None:
    frames, sound = flash_and_beep(48000)
    source = write_media(tmp_path / "in.mp4", frames, sound=sound)
    with VideoWriter(
        tmp_path / "out.mp4", fps=25, width=SIZE, height=SIZE, audio=source, copy_audio=True
    ) as writer:
        writer.write(frames[0])
    packets = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0)])
    assert packets[0] == packets[1]


@pytest.mark.parametrize("copied", [False, True])
def test_sound_is_cut(tmp_path: Path, copied: bool) -> None:
    source = write_media(tmp_path / "in.mp4", sound=tone(3, 48000))
    with VideoWriter(
        tmp_path / "out.mp4", fps=25, width=SIZE, height=SIZE,
        audio=source, audio_seconds=1.28, copy_audio=copied,
    ) as writer:  # fmt: skip
        for frame in shades(32):
            writer.write(frame)
    assert len(read_waveform(tmp_path / "out.mp4")) / 16000 == pytest.approx(1.28, abs=0.04)


def test_sound_that_starts_late_starts_late(tmp_path: Path) -> None:
    source = write_media(tmp_path / "in.mkv", shades(25), sound=tone(1, 48000), sound_starts=0.5)
    for copied in (False, True):
        path = tmp_path / f"{copied}.mp4"
        with VideoWriter(
            path, fps=25, width=SIZE, height=SIZE, audio=source, copy_audio=copied
        ) as writer:
            for frame in shades(25):
                writer.write(frame)
        onset = int((read_waveform(path).abs() > 0.1).nonzero()[0])
        assert onset / 16000 == pytest.approx(0.5, abs=0.03)


def test_sound_is_interleaved_with_the_picture(tmp_path: Path) -> None:
    source = write_media(tmp_path / "in.wav", sound=tone(4, 48000), sound_codec="pcm_s16le")
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, audio=source) as writer:
        for frame in shades(100):
            writer.write(frame)
    gap = 0.0
    with av.open(str(path)) as container:
        last = {"video": 0.0, "audio": 0.0}
        for packet in container.demux():
            if packet.dts is not None:
                last[packet.stream.type] = float(packet.dts * packet.time_base)
                gap = max(gap, abs(last["video"] - last["audio"]))
    assert gap < 1.1


def test_sound_that_the_file_cannot_hold_is_not_copied(tmp_path: Path) -> None:
    source = write_media(tmp_path / "in.wav", sound=tone(1, 48000), sound_codec="adpcm_ms")
    writer = VideoWriter(
        tmp_path / "out.mp4", fps=25, width=SIZE, height=SIZE, audio=source, copy_audio=True
    )
    message = r"in\.wav has adpcm_ms sound, .* encoded instead of copied"
    with pytest.raises(ValueError, match=message), writer:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_no_file_and_keeps_the_old_one(
    tmp_path: Path, error: type[BaseException]
) -> None:
    source = write_media(tmp_path / "in.wav", sound=tone(1, 48000), sound_codec="pcm_s16le")
    path = tmp_path / "out.mp4"
    path.write_text("before")
    writer = VideoWriter(path, fps=25, width=SIZE, height=SIZE, audio=source)
    with pytest.raises(error), writer:
        for frame in shades(60):
            writer.write(frame)
        raise error
    assert path.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.mp4"]


def test_wrong_use_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match="size above 0, got 0x64"):
        VideoWriter(path, fps=25, width=0, height=64)
    writer = VideoWriter(path, fps=25, width=32, height=64)
    with pytest.raises(ValueError, match=r"a\.mp4 is 32x64, got a frame of 64x64"), writer:
        writer.write(shade(0))
    writer = VideoWriter(path, fps=25, width=32, height=64)
    with pytest.raises(ValueError, match=r"no frame was written to .*a\.mp4"), writer:
        pass
    for name in ("a.txt", "a.webm", "a"):
        writer = VideoWriter(tmp_path / name, fps=25, width=SIZE, height=SIZE)
        with pytest.raises(ValueError, match=r"\.mp4"), writer:
            writer.write(shade(0))
    writer = VideoWriter(tmp_path / "no" / "a.mp4", fps=25, width=SIZE, height=SIZE)
    with pytest.raises(FileNotFoundError, match="create it"), writer:
        pass
    assert list(tmp_path.iterdir()) == []
