"""Small media files of every kind, written with PyAV itself and not with the code under test."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

SIZE = 64
MILLISECONDS = Fraction(1, 1000)


def shade(index: int) -> np.ndarray:
    """An image of eight stripes, the bits of its index (0 to 255), which survives any codec."""
    bits = np.array([index >> bit & 1 for bit in range(8)], np.uint8)
    row = np.repeat(40 + 170 * bits, SIZE // 8)
    return np.repeat(np.tile(row, (SIZE, 1))[..., None], 3, axis=2).astype(np.uint8)


def index_of(frame: np.ndarray) -> int:
    stripes = frame.reshape(len(frame), 8, -1).mean((0, 2)) > 125
    return int(stripes @ 2 ** np.arange(8))


def shades(num_frames: int) -> list[np.ndarray]:
    return [shade(index) for index in range(num_frames)]


def tone(seconds: float, rate: int, *, channels: int = 1, hertz: float = 440) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave, (channels, 1)).astype(np.float32)


def write_media(
    path: Path,
    frames: Iterable[np.ndarray] = (),
    *,
    times: Callable[[int], Fraction] = lambda index: Fraction(index, 25),
    clock: Fraction = MILLISECONDS,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    sound: np.ndarray | None = None,
    rate: int = 48_000,
    layout: str = "mono",
    sound_codec: str = "aac",
    sound_starts: float = 0,
) -> Path:
    """Frames shown at `times` (in whole ticks of `clock`), with or without sound."""
    frames = list(frames)
    with av.open(str(path), "w") as container:
        if frames:
            video = container.add_stream(codec, rate=25 if clock == MILLISECONDS else 1 / clock)
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pixel_format
            video.codec_context.time_base = clock
            prepare(video)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        for index, pixels in enumerate(frames):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(times(index) / clock), clock
            container.mux(video.encode(frame))
        if frames:
            container.mux(video.encode(None))
        if sound is not None:
            for packet in encode_sound(audio, sound, rate, layout, sound_starts):
                container.mux(packet)
    return path


def encode_sound(
    stream: av.AudioStream, sound: np.ndarray, rate: int, layout: str, starts: float
) -> Iterable[av.Packet]:
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
    for start in range(0, sound.shape[1], 1024):
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(sound[:, start : start + 1024]), format="fltp", layout=layout
        )
        frame.rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = start + round(starts * rate)
        for converted in resampler.resample(frame):
            yield from stream.encode(converted)
    yield from stream.encode(None)


def blank_packet(path: Path, number: int) -> None:
    """Replace the video packet stored as `number` by zeros."""
    with av.open(str(path)) as container:
        # The entries are views into the open container: read them before it closes.
        entry = container.streams.video[0].index_entries[number]
        start, end = entry.pos, entry.pos + entry.size
    _blank(path, start, end)


def blank_group(path: Path, number: int) -> tuple[int, int]:
    """Zero the packets from key frame `number` to the next; returns the first lost and the next
    good frame.

    All frames shown before a key frame are stored before it.
    """
    with av.open(str(path)) as container:
        entries = container.streams.video[0].index_entries
        keys = [index for index in range(len(entries)) if entries[index].is_keyframe]
        first, last = keys[number], keys[number + 1]
        start, end = entries[first].pos, entries[last].pos
    _blank(path, start, end)
    return first, last


def _blank(path: Path, start: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def filter_fps(path: Path, fps: int) -> list[int]:
    """The output of libav's own fps filter for a video of shades."""
    indices = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        rate = graph.add("fps", str(fps))
        sink = graph.add("buffersink")
        graph.link_nodes(source, rate, sink).configure()
        for frame in [*container.decode(stream), None]:
            graph.vpush(frame)
            while True:
                try:
                    shown = graph.vpull()
                except (av.BlockingIOError, av.EOFError):
                    break
                indices.append(index_of(shown.to_ndarray(format="rgb24")))
    return indices
