"""Planes of 4:2:0 frames of 8 or 10 bits: read and write boxes, leaving the rest as stored."""

from typing import Literal, cast

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Bool, Int, UInt, UInt16

Plane = UInt[np.ndarray, "_ _"]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 are exclusive
Chroma = Literal["left", "centre", "topleft"]

PLANAR = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10}  # pixel format => bits per sample
STEP = 16  # box sizes are multiples of this, so that a slightly moved face needs no new buffer
MARGIN = 4  # context around a box, so that chroma at its border is as in the whole picture
GREY = 128
RAMP_SIDE = 16


def planes_of(frame: VideoFrame) -> list[Plane]:
    """Luma and both chroma planes as writable views."""
    level = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    return [
        np.frombuffer(cast("bytes", plane), level).reshape(
            plane.height, plane.line_size // level.itemsize
        )[:, : plane.width]
        for plane in frame.planes
    ]


def like(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """A frame of that size with all tags of `frame`, some of which PyAV cannot set."""
    return VideoReformatter().reformat(
        frame,
        width=width,
        height=height,
        format=frame.format.name,
        interpolation=Interpolation.POINT,
    )


def chroma_of(frame: VideoFrame) -> Chroma | None:
    """The chroma location of a 4:2:0 frame: "left", "centre" or "topleft" of each 2x2 block.

    None for other locations. libav knows it, but PyAV does not expose it, so it is measured on a
    ramp upscaled by libav: if chroma sample 4 is grey, so is pixel 8 if samples are on the left
    pixels.
    """
    side = RAMP_SIDE if frame.width != RAMP_SIDE else 2 * RAMP_SIDE
    ramp = GREY + 8 * (np.arange(side // 2) - 4)
    across, down = (_pixel_eight(frame, side, values) for values in (ramp[None], ramp[:, None]))
    if down == GREY:
        return "topleft" if across == GREY else None
    return "left" if across == GREY else "centre"


def _pixel_eight(frame: VideoFrame, side: int, values: Int[np.ndarray, "_ _"]) -> int:
    """Chroma of the upscaled ramp at pixel (8, 8), in 8-bit levels."""
    small = like(frame, side, side)
    steps = 1 << (PLANAR[frame.format.name] - 8)
    for plane in planes_of(small)[1:]:
        plane[:] = values * steps
    large = VideoReformatter().reformat(
        small,
        format="yuv444p" if steps == 1 else "yuv444p10le",
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
    )
    return round(int(planes_of(large)[1][8, 8]) / steps)


def grown(box: Box, width: int, height: int) -> Box:
    """The box with a margin, even coordinates, and sizes in steps where the picture allows."""
    sides = [_grown(*span) for span in ((box[0], box[2], width), (box[1], box[3], height))]
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1


def _grown(start: int, end: int, length: int) -> tuple[int, int]:
    size = min(length, -(-(end - start + 2 * MARGIN) // STEP) * STEP)
    first = max(0, min(start - MARGIN, length - size)) // 2 * 2
    return first, min(first + size, length)


def copy_part(source: VideoFrame, target: VideoFrame, x: int, y: int) -> None:
    """Fill the target from the source at x, y, both even."""
    for number, (old, new) in enumerate(zip(planes_of(source), planes_of(target), strict=True)):
        left, top = (x, y) if number == 0 else (x // 2, y // 2)
        new[:] = old[top : top + new.shape[0], left : left + new.shape[1]]


def paint(
    target: list[Plane], parts: list[Plane], changed: Bool[np.ndarray, "h w"], chroma: Chroma
) -> None:
    """Write the changed pixels of 4:4:4 `parts` into 4:2:0 planes of the same, even size."""
    np.copyto(target[0], parts[0], where=changed)
    # A chroma sample changes with every pixel it averages.
    reach = {"centre": (1, 1), "left": (1, 3), "topleft": (3, 3)}[chroma]
    touched = cv2.dilate(changed.astype(np.uint8), np.ones(reach, np.uint8)).astype(bool)
    touched = touched[:, 0::2] | touched[:, 1::2] if chroma == "centre" else touched[:, 0::2]
    touched = touched[0::2] if chroma == "topleft" else touched[0::2] | touched[1::2]
    for old, new in zip(target[1:], parts[1:], strict=True):
        np.copyto(old, halved(new, chroma), where=touched)


def halved(plane: Plane, chroma: Chroma) -> Plane:
    """Full-resolution chroma => one sample per 2x2 block, at the given location."""
    height, width = plane.shape
    if chroma == "centre":
        return cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    if chroma == "topleft":
        rows, total = _weighted(plane.T).T, 16
    else:
        rows, total = plane[0::2].astype(np.uint16) + plane[1::2], 8
    return ((_weighted(rows) + total // 2) // total).astype(plane.dtype)


def _weighted(rows: Plane) -> UInt16[np.ndarray, "_ _"]:
    """[1, 2, 1] filter at every other column: 4 times the mean."""
    around = cv2.copyMakeBorder(rows.astype(np.uint16), 0, 0, 1, 0, cv2.BORDER_REPLICATE)
    return around[:, 0:-1:2] + 2 * around[:, 1::2] + around[:, 2::2]
