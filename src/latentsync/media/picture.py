"""Decoded pictures <=> RGB arrays: turned as a player shows them, colours by the file's tags.

`Picture` keeps what the file stores beside what was changed, so that the rest stays as it is.
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from jaxtyping import UInt8

from latentsync.media.planes import (
    PLANAR,
    Box,
    Chroma,
    chroma_of,
    copy_part,
    grown,
    halved,
    like,
    paint,
    planes_of,
)

Frame = UInt8[np.ndarray, "h w 3"]

UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
HD_HEIGHT = 720  # untagged video of this height or more is BT.709, as players assume
# The matrices libswscale converts by; 5 and 6 are the two names of BT.601.
KNOWN_MATRICES = frozenset((1, 4, 5, 6, 7, 9))
SWSCALE_601 = 5
# libav's quick conversion truncates: each reading would darken the picture by one level. This one
# rounds, and places chroma where the file says that it was sampled.
TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# One chroma sample is the rounded mean of four pixels, so it lies in their centre.
TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP


@dataclass(frozen=True, slots=True)
class ColourTags:
    """How a file's numbers are meant, in the codes of ITU-T H.273 (2: the file does not say).

    `full_range`: levels 0-255 instead of 16-235. `chroma`: where it is sampled, in 4:2:0.
    """

    matrix: int = int(Colorspace.ITU709)
    full_range: bool = False
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)
    chroma: Chroma = "centre"

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """Those of a decoded picture; RGB and rare matrices become the one for its height."""
        matrix = int(frame.colorspace)
        if matrix != UNTAGGED and matrix not in KNOWN_MATRICES:
            matrix = _usual_matrix(frame.height)
        full_range = int(frame.color_range) == ColorRange.JPEG
        if frame.format.is_rgb:
            full_range = False
        chroma = chroma_of(frame) if is_planar(frame) and is_upright(frame) else None
        return cls(
            matrix,
            full_range,
            int(frame.color_primaries),
            int(frame.color_trc),
            chroma or "centre",
        )


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels are turned for display: transposed first, then mirrored."""

    transposed: bool
    mirror_x: bool
    mirror_y: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """The nearest quarter turn of the frame's display matrix (phones store one)."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if not isinstance(matrix, SideData):
            return cls(False, False, False)
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5]
        if abs(int(a)) >= abs(int(b)):
            return cls(False, bool(a < 0), bool(d < 0))
        return cls(True, bool(c < 0), bool(b < 0))

    @property
    def degrees(self) -> int:
        """Clockwise rotation; a mirrored picture counts as the rotation that is left."""
        if self.transposed:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    def apply(self, image: Frame) -> UInt8[np.ndarray, "h2 w2 3"]:
        if self.transposed:
            image = cv2.transpose(image)
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else int(self.mirror_x)
            image = cv2.flip(image, code)
        return image


UPRIGHT = Orientation(False, False, False)


def is_planar(frame: VideoFrame) -> bool:
    """Whether parts of it can be read and written as they are: 8-bit 4:2:0 of an even size."""
    return frame.format.name in PLANAR and frame.width % 2 == 0 and frame.height % 2 == 0


def is_upright(frame: VideoFrame) -> bool:
    return Orientation.of(frame) == UPRIGHT


class RgbReader:
    """Decoded pictures => RGB arrays of their own; with `size` (width, height as stored) a picture
    that changes its size is scaled to that one. `quick`: about one level darker, in a tenth of the
    time, for eyes that only look for faces.
    """

    def __init__(self, size: tuple[int, int] | None = None, *, quick: bool = False) -> None:
        self.size = size
        self.flags = Interpolation.BILINEAR if quick else TO_RGB
        self.reformatter = VideoReformatter()
        self.rotation: int | None = None
        self.orientation = UPRIGHT
        self.small: VideoFrame | None = None

    def read(self, frame: VideoFrame) -> Frame:
        width, height = self.size or (frame.width, frame.height)
        rgb = self._convert(frame, width, height, seen_height=frame.height)
        return self._orientation(frame).apply(rgb)

    def read_part(self, frame: VideoFrame, box: Box) -> Frame:
        """The same as that part of `read`; of a picture stored as it is shown, only the part is
        converted."""
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

    def is_plain(self, frame: VideoFrame) -> bool:
        """Whether it is shown as it is stored, in planes whose parts can be told."""
        return (
            is_planar(frame)
            and self.size in (None, (frame.width, frame.height))
            and self._orientation(frame) == UPRIGHT
        )

    def shape(self, frame: VideoFrame) -> tuple[int, int, int]:
        """Of `read`'s array."""
        width, height = self.size or (frame.width, frame.height)
        if self._orientation(frame).transposed:
            width, height = height, width
        return height, width, 3

    def _convert(self, frame: VideoFrame, width: int, height: int, *, seen_height: int) -> Frame:
        untagged = int(frame.colorspace) == UNTAGGED
        return self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_swscale_matrix(UNTAGGED, seen_height) if untagged else None,
            interpolation=self.flags,
        ).to_ndarray()

    def _small(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        tags = (width, height, frame.format.name, frame.colorspace, frame.color_range)
        small = self.small
        if small is None or tags != (
            small.width,
            small.height,
            small.format.name,
            small.colorspace,
            small.color_range,
        ):
            self.small = small = like(frame, width, height)
        return small

    def _orientation(self, frame: VideoFrame) -> Orientation:
        """Looked up again where the rotation changes.

        Looking makes PyAV tie the frame into a cycle, which stays in memory until Python collects
        cycles: of 1080p, hundreds of frames or 3 GB.
        """
        if frame.rotation != self.rotation:
            self.rotation, self.orientation = frame.rotation, Orientation.of(frame)
        return self.orientation


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a picture, as it was and as it became."""

    box: Box
    before: Frame
    after: Frame


class Picture:
    """A picture of a video: converted where it is looked at, changed in parts, else as stored.

    It is never changed itself; `with_part` gives another one.
    """

    __slots__ = ("__weakref__", "parts", "reader", "shape", "source")

    def __init__(
        self, source: VideoFrame | Frame, reader: RgbReader, parts: tuple[Part, ...] = ()
    ) -> None:
        self.source, self.reader, self.parts = source, reader, parts
        self.shape = source.shape if isinstance(source, np.ndarray) else reader.shape(source)

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """One of an RGB array, which must not change any more."""
        return cls(frame, RgbReader())

    def rgb(self, box: Box | None = None) -> Frame:
        """An array of its own, of the whole or of a box inside it."""
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
        """A box around this one in which a change of it can be written."""
        return grown(box, self.shape[1], self.shape[0])

    def with_part(self, box: Box, before: Frame, after: Frame) -> "Picture":
        """The picture with `rgb(box)`, which was `before`, become `after`; `box` from `around`."""
        return Picture(self.source, self.reader, (*self.parts, Part(box, before, after)))


class YuvMaker:
    """Pictures or RGB arrays => pictures for an encoder, by `colour`'s matrix, range and chroma."""

    def __init__(self, pixel_format: str, colour: ColourTags) -> None:
        self.pixel_format, self.colour = pixel_format, colour
        self.reformatter = VideoReformatter()

    def make(self, frame: Frame | Picture) -> VideoFrame:
        """What a picture's file stores is kept but for changed pixels, if both are stored alike.

        4:2:0 needs even sides: an odd picture gets its last column or row twice.
        """
        if isinstance(frame, Picture):
            if isinstance(frame.source, VideoFrame) and self.keeps(frame.source, frame.reader):
                return self._patched(frame.source, frame.parts)
            frame = frame.rgb()
        height, width = frame.shape[:2]
        if self.pixel_format == "yuv420p" and (height % 2 or width % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.pixel_format == "yuv420p" and self.colour.chroma == "left":
            return self._left(frame, height)
        return self._convert(frame, self.pixel_format, height)

    def keeps(self, stored: VideoFrame, reader: RgbReader) -> bool:
        """Whether its planes mean the same in what is made."""
        colour = self.colour
        return (
            self.pixel_format == "yuv420p"
            and reader.is_plain(stored)
            and int(stored.colorspace) == colour.matrix
            and (int(stored.color_range) == ColorRange.JPEG) == colour.full_range
        )

    def _patched(self, stored: VideoFrame, parts: tuple[Part, ...]) -> VideoFrame:
        made = self._empty(stored.width, stored.height)
        copy_part(stored, made, 0, 0)
        planes = planes_of(made)
        for part in parts:
            x0, y0, x1, y1 = part.box
            inside = [
                planes[0][y0:y1, x0:x1],
                *(plane[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for plane in planes[1:]),
            ]
            changed = (part.before != part.after).any(axis=-1)
            painted = planes_of(self._convert(part.after, "yuv444p", stored.height))
            paint(inside, painted, changed, self.colour.chroma)
        return made

    def _left(self, frame: Frame, height: int) -> VideoFrame:
        made = self._empty(frame.shape[1], frame.shape[0])
        full = planes_of(self._convert(frame, "yuv444p", height))
        brightness, *chromas = planes_of(made)
        brightness[:] = full[0]
        for new, old in zip(chromas, full[1:], strict=True):
            new[:] = halved(old, "left")
        return made

    def _empty(self, width: int, height: int) -> VideoFrame:
        made = VideoFrame(width, height, "yuv420p")
        made.colorspace = _swscale_matrix(self.colour.matrix, height)
        made.color_range = ColorRange.JPEG if self.colour.full_range else ColorRange.MPEG
        return made

    def _convert(self, frame: Frame, pixel_format: str, height: int) -> VideoFrame:
        rgb = VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24")
        return self.reformatter.reformat(
            rgb,
            format=pixel_format,
            dst_colorspace=_swscale_matrix(self.colour.matrix, height),
            dst_color_range=ColorRange.JPEG if self.colour.full_range else ColorRange.MPEG,
            interpolation=TO_YUV,
        )


def _usual_matrix(height: int) -> int:
    return int(Colorspace.ITU709 if height >= HD_HEIGHT else Colorspace.ITU601)


def _swscale_matrix(matrix: int, height: int) -> int:
    if matrix == UNTAGGED:
        return _usual_matrix(height)
    return SWSCALE_601 if matrix == 6 else matrix
