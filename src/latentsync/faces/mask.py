"""The painted region of the square face: 1 = keep, 0 = paint."""

import json
import math
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

SPANS_SIZE = 256


# Top, bottom, left and right of mouth and chin, as shares of the aligned face's side.
# In 775 of 796 frames of 24 public recordings all points of the lips lie inside; in the others a
# raised upper lip, or a corner of a turned head, lies outside by up to .06.
MOUTH_BOX = (17 / 32, 29 / 32, 8 / 32, 24 / 32)


class Rows(NamedTuple):
    """Rows `top` (inclusive) to `bottom` (exclusive) of a face of 256 pixels."""

    top: int = 0
    bottom: int = SPANS_SIZE


ALL_ROWS = Rows()


def load_mask(
    name: str = "mask", resolution: int = 256, *, rows: Rows = ALL_ROWS
) -> Float[np.ndarray, "r r"]:
    """A mask as float32; {0, 1} at 256, grey at edges of other sizes. Only `rows` are painted."""
    spans = _spans()
    if name not in spans:
        raise ValueError(f"no mask is called {name!r}; there are {', '.join(sorted(spans))}")
    inside = [span for span in spans[name] if rows.top <= span[0] < rows.bottom]
    if not inside:
        raise ValueError(
            f"faces.mask_top={rows.top} and faces.mask_bottom={rows.bottom} leave nothing to paint "
            f"of {name!r}, which has the rows {spans[name][0][0]} to {spans[name][-1][0]} of 256"
        )
    levels = np.full((SPANS_SIZE, SPANS_SIZE), 255, dtype=np.uint8)
    for row, first, last in inside:
        levels[row, first : last + 1] = 0
    size = (resolution, resolution)
    levels = cv2.resize(levels, size, interpolation=cv2.INTER_LANCZOS4)
    return levels.astype(np.float32) / 255


def mouth_shown(size: int) -> Float[np.ndarray, "s s"]:
    """A face of `size` cells without its mouth: 0 from under the nose to the chin, else 1."""
    top, bottom, left, right = (round(edge * size) for edge in MOUTH_BOX)
    shown = np.ones((size, size), dtype=np.float32)
    shown[top:bottom, left:right] = 0
    return shown


def mask_names() -> tuple[str, ...]:
    """The names `load_mask` accepts."""
    return tuple(sorted(_spans()))


@lru_cache(maxsize=1)
def _spans() -> dict[str, list[list[int]]]:
    text = resources.files(__package__).joinpath("mask_spans.json").read_text()
    return json.loads(text)["spans"]


@lru_cache(maxsize=64)
def paint_weights(
    name: str = "mask",
    resolution: int = 256,
    *,
    margin: int = 0,
    feather: float = 0.035,
    rows: Rows = ALL_ROWS,
) -> Float[np.ndarray, "r r"]:
    """Blending weight of the painted face: 0 outside the mask and at its edge. Read-only.

    It rises over `feather` of the face's size, inside the painted region. The zero edge is as wide
    as the support of bilinear sampling, plus `margin` pixels for faces that will be downscaled.
    """
    painted = (load_mask(name, resolution, rows=rows) < 0.5).astype(np.uint8)
    edge = math.sqrt(2) + margin
    depth = cv2.distanceTransform(painted, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - edge
    rise = np.clip(depth / max(feather * resolution, 1), 0, 1)
    weights = (rise * rise * (3 - 2 * rise)).astype(np.float32)
    weights.setflags(write=False)
    return weights
