"""Pastes square faces back into their frames, within the face's box only."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch.nn.functional import interpolate

from latentsync.faces.mask import ALL_ROWS, Rows, paint_weights
from latentsync.faces.placement import Placement
from latentsync.faces.warp import Box, Matrix, compose, invert, mean_scale, source_box, warp

Frame = UInt8[np.ndarray, "h w 3"]
Square = Num[np.ndarray, "r r 3"]  # levels: uint8, or float that may exceed 0..255


def restore(
    frames: Iterable[Frame],
    faces: Iterable[Square | None],
    placements: Iterable[Placement | None],
    *,
    region: str = "mask",
    mask: str = "mask",
) -> Iterator[Frame]:
    """Paste every face into its frame; frames without a face are returned unchanged."""
    for frame, face, placement in zip(frames, faces, placements, strict=True):
        if face is None or placement is None:
            yield frame
        else:
            yield paste(frame, face, placement, region=region, mask=mask)


def paste(
    frame: Frame,
    face: Square,
    placement: Placement,
    *,
    region: str = "mask",
    mask: str = "mask",
    rows: Rows = ALL_ROWS,
    occluded: Float[np.ndarray, "r r"] | None = None,
    strength: float = 1.0,
) -> Frame:
    """A copy of the frame with the face pasted; `strength` below 1 blends it with the frame.

    `mask` blends only the painted region, with a soft edge inside it: all other pixels keep their
    levels, as do rows of the face outside `rows`, and pixels by the share 0 to 1 in
    `occluded`. `crop` blends the whole crop rectangle, as the official code does.
    """
    if region == "mask":
        weights = _square_weights(placement, face.shape[0], mask, rows)
        weights = weights if occluded is None else weights * (1 - occluded)
        return paste_mask(frame, face, placement, weights, strength)
    if region == "crop":
        return paste_crop(frame, face, placement, strength)
    raise ValueError(f'region is "mask" or "crop", got {region!r}')


def paste_mask(
    frame: Frame,
    face: Square,
    placement: Placement,
    weights: Float[np.ndarray, "r r"],
    strength: float = 1.0,
) -> Frame:
    """The frame with the face blended in by per-pixel weights."""
    resolution = face.shape[0]
    matrix = placement.square_matrix(resolution)
    box = _frame_box(matrix, _rectangle(weights), frame.shape[:2])
    back = _into_box(invert(matrix), box)
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) <= 0:
        return frame.copy()
    painted = warp(
        face, back, size, interpolation=cv2.INTER_CUBIC, border_mode=cv2.BORDER_REPLICATE
    )
    weights = warp(weights, back, size) * np.float32(strength)
    return _blend(frame, painted.astype(np.float32), weights, box, rounded=True)


def paste_crop(frame: Frame, face: Square, placement: Placement, strength: float = 1.0) -> Frame:
    """The frame with the whole crop blended in: the official restoration, within the crop's box."""
    width, height = placement.size
    box = _frame_box(placement.matrix, (0, 0, width, height), frame.shape[:2])
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) <= 0:
        return frame.copy()
    back = _into_box(invert(placement.matrix), box)
    crop = _resize_antialias(face, (height, width))
    painted = cv2.warpAffine(crop, back, size, borderMode=cv2.BORDER_REPLICATE)
    covered = cv2.warpAffine(np.ones((height, width), dtype=np.float32), back, size)
    covered = cv2.erode(covered, np.ones((2, 2), dtype=np.uint8))
    edge = int(np.sqrt(covered.sum(dtype=np.float64))) // 20
    weights = covered
    if edge:
        weights = cv2.erode(covered, np.ones((2 * edge, 2 * edge), dtype=np.uint8))
        # Sigma 0: OpenCV derives it from the kernel size.
        weights = cv2.GaussianBlur(weights, (2 * edge + 1, 2 * edge + 1), 0)
    painted = np.clip(painted, 0, 255) * covered[..., None]
    return _blend(frame, painted, weights * np.float32(strength), box, rounded=False)


def pasted_box(
    placement: Placement,
    resolution: int,
    frame_size: tuple[int, int],
    *,
    region: str = "mask",
    mask: str = "mask",
    rows: Rows = ALL_ROWS,
) -> Box:
    """The box x0, y0, x1, y1 of a (h, w) frame outside of which `paste` changes nothing.

    Empty (x1 = x0 or y1 = y0) if the face is outside the frame.
    """
    if region == "crop":
        return _frame_box(placement.matrix, (0, 0, *placement.size), frame_size)
    inside = _rectangle(_square_weights(placement, resolution, mask, rows))
    return _frame_box(placement.square_matrix(resolution), inside, frame_size)


def _square_weights(
    placement: Placement, resolution: int, mask: str, rows: Rows
) -> Float[np.ndarray, "r r"]:
    # Face pixels covered by one frame pixel when the face is downscaled.
    shrink = int(mean_scale(placement.square_matrix(resolution)))
    margin = 2 * shrink if shrink >= 2 else 0
    return paint_weights(mask, resolution, margin=margin, rows=rows)


def _rectangle(weights: Float[np.ndarray, "r r"]) -> tuple[int, int, int, int]:
    """x, y, w, h of the painted region."""
    x, y, width, height = cv2.boundingRect((weights > 0).astype(np.uint8))
    return x, y, width, height


def _frame_box(
    matrix: Matrix, inside: tuple[int, int, int, int], frame_size: tuple[int, int]
) -> Box:
    """Bounding box in an (h, w) frame of the x, y, w, h `inside` of the picture `matrix` makes."""
    x, y, width, height = inside
    shifted = compose(np.array([[1.0, 0, -x], [0, 1.0, -y]]), matrix)
    return source_box(shifted, (width, height), (frame_size[1], frame_size[0]), margin=3)


def _into_box(matrix: Matrix, box: Box) -> Matrix:
    return matrix - np.array([[0, 0, box[0]], [0, 0, box[1]]])


def _resize_antialias(face: Square, size: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    levels = torch.from_numpy(face.astype(np.float32)).permute(2, 0, 1)[None]
    resized = interpolate(levels, size, mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _blend(
    frame: Frame,
    painted: Float[np.ndarray, "bh bw 3"],
    weights: Float[np.ndarray, "bh bw"],
    box: Box,
    *,
    rounded: bool,
) -> Frame:
    x0, y0, x1, y1 = box
    out = frame.copy()
    part = out[y0:y1, x0:x1]
    weight = weights[..., None]
    blended = weight * painted + (1 - weight) * part
    part[:] = np.rint(blended) if rounded else blended
    return out
