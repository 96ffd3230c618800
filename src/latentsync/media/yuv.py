"""Pictures => frames for an encoder: stored pixels unchanged, generated ones in closed form."""

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from jaxtyping import Float

from latentsync.media.colour import (
    UNTAGGED,
    UPRIGHT,
    ColourTags,
    Frame,
    is_yuv,
    swscale_matrix,
)
from latentsync.media.frame import Part, Picture, RgbReader
from latentsync.media.hdr import from_sdr, is_hdr
from latentsync.media.planes import PLANAR, Plane, copy_part, halved, paint, planes_of

# Chroma is the rounded mean of four pixels, so it is located in their centre.
TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
# Luma coefficients of red and blue, by matrix (ITU-T H.273).
LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


class YuvMaker:
    """Pictures or RGB arrays => encoder frames in the format given by `colour`."""

    def __init__(self, pixel_format: str, colour: ColourTags) -> None:
        self.pixel_format, self.colour = pixel_format, colour
        self.reformatter = VideoReformatter()

    @property
    def is_halved(self) -> bool:
        """Whether chroma is subsampled 4:2:0."""
        return self.pixel_format in PLANAR

    def make(self, frame: Frame | Picture) -> VideoFrame:
        """An encoder frame; of a picture from a file, only the changed pixels are converted.

        Everything else is copied if both formats are equal; if only the chroma format differs, luma
        is. 4:2:0 needs even sides: odd pictures get their last column or row repeated.
        """
        if isinstance(frame, Picture):
            stored = frame.source
            if isinstance(stored, VideoFrame) and self.is_halved and is_yuv(stored):
                return self._patched(self._base(stored, frame.reader), frame)
            frame = frame.rgb()
        height, width = frame.shape[:2]
        if self.is_halved and (height % 2 or width % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.pixel_format == "yuv420p" and self.colour.chroma == "centre" and not self._is_deep:
            return self._convert(frame, self.pixel_format, height)
        if self.is_halved:
            made = self._empty(frame.shape[1], frame.shape[0])
            self._fill(made, self._full_planes(frame, height))
            return made
        return self._convert(frame, self.pixel_format, height)

    def keeps(self, stored: VideoFrame, reader: RgbReader) -> bool:
        """Whether the stored planes can be copied unchanged."""
        colour = self.colour
        return (
            self.is_halved
            and reader.is_plain(stored)
            and PLANAR[stored.format.name] == colour.depth
            and int(stored.colorspace) == colour.matrix
            and (int(stored.color_range) == ColorRange.JPEG) == colour.full_range
        )

    @property
    def _is_deep(self) -> bool:
        """Whether libswscale cannot convert it from 8-bit RGB."""
        return self.colour.depth > 8 or is_hdr(self.colour.transfer)

    def _base(self, stored: VideoFrame, reader: RgbReader) -> VideoFrame:
        """A new frame with the stored picture, upright and with even sides."""
        height, width = reader.shape(stored)[:2]
        made = self._empty(width + width % 2, height + height % 2)
        if self.keeps(stored, reader):
            copy_part(stored, made, 0, 0)
            return made
        turned = reader.orientation_of(stored)
        fits = turned == UPRIGHT
        planes = planes_of(
            self._reformatted(stored, reader, self.pixel_format if fits else self._full_format)
        )
        if fits:
            for new, old in zip(planes_of(made), planes, strict=True):
                new[:] = _padded(old, new.shape)
        else:
            self._fill(made, [turned.apply(np.ascontiguousarray(plane)) for plane in planes])
        return made

    def _reformatted(self, stored: VideoFrame, reader: RgbReader, pixel_format: str) -> VideoFrame:
        """As stored, except for the format and, if they change midway, size and tags."""
        width, height = reader.size or (stored.width, stored.height)
        matrix = int(stored.colorspace)
        # A rare matrix keeps its values, as an untagged one does.
        source = swscale_matrix(matrix if matrix in LUMA else UNTAGGED, stored.height)
        return self.reformatter.reformat(
            stored,
            width=width,
            height=height,
            format=pixel_format,
            src_colorspace=source,
            dst_colorspace=swscale_matrix(self.colour.matrix, stored.height),
            src_color_range=_range(int(stored.color_range) == ColorRange.JPEG),
            dst_color_range=_range(self.colour.full_range),
            interpolation=TO_YUV,
        )

    def _patched(self, made: VideoFrame, picture: Picture) -> VideoFrame:
        planes = planes_of(made)
        for part in picture.parts:
            part = _even(part)
            x0, y0, x1, y1 = part.box
            inside = [
                planes[0][y0:y1, x0:x1],
                *(plane[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for plane in planes[1:]),
            ]
            changed = (part.before != part.after).any(axis=-1)
            paint(inside, self._full_planes(part.after, made.height), changed, self.colour.chroma)
        return made

    @property
    def _full_format(self) -> str:
        return "yuv444p" if self.colour.depth == 8 else "yuv444p10le"

    def _full_planes(self, frame: Frame, height: int) -> list[Plane]:
        """Planes in 4:4:4."""
        if not self._is_deep:
            return planes_of(self._convert(frame, "yuv444p", height))
        colour = self.colour
        if is_hdr(colour.transfer):
            rgb = from_sdr(frame, transfer=colour.transfer, primaries=colour.primaries)
        else:
            rgb = frame.astype(np.float32) / 255
        matrix = swscale_matrix(colour.matrix, height)
        return coded(rgb, matrix=matrix, full_range=colour.full_range, depth=colour.depth)

    def _fill(self, made: VideoFrame, full: list[Plane]) -> None:
        """Write 4:4:4 planes into 4:2:0 ones that are at most one column and row larger."""
        brightness, *chromas = planes_of(made)
        brightness[:] = _padded(full[0], brightness.shape)
        for new, old in zip(chromas, full[1:], strict=True):
            new[:] = halved(_padded(old, brightness.shape), self.colour.chroma)

    def _empty(self, width: int, height: int) -> VideoFrame:
        made = VideoFrame(width, height, self.pixel_format)
        made.colorspace = swscale_matrix(self.colour.matrix, height)
        made.color_range = _range(self.colour.full_range)
        return made

    def _convert(self, frame: Frame, pixel_format: str, height: int) -> VideoFrame:
        rgb = VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24")
        return self.reformatter.reformat(
            rgb,
            format=pixel_format,
            dst_colorspace=swscale_matrix(self.colour.matrix, height),
            dst_color_range=_range(self.colour.full_range),
            interpolation=TO_YUV,
        )


def coded(
    rgb: Float[np.ndarray, "h w 3"], *, matrix: int, full_range: bool, depth: int
) -> list[Plane]:
    """R'G'B' in 0..1 => full-resolution luma and chroma planes (ITU-T H.273)."""
    red, blue = LUMA[matrix]
    light = rgb @ np.array([red, 1 - red - blue, blue], np.float32)
    chromas = ((rgb[..., 2] - light) / (2 * (1 - blue)), (rgb[..., 0] - light) / (2 * (1 - red)))
    most, unit = (1 << depth) - 1, 1 << (depth - 8)
    low, span, chroma_span = (0, most, most) if full_range else (16 * unit, 219 * unit, 224 * unit)
    planes = [low + span * light, *(128 * unit + chroma_span * chroma for chroma in chromas)]
    level = np.uint8 if depth == 8 else np.uint16
    return [np.rint(plane).clip(0, most).astype(level) for plane in planes]


def _range(full: bool) -> int:
    return int(ColorRange.JPEG if full else ColorRange.MPEG)


def _padded(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """The plane with its last column and row repeated to the shape."""
    below, beside = (new - old for new, old in zip(shape, plane.shape, strict=True))
    return np.pad(plane, ((0, below), (0, beside)), mode="edge") if below or beside else plane


def _even(part: Part) -> Part:
    """The part extended to an even column and row by repetition at the edge of the picture."""
    x0, y0, x1, y1 = part.box
    if x1 % 2 == 0 and y1 % 2 == 0:
        return part
    before, after = (
        cv2.copyMakeBorder(levels, 0, y1 % 2, 0, x1 % 2, cv2.BORDER_REPLICATE)
        for levels in (part.before, part.after)
    )
    return Part((x0, y0, x1 + x1 % 2, y1 + y1 % 2), before, after)
