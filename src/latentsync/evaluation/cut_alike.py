"""Cuts the faces of two videos of one scene alike, where the reference shows the face."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.evaluation.evaluator import Evaluator, Faces
from latentsync.evaluation.identity import Identities
from latentsync.evaluation.landmarks import lips_of, points_in
from latentsync.evaluation.single_thread import single_thread
from latentsync.faces import ALIGNERS, Face, FaceDetector, align, track
from latentsync.metrics.lips import LIPS

Frame = UInt8[np.ndarray, "h w 3"]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Alike:
    """Aligned faces of both where the reference shows one, the lips of every frame of both, and
    those of the reference in the pixels of its aligned faces."""

    pred: Faces
    ref: Faces
    pred_lips: Float[Tensor, "n 40 2"]
    lips: Float[Tensor, "n 40 2"]
    points: Float[Tensor, "f 40 2"]
    identities: Identities

    def check(self, pred_path: Path, ref_path: Path) -> None:
        """ValueError if one of both shows no face. Such a result has no figures of lips, and would
        flatter their mean over the others."""
        for path, lips in ((ref_path, self.lips), (pred_path, self.pred_lips)):
            if bool(lips.isnan().flatten(1).any(dim=1).all()):
                raise ValueError(f"no face found in any of {len(lips)} frames of {path}")


@single_thread()
def cut_alike(
    pred_frames: Iterable[Frame],
    ref_frames: Iterable[Frame],
    evaluator: Evaluator,
    detector: FaceDetector,
) -> Alike:
    """Faces of both videos where the reference has one, and the lips in all frames of both."""
    resolution = evaluator.model_format.resolution
    aligner = ALIGNERS[evaluator.model_format.aligner](resolution)
    pred_found: list[Face | None] = []
    found: list[Face | None] = []

    def follow_pred(frames: Iterator[Frame]) -> Iterator[Face | None]:
        for face in track(frames, detector):
            pred_found.append(face)
            yield face

    def follow(pairs: Iterator[tuple[Frame, Frame]]) -> Iterator[Face | None]:
        for face in track((ref for _, ref in pairs), detector):
            found.append(face)
            yield face

    def place(followed: Iterator[tuple[tuple[Frame, Frame], Face | None]]) -> Iterable:
        return aligner.placements(
            None if face is None else aligner.points_of(face) for _, face in followed
        )

    # The shorter video ends both.
    pred_followed = (frame for frame, _ in beside(pred_frames, follow_pred))
    followed = beside(zip(pred_followed, ref_frames, strict=False), follow)
    faces, points = [], []
    identities = Identities(evaluator.embedder)
    for (pair, face), placement in beside(followed, place):
        if placement is not None:
            faces.append([align(frame, placement, resolution) for frame in pair])
            points.append(points_in(face, placement.square_matrix(resolution)))
        if face is not None:
            identities.look(*pair, face)
    both = np.array(faces, dtype=np.uint8).reshape(-1, 2, resolution, resolution, 3)
    where = torch.from_numpy(np.array(points).reshape(-1, len(LIPS), 2)).float()
    pred_lips = lips_of(pred_found[: len(found)])
    return Alike(both[:, 0], both[:, 1], pred_lips, lips_of(found), where, identities)


def beside(
    items: Iterable[In], follow: Callable[[Iterator[In]], Iterable[Out]]
) -> Iterator[tuple[In, Out]]:
    """Each item with the result of `follow` for it; buffers only the items `follow` is ahead.

    (`itertools.tee` would keep up to 57 pictures longer than needed, as it frees in blocks.)
    """
    waiting: deque[In] = deque()

    def tap() -> Iterator[In]:
        for item in items:
            waiting.append(item)
            yield item

    for result in follow(tap()):
        yield waiting.popleft(), result
