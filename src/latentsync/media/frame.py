"""Decoded frames <=> RGB arrays, rotated for display, colours according to the file's tags.

`Picture` keeps the stored frame along with the changed parts, so that the rest stays untouched.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int

from latentsync.media.colour import UNTAGGED, UPRIGHT, Frame, Orientation, swscale_matrix
from latentsync.media.hdr import is_hdr, to_sdr
from latentsync.media.planes import PLANAR, Box, copy_part, grown, like, planes_of

# libav's fast conversion truncates, which darkens the picture by one level. This one rounds, and
# respects the chroma location given by the file.
TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
QUICK = Interpolation.BILINEAR
WORTH_SAMPLING = 40  # pixels per sample from which samples cost less than all pixels


def is_planar(frame: VideoFrame) -> bool:
    """Whether boxes of it can be read and written in place: 4:2:0 planes of even size."""
    return frame.format.name in PLANAR and frame.width % 2 == 0 and frame.height % 2 == 0


class RgbReader:
    """Decoded frames => new 8-bit SDR RGB arrays.

    With `size` (width, height as stored), frames whose size changes midway are scaled to it.
    `quick`: a tenth of the time, about one level darker; good enough for face detection.
    """

    def __init__(self, size: tuple[int, int] | None = None, *, quick: bool = False) -> None:
        self.size = size
        self.flags = QUICK if quick else TO_RGB
        # One each, as they set up anew whenever the size changes.
        self.reformatter, self.sample_reformatter = VideoReformatter(), VideoReformatter()
        self.rotation: int | None = None
        self.orientation = UPRIGHT
        self.small: VideoFrame | None = None
        self.small_tags: tuple = ()

    def read(self, frame: VideoFrame) -> Frame:
        width, height = self.size or (frame.width, frame.height)
        rgb = self._convert(frame, width, height, seen_height=frame.height)
        return self.orientation_of(frame).apply(rgb)

    def read_part(self, frame: VideoFrame, box: Box) -> Frame:
        """The box of `read`; converts only that part if the frame is displayed as stored."""
        x0, y0, x1, y1 = box
        around = grown(box, frame.width, frame.height)
        width, height = around[2] - around[0], around[3] - around[1]
        if not self.is_plain(frame) or (width, height) == (frame.width, frame.height):
            return np.ascontiguousarray(self.read(frame)[y0:y1, x0:x1])
        small = self._small(frame, width, height)
        copy_part(frame, small, around[0], around[1])
        rgb = self._convert(small, width, height, seen_height=frame.height)
        x, y = x0 - around[0], y0 - around[1]
        return np.ascontiguousarray(rgb[y : y + y1 - y0, x : x + x1 - x0])

    def read_samples(self, frame: VideoFrame, size: tuple[int, int]) -> Frame:
        """Single pixels of `read` on a (columns, rows) grid, as `cv2.INTER_NEAREST` takes them.

        Converts only those; for frames of which `samples_cost_less`.
        """
        columns, rows = nearest_places(frame.width, size[0]), nearest_places(frame.height, size[1])
        # Each pixel in a square of 2x2, so that it has a chroma sample of its own.
        squares = self._small(frame, 2 * size[0], 2 * size[1])
        luma, *chroma = zip(planes_of(frame), planes_of(squares), strict=True)
        luma[1][::2, ::2] = luma[0][rows].take(columns, axis=1)
        for stored, own in chroma:
            own[:] = stored[rows // 2].take(columns // 2, axis=1)
        width, height = 2 * size[0], 2 * size[1]
        rgb = self._convert(squares, width, height, seen_height=frame.height, is_sampled=True)
        return cv2.resize(rgb, size, interpolation=cv2.INTER_NEAREST)

    def samples_cost_less(self, frame: VideoFrame, size: tuple[int, int]) -> bool:
        """Whether `read_samples` can read this frame, and in less time than `read`."""
        # Only the fast conversion makes every pixel of its own samples.
        is_fast = self.flags == QUICK and not is_hdr(int(frame.color_trc))
        return (
            is_fast
            and self.is_plain(frame)
            and PLANAR[frame.format.name] == 8
            and frame.width * frame.height >= WORTH_SAMPLING * size[0] * size[1]
        )

    def is_plain(self, frame: VideoFrame) -> bool:
        """Whether it is displayed as stored, in planes that can be sliced."""
        return (
            is_planar(frame)
            and self.size in (None, (frame.width, frame.height))
            and self.orientation_of(frame) == UPRIGHT
        )

    def shape(self, frame: VideoFrame) -> tuple[int, int, int]:
        """The shape of `read`'s array."""
        width, height = self.size or (frame.width, frame.height)
        if self.orientation_of(frame).transposed:
            width, height = height, width
        return height, width, 3

    def _convert(
        self,
        frame: VideoFrame,
        width: int,
        height: int,
        *,
        seen_height: int,
        is_sampled: bool = False,
    ) -> Frame:
        untagged = int(frame.colorspace) == UNTAGGED
        reformatter = self.sample_reformatter if is_sampled else self.reformatter
        stored = reformatter.reformat(
            frame,
            width=width,
            height=height,
            # In rgb48le, libswscale 9 overflows with FULL_CHR_H_INT on strong greens.
            format="gbrp16le" if is_hdr(int(frame.color_trc)) else "rgb24",
            src_colorspace=swscale_matrix(UNTAGGED, seen_height) if untagged else None,
            interpolation=self.flags,
        ).to_ndarray()
        if stored.dtype == np.uint8:
            return stored
        return to_sdr(stored, transfer=int(frame.color_trc), primaries=int(frame.color_primaries))

    def _small(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        tags = (width, height, frame.format.name, frame.colorspace, frame.color_range)
        if self.small is None or self.small_tags != (*tags, frame.color_trc):
            self.small, self.small_tags = like(frame, width, height), (*tags, frame.color_trc)
        return self.small

    def orientation_of(self, frame: VideoFrame) -> Orientation:
        """Parsed only when the rotation changes.

        Reading side data makes PyAV put the frame in a reference cycle, which is only freed by the
        garbage collector: for 1080p, hundreds of frames or 3 GB.
        """
        if frame.rotation != self.rotation:
            self.rotation, self.orientation = frame.rotation, Orientation.of(frame)
        return self.orientation


@lru_cache(maxsize=8)
def nearest_places(length: int, num: int) -> Int[np.ndarray, " n"]:
    """The places of a line of `length` pixels that `cv2.INTER_NEAREST` shrinks to `num`."""
    line = np.arange(length, dtype=np.float32)[None]
    return cv2.resize(line, (num, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.intp)


class UnreadFrame:
    """A decoded frame that becomes an RGB array when it is first asked for."""

    __slots__ = ("__weakref__", "reader", "shape", "source")

    def __init__(self, source: VideoFrame, reader: RgbReader) -> None:
        self.source: VideoFrame | Frame = source
        self.reader = reader
        self.shape = reader.shape(source)

    def rgb(self) -> Frame:
        """The same array each time."""
        if not isinstance(self.source, np.ndarray):
            self.source = self.reader.read(self.source)
        return self.source

    def sampled(self, size: tuple[int, int]) -> Frame:
        """As `RgbReader.read_samples`."""
        stored = None if isinstance(self.source, np.ndarray) else self.source
        if stored is not None and self.reader.samples_cost_less(stored, size):
            return self.reader.read_samples(stored, size)
        return cv2.resize(self.rgb(), size, interpolation=cv2.INTER_NEAREST)


class QuickFrame(UnreadFrame):
    """An unread frame seen quickly as a whole, as detectors take it, and exactly in boxes."""

    __slots__ = ("exact", "stored")

    def __init__(self, stored: VideoFrame, quick: RgbReader, exact: RgbReader) -> None:
        super().__init__(stored, quick)
        self.stored, self.exact = stored, exact

    def part(self, box: Box) -> Frame:
        """The pixels of a box as `RgbReader.read_part` gives them."""
        return self.exact.read_part(self.stored, box)


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a picture, before and after the change."""

    box: Box
    before: Frame
    after: Frame


class Picture:
    """A video frame: converted where it is read, changed in boxes, otherwise as stored.

    Immutable; `with_part` returns a new one.
    """

    __slots__ = ("__weakref__", "parts", "reader", "shape", "source")

    def __init__(
        self, source: VideoFrame | Frame, reader: RgbReader, parts: tuple[Part, ...] = ()
    ) -> None:
        self.source, self.reader, self.parts = source, reader, parts
        self.shape = source.shape if isinstance(source, np.ndarray) else reader.shape(source)

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """A picture of an RGB array, which must not be modified afterwards."""
        return cls(frame, RgbReader())

    def rgb(self, box: Box | None = None) -> Frame:
        """A new array of the whole picture or of a box inside it."""
        box = box or (0, 0, self.shape[1], self.shape[0])
        x0, y0, x1, y1 = box
        if isinstance(self.source, np.ndarray):
            shown = self.source[y0:y1, x0:x1].copy()
        elif box == (0, 0, self.shape[1], self.shape[0]):
            shown = self.reader.read(self.source)
        else:
            shown = self.reader.read_part(self.source, box)
        for part in self.parts:
            left, top = max(x0, part.box[0]), max(y0, part.box[1])
            right, bottom = min(x1, part.box[2]), min(y1, part.box[3])
            if left < right and top < bottom:
                shown[top - y0 : bottom - y0, left - x0 : right - x0] = part.after[
                    top - part.box[1] : bottom - part.box[1],
                    left - part.box[0] : right - part.box[0],
                ]
        return shown

    def around(self, box: Box) -> Box:
        """The smallest box around this one that can be written when this one changes."""
        return grown(box, self.shape[1], self.shape[0])

    def with_part(self, box: Box, before: Frame, after: Frame) -> "Picture":
        """The picture with `rgb(box)` changed from `before` to `after`; `box` is from `around`."""
        return Picture(self.source, self.reader, (*self.parts, Part(box, before, after)))
