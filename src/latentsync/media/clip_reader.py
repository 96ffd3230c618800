"""Random access to the frames of a prepared clip: the decoder stays open and seeks to keyframes."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from jaxtyping import Int, UInt8

from latentsync.files import FilePart
from latentsync.media.colour import HD_HEIGHT, UNTAGGED
from latentsync.media.container import describe, find_video, open_media
from latentsync.media.frame import RgbReader
from latentsync.media.planes import PLANAR, planes_of

BT601 = frozenset((int(Colorspace.ITU601), 6))  # 6: another code of the same matrix


READERS = ("pyav", "decord")


@runtime_checkable
class ClipReader(Protocol):
    """Random access to the frames of a prepared clip."""

    def __len__(self) -> int: ...

    def frames(
        self, indices: Sequence[int] | Int[np.ndarray, " f"]
    ) -> UInt8[np.ndarray, "f h w 3"]:
        """The frames at `indices`, in any order; OSError if they cannot be decoded."""


def open_clip(path: Path) -> "PyAvReader":
    """Open a prepared clip for random access to its frames."""
    return PyAvReader(path)


def reader_named(name: str) -> Callable[[Path | FilePart], ClipReader]:
    """The reader class of a name: `pyav`, or `decord`, which is an optional dependency."""
    if name == "pyav":
        return PyAvReader
    if name != "decord":
        raise ValueError(f"no reader is called {name!r}; there are {', '.join(READERS)}")
    try:
        return import_module("latentsync.media.decord_reader").DecordReader
    except ModuleNotFoundError as error:
        raise ValueError(
            "data.both.reader=decord needs decord: pip install 'latentsync[train]', or take pyav"
        ) from error


class PyAvReader:
    """Random access to the frames of a clip, single-threaded: loaders run a process per core."""

    def __init__(self, path: Path | FilePart) -> None:
        self.path = path
        self.container = open_media(path)
        self.stream = find_video(self.container, path)
        self.stream.thread_type = "NONE"
        self.stream.codec_context.thread_count = 1
        self.index = _Index.of(self.container, self.stream, path)
        self.arrays = FrameArrays()
        self._next: int | None = None  # the index of the frame the decoder returns next
        self._frames: Iterator[VideoFrame] = iter(())

    def __len__(self) -> int:
        return len(self.index.times)

    def frames(
        self, indices: Sequence[int] | Int[np.ndarray, " f"]
    ) -> UInt8[np.ndarray, "f h w 3"]:
        """The frames at `indices`, in any order; OSError if they cannot be decoded."""
        asked = checked_indices(indices, len(self), str(self.path))
        codec = self.stream.codec_context
        made = np.empty((len(asked), codec.height, codec.width, 3), np.uint8)
        try:
            for wanted in np.unique(asked):
                slots = np.flatnonzero(asked == wanted)
                self.arrays.read(self._decoded(int(wanted)), made[slots[0]])
                made[slots[1:]] = made[slots[0]]
        except av.FFmpegError as error:
            self._next = None
            raise OSError(f"{self.path} cannot be decoded: {describe(error)}") from error
        return made

    def _decoded(self, wanted: int) -> VideoFrame:
        """Decode on, or seek to the previous keyframe if that is nearer."""
        key = self.index.key_before(wanted)
        if self._next is None or not key <= self._next <= wanted:
            self.container.seek(self.index.keys[key], stream=self.stream)
            self._frames = self.container.decode(self.stream)
        time = self.index.times[wanted]
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= time:
                if frame.pts != time:
                    break
                self._next = wanted + 1
                return frame
        self._next = None
        raise OSError(f"{self.path} cannot be decoded: frame {wanted} does not come out")


def checked_indices(
    indices: Sequence[int] | Int[np.ndarray, " f"], num_frames: int, name: str
) -> Int[np.ndarray, " f"]:
    """The indices of frames; IndexError if one is not there."""
    asked = np.asarray(indices, dtype=np.int64)
    beyond = asked[(asked < 0) | (asked >= num_frames)]
    if len(beyond):
        raise IndexError(f"{name} has {num_frames} frames, frame {beyond[0]} is not there")
    return asked


class FrameArrays:
    """Decoded frames => RGB arrays.

    Frames in BT.601 4:2:0, as `prepare` writes them, are converted by OpenCV, in a tenth of the
    time of `RgbReader`. It uses nearest-neighbour chroma: a mean difference of 0.4 levels, at equal
    brightness.
    """

    def __init__(self) -> None:
        self.reader = RgbReader()
        self._planes = np.empty((0, 0), np.uint8)

    def read(self, frame: VideoFrame, into: UInt8[np.ndarray, "h w 3"]) -> None:
        if self.reader.is_plain(frame) and _is_bt601(frame):
            cv2.cvtColor(self._packed(frame), cv2.COLOR_YUV2RGB_I420, dst=into)
        else:
            into[:] = self.reader.read(frame)

    def _packed(self, frame: VideoFrame) -> UInt8[np.ndarray, "h_and_a_half w"]:
        """The planes stacked in rows of the frame's width (I420), in a reused array."""
        height, width = frame.height, frame.width
        if self._planes.shape != (height * 3 // 2, width):
            self._planes = np.empty((height * 3 // 2, width), np.uint8)
        flat, start = self._planes.reshape(-1), 0
        for plane in planes_of(frame):
            end = start + plane.size
            flat[start:end].reshape(plane.shape)[:] = plane
            start = end
        return self._planes


def _is_bt601(frame: VideoFrame) -> bool:
    matrix = int(frame.colorspace)
    if PLANAR[frame.format.name] != 8:
        return False
    known = matrix in BT601 or (matrix == UNTAGGED and frame.height < HD_HEIGHT)
    return known and int(frame.color_range) != ColorRange.JPEG


@dataclass(frozen=True, slots=True)
class _Index:
    """Times of all frames in display order, and keyframes to seek to (in ticks of the stream).

    `keys`: index of a keyframe => its decoding time, by which containers with reordered frames
    seek.
    """

    times: list[int]
    keys: dict[int, int]
    numbers: list[int]  # indices of the keyframes, ascending

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, path: Path | FilePart) -> "_Index":
        packets = list(_shown(container, stream, path))
        times = sorted(time for time, _ in packets)
        number = {time: index for index, time in enumerate(times)}
        keys = {
            number[time]: time if packet.dts is None else packet.dts
            for time, packet in packets
            if packet.is_keyframe
        }
        if not keys or 0 not in keys:
            raise ValueError(f"{path} does not begin with a key frame: convert it again")
        return cls(times, keys, sorted(keys))

    def key_before(self, frame: int) -> int:
        return self.numbers[bisect_right(self.numbers, frame) - 1]


def _shown(
    container: InputContainer, stream: VideoStream, path: Path | FilePart
) -> Iterator[tuple[int, Packet]]:
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size and not packet.is_discard:
                yield packet.pts, packet
    except av.FFmpegError as error:
        raise OSError(f"{path} cannot be read: {describe(error)}") from error
