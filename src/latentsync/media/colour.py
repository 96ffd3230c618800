"""Colour tags of a file, and the rotation of its pictures for display."""

import struct
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from jaxtyping import UInt, UInt8

from latentsync.media.planes import PLANAR, Chroma, chroma_of

Frame = UInt8[np.ndarray, "h w 3"]

UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
HD_HEIGHT = 720  # players treat untagged video of at least this height as BT.709
# Matrices supported by libswscale; 5 and 6 are both BT.601.
KNOWN_MATRICES = frozenset((1, 4, 5, 6, 7, 9))
SWSCALE_601 = 5
# Units of encoders for the mastering display: 1/50000 for x and y, 1/10000 nit.
PER_XY, PER_NIT = 50_000, 10_000


@dataclass(frozen=True, slots=True)
class ColourTags:
    """Colour properties of a file as ITU-T H.273 codes (2: unspecified).

    `full_range`: levels 0-255 instead of 16-235. `chroma`: sample location in 4:2:0. `depth`: 8 or
    10 bits. `mastering` and `light`: an HDR file's mastering display, and its maximum and average
    light level in nits, in x265's notation; "" if unspecified.
    """

    matrix: int = int(Colorspace.ITU709)
    full_range: bool = False
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)
    chroma: Chroma = "centre"
    depth: int = 8
    mastering: str = ""
    light: str = ""

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """The tags of a decoded frame; RGB and rare matrices become the usual one of its height."""
        matrix = int(frame.colorspace)
        if matrix != UNTAGGED and matrix not in KNOWN_MATRICES:
            matrix = usual_matrix(frame.height)
        full_range = int(frame.color_range) == ColorRange.JPEG
        if frame.format.is_rgb:
            full_range = False
        chroma = None
        if is_yuv(frame) and Orientation.of(frame) == UPRIGHT:
            chroma = chroma_of(in_planes(frame))
        return cls(
            matrix,
            full_range,
            int(frame.color_primaries),
            int(frame.color_trc),
            chroma or "centre",
            depth_of(frame.format),
            _mastering(frame),
            _light(frame),
        )


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels are rotated for display: transposed first, then mirrored."""

    transposed: bool
    mirror_x: bool
    mirror_y: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """The quarter turn closest to the frame's display matrix (phones store one)."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if not isinstance(matrix, SideData):
            return cls(False, False, False)
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5]
        if abs(int(a)) >= abs(int(b)):
            return cls(False, bool(a < 0), bool(d < 0))
        return cls(True, bool(c < 0), bool(b < 0))

    @property
    def degrees(self) -> int:
        """Clockwise rotation; of a mirrored picture, its rotation without the mirroring."""
        if self.transposed:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    def apply(self, image: UInt[np.ndarray, "h w *c"]) -> UInt[np.ndarray, "h2 w2 *c"]:
        """The picture, or one of its planes, as displayed."""
        if self.transposed:
            image = cv2.transpose(image)
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else int(self.mirror_x)
            image = cv2.flip(image, code)
        return image


UPRIGHT = Orientation(False, False, False)


def is_yuv(frame: VideoFrame) -> bool:
    """Whether it is stored as luma and two chroma components."""
    return not frame.format.is_rgb and len(frame.format.components) >= 3


def depth_of(stored: VideoFormat) -> int:
    """The bit depth used for a pixel format: 8, or 10 for anything deeper; 8 for grey."""
    if len(stored.components) < 3:
        return 8
    return 8 if max(component.bits for component in stored.components) == 8 else 10


def in_planes(frame: VideoFrame) -> VideoFrame:
    """The frame as planar 4:2:0 of the depth used; the frame itself if it is stored so."""
    if frame.format.name in PLANAR:
        return frame
    return VideoReformatter().reformat(
        frame,
        format="yuv420p" if depth_of(frame.format) == 8 else "yuv420p10le",
        src_color_range=int(frame.color_range),
        dst_color_range=int(frame.color_range),
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND,
    )


def usual_matrix(height: int) -> int:
    return int(Colorspace.ITU709 if height >= HD_HEIGHT else Colorspace.ITU601)


def swscale_matrix(matrix: int, height: int) -> int:
    if matrix == UNTAGGED:
        return usual_matrix(height)
    return SWSCALE_601 if matrix == 6 else matrix


def _mastering(frame: VideoFrame) -> str:
    """Parses AVMasteringDisplayMetadata: ten rationals, then flags for primaries and luminance."""
    stored = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if not isinstance(stored, SideData):
        return ""
    numbers = struct.unpack_from("22i", bytes(stored))
    ratios = [a / b if b else 0.0 for a, b in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
    if not all(numbers[20:]):
        return ""
    xy = [round(value * PER_XY) for value in ratios[:8]]
    least, most = (round(value * PER_NIT) for value in ratios[8:])
    red, green, blue, white = (f"({x},{y})" for x, y in zip(xy[::2], xy[1::2], strict=True))
    return f"G{green}B{blue}R{red}WP{white}L({most},{least})"


def _light(frame: VideoFrame) -> str:
    """Parses AVContentLightMetadata."""
    stored = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    if not isinstance(stored, SideData):
        return ""
    most, mean = struct.unpack_from("2I", bytes(stored))
    return f"{most},{mean}"
