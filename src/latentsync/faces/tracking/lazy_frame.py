"""Frames that become RGB arrays when, and if, somebody looks at them."""

from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8


@runtime_checkable
class LazyFrame(Protocol):
    """A frame of which a few pixels, for cuts, cost less than all of them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        """The whole frame, converted once."""

    def sampled(self, size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
        """Single pixels on a (columns, rows) grid, those that `cv2.INTER_NEAREST` takes."""


@runtime_checkable
class PartlyExact(LazyFrame, Protocol):
    """One whose `rgb` is good enough for detectors, and whose parts are exact."""

    def part(self, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
        """The pixels of x0, y0 to x1, y1."""


AnyFrame = UInt8[np.ndarray, "h w 3"] | LazyFrame


def rgb_of(frame: AnyFrame) -> UInt8[np.ndarray, "h w 3"]:
    return frame if isinstance(frame, np.ndarray) else frame.rgb()


def part_of(frame: AnyFrame, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The pixels of x0, y0 to x1, y1; exactly, where a frame is only quickly seen as a whole."""
    if isinstance(frame, PartlyExact):
        return frame.part(box)
    x0, y0, x1, y1 = box
    return rgb_of(frame)[y0:y1, x0:x1]


def sampled(frame: AnyFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
    if isinstance(frame, np.ndarray):
        return cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST)
    return frame.sampled(size)
