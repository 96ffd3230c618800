"""Decoded pictures <=> RGB arrays: turned as a player shows them, colours by the file's tags."""

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

    `full_range`: levels 0-255 instead of 16-235.
    """

    matrix: int = int(Colorspace.ITU709)
    full_range: bool = False
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """Those of a decoded picture; RGB and rare matrices become the one for its height."""
        matrix = int(frame.colorspace)
        if matrix != UNTAGGED and matrix not in KNOWN_MATRICES:
            matrix = _usual_matrix(frame.height)
        full_range = int(frame.color_range) == ColorRange.JPEG
        if frame.format.is_rgb:
            full_range = False
        return cls(matrix, full_range, int(frame.color_primaries), int(frame.color_trc))


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


class RgbReader:
    """Decoded pictures => RGB arrays of their own; with `size` (width, height as stored) a picture
    that changes its size is scaled to that one.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self.size = size
        self.reformatter = VideoReformatter()
        self.rotation: int | None = None
        self.orientation = Orientation(False, False, False)

    def read(self, frame: VideoFrame) -> Frame:
        width, height = self.size or (frame.width, frame.height)
        untagged = int(frame.colorspace) == UNTAGGED
        rgb = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_swscale_matrix(UNTAGGED, frame.height) if untagged else None,
            interpolation=TO_RGB,
        )
        return self._orientation(frame).apply(rgb.to_ndarray())

    def _orientation(self, frame: VideoFrame) -> Orientation:
        """Looked up again where the rotation changes.

        Looking makes PyAV tie the frame into a cycle, which stays in memory until Python collects
        cycles: of 1080p, hundreds of frames or 3 GB.
        """
        if frame.rotation != self.rotation:
            self.rotation, self.orientation = frame.rotation, Orientation.of(frame)
        return self.orientation


class YuvMaker:
    """RGB arrays => pictures for an encoder, by `colour`'s matrix and range."""

    def __init__(self, pixel_format: str, colour: ColourTags) -> None:
        self.pixel_format, self.colour = pixel_format, colour
        self.reformatter = VideoReformatter()

    def make(self, frame: Frame) -> VideoFrame:
        """4:2:0 needs even sides: an odd picture gets its last column or row twice."""
        height, width = frame.shape[:2]
        if self.pixel_format == "yuv420p" and (height % 2 or width % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24")
        return self.reformatter.reformat(
            rgb,
            format=self.pixel_format,
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
