"""BlazeFace (MediaPipe's back-camera model) in OpenCV: boxes and eyes, in frame pixels."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import suppressed
from latentsync.faces.warp import invert, transform, warp

INPUT_SIZE = 256
# The network detects faces of eight input pixels: 23 frame pixels in a tile of this side.
SMALLEST_TILE = 720
# Boxes narrower than this share of a tile are imprecise and refined in a tile of their own.
CLOSER_BELOW = 0.15
SAMPLES = 3  # samples of a frame per network input pixel, along each side, at least
NUM_BOX_VALUES = 16  # centre, size, six points

Tile = tuple[float, float, float]  # left, top, side


def read_network(path: Path) -> cv2.dnn.Net:
    # The new graph engine of OpenCV 5 loses the score output of BlazeFace.
    if int(cv2.__version__.split(".")[0]) >= 5:
        return cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)
    return cv2.dnn.readNetFromTFLite(str(path))


def anchors() -> Float[np.ndarray, "896 2"]:
    """Centres of the SSD anchors: two per cell of a 16x16 grid, then six per cell of an 8x8 one."""
    grids = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        centers = np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5
        grids.append(np.repeat(centers / cells * INPUT_SIZE, per_cell, axis=0))
    return np.concatenate(grids)


class BlazeFace:
    def __init__(self, path: Path, *, min_score: float = 0.5) -> None:
        self.network = read_network(path)
        self.min_logit = float(np.log(min_score / (1 - min_score)))
        self.anchors = anchors()

    def levels(self, frame: UInt8[np.ndarray, "h w 3"]) -> Iterator[Float[np.ndarray, "n 9"]]:
        """Faces in the whole frame, then in ever smaller overlapping tiles, lazily.

        A face is x0, y0, x1, y1, both eyes' x and y, score; best first.
        """
        for tiles in tile_levels(frame.shape[1], frame.shape[0]):
            found = suppress(np.concatenate([self.look(frame, tile) for tile in tiles]))
            small = (found[:, 2] - found[:, 0]) < CLOSER_BELOW * tiles[0][2]
            closer = [self.look_closer(frame, face) for face in found[small]]
            yield suppress(np.concatenate([found[~small], *closer]))

    def first_look(self, frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 9"]:
        """Faces in the whole frame in one pass, without refinement.

        Large frames are subsampled before resizing, a third faster; boxes move by a few percent of
        their size.
        """
        step = max(max(frame.shape[:2]) // (SAMPLES * INPUT_SIZE), 1)
        samples = np.ascontiguousarray(frame[::step, ::step])
        tile = tile_levels(samples.shape[1], samples.shape[0])[0][0]
        found = suppress(self.look(samples, tile))
        # Sample 0 is pixel 0, so coordinates scale without an offset.
        found[:, :8] *= step
        return found

    def look_closer(
        self, frame: UInt8[np.ndarray, "h w 3"], face: Float[np.ndarray, "9"]
    ) -> Float[np.ndarray, "n 9"]:
        closer = self.look(frame, tile_around(face))
        return closer if len(closer) else face[None]

    def look(self, frame: UInt8[np.ndarray, "h w 3"], tile: Tile) -> Float[np.ndarray, "n 9"]:
        left, top, side = tile
        scale = INPUT_SIZE / side
        shift = 0.5 * scale - 0.5
        matrix = np.array([[scale, 0, shift - scale * left], [0, scale, shift - scale * top]])
        picture = warp(frame, matrix, (INPUT_SIZE, INPUT_SIZE))
        self.network.setInput(cv2.dnn.blobFromImage(picture, 1 / 127.5, mean=(127.5,) * 3))
        logits, raw = self.network.forward(["classificators", "regressors"])
        logits = logits.reshape(-1)
        sure = logits >= self.min_logit
        values = raw.reshape(-1, NUM_BOX_VALUES // 2, 2)[sure].astype(np.float64)
        center, half = values[:, 0] + self.anchors[sure], values[:, 1] / 2
        eyes = values[:, 2:4] + self.anchors[sure, None]
        points = np.concatenate([(center - half)[:, None], (center + half)[:, None], eyes], axis=1)
        in_frame = transform(invert(matrix), points.reshape(-1, 2) - 0.5).reshape(-1, 8)
        scores = 1 / (1 + np.exp(-logits[sure].astype(np.float64)))
        return np.concatenate([in_frame, scores[:, None]], axis=1)


def tile_levels(width: int, height: int) -> list[list[Tile]]:
    """Square tiles: the whole frame, then with its short side, halves of that."""
    longest, side = max(width, height), float(min(width, height))
    levels = [[((width - longest) / 2, (height - longest) / 2, float(longest))]]
    if side == longest:
        side /= 2
    while side >= SMALLEST_TILE:
        levels.append([(x, y, side) for y in _starts(height, side) for x in _starts(width, side)])
        side /= 2
    return levels


def _starts(length: int, side: float) -> Float[np.ndarray, " n"]:
    # Neighbours overlap by a third, more than the size of faces only found at this level.
    count = int(np.ceil((length - side) / (side * 2 / 3))) + 1
    return np.linspace(0, length - side, count)


def tile_around(face: Float[np.ndarray, "9"]) -> Tile:
    left, top, right, bottom = face[:4]
    side = 3.5 * max(right - left, bottom - top)
    return ((left + right - side) / 2, (top + bottom - side) / 2, side)


def suppress(found: Float[np.ndarray, "n 9"], max_overlap: float = 0.3) -> Float[np.ndarray, "m 9"]:
    """Non-maximum suppression that returns the score-weighted mean of each group."""
    ordered = found[np.argsort(-found[:, 8])]
    kept = []
    for places in suppressed(ordered[:, :4], max_overlap):
        group = ordered[places]
        mean = np.average(group[:, :8], axis=0, weights=group[:, 8])
        kept.append(np.append(mean, group[0, 8]))
    return np.array(kept).reshape(-1, 9)
