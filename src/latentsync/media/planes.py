"""The planes of 8-bit 4:2:0 pictures: parts read and written, the rest left as it is stored."""

from typing import Literal, cast

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Bool, UInt8

Plane = UInt8[np.ndarray, "_ _"]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 are not part of it
Chroma = Literal["left", "centre"]

PLANAR = frozenset(("yuv420p", "yuvj420p"))
STEP = 16  # sizes of parts are multiples: a face that moves a little needs no new picture
MARGIN = 4  # around a part, so that chroma at its border is what it is in the whole picture
GREY = 128
RAMP_SIDE = 16


def planes_of(frame: VideoFrame) -> list[Plane]:
    """Brightness and both chromas, as views that may be written to."""
    return [
        np.frombuffer(cast("bytes", plane), np.uint8).reshape(plane.height, plane.line_size)[
            :, : plane.width
        ]
        for plane in frame.planes
    ]


def like(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """A picture of that size with all tags of `frame`, of which some cannot be set by hand."""
    return VideoReformatter().reformat(
        frame,
        width=width,
        height=height,
        format=frame.format.name,
        interpolation=Interpolation.POINT,
    )


def chroma_of(frame: VideoFrame) -> Chroma | None:
    """Where a 4:2:0 picture samples chroma: at the left two of four pixels, or in their centre.

    None for other places. libav knows, but PyAV does not tell: it is read off a ramp that libav
    scales up. Where chroma sample 4 is grey, so is pixel 8 if samples lie on the left pixels.
    """
    side = RAMP_SIDE if frame.width != RAMP_SIDE else 2 * RAMP_SIDE
    ramp = (GREY + 8 * (np.arange(side // 2) - 4)).astype(np.uint8)
    across, down = (_pixel_eight(frame, side, values) for values in (ramp[None], ramp[:, None]))
    if down == GREY:
        return None
    return "left" if across == GREY else "centre"


def _pixel_eight(frame: VideoFrame, side: int, values: Plane) -> int:
    small = like(frame, side, side)
    for plane in planes_of(small)[1:]:
        plane[:] = values
    large = VideoReformatter().reformat(
        small, format="yuv444p", interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND
    )
    return int(planes_of(large)[1][8, 8])


def grown(box: Box, width: int, height: int) -> Box:
    """A box on even places around this one, with a margin, and in steps of size if it can be."""
    sides = [_grown(*span) for span in ((box[0], box[2], width), (box[1], box[3], height))]
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1


def _grown(start: int, end: int, length: int) -> tuple[int, int]:
    size = min(length, -(-(end - start + 2 * MARGIN) // STEP) * STEP)
    first = max(0, min(start - MARGIN, length - size)) // 2 * 2
    return first, min(first + size, length)


def copy_part(source: VideoFrame, target: VideoFrame, x: int, y: int) -> None:
    """Fill the target with the source's part at x, y, both even."""
    for number, (old, new) in enumerate(zip(planes_of(source), planes_of(target), strict=True)):
        left, top = (x, y) if number == 0 else (x // 2, y // 2)
        new[:] = old[top : top + new.shape[0], left : left + new.shape[1]]


def paint(
    target: list[Plane], parts: list[Plane], changed: Bool[np.ndarray, "h w"], chroma: Chroma
) -> None:
    """Write changed pixels of 4:4:4 `parts` into 4:2:0 planes of the same size, both even."""
    np.copyto(target[0], parts[0], where=changed)
    touched = cv2.dilate(changed.astype(np.uint8), np.ones((1, 3), np.uint8))
    if chroma == "centre":
        touched = changed[:, 0::2] | changed[:, 1::2]
    else:
        touched = touched[:, 0::2].astype(bool)
    touched = touched[0::2] | touched[1::2]
    for old, new in zip(target[1:], parts[1:], strict=True):
        np.copyto(old, halved(new, chroma), where=touched)


def halved(plane: Plane, chroma: Chroma) -> Plane:
    """Chroma of every pixel => of every four, sampled where `chroma` says."""
    height, width = plane.shape
    if chroma == "centre":
        return cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    rows = plane[0::2].astype(np.uint16) + plane[1::2]
    around = cv2.copyMakeBorder(rows, 0, 0, 1, 0, cv2.BORDER_REPLICATE)
    total = around[:, 0:-1:2] + 2 * around[:, 1::2] + around[:, 2::2]
    return ((total + 4) // 8).astype(np.uint8)
