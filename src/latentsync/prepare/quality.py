"""Measures of a clip's picture that need no reference: blur, motion, upscaling, and HyperIQA."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from latentsync.prepare.stage import AlignedSegment, Measures

Face = UInt8[np.ndarray, "r r 3"]
Grey = Float[np.ndarray, "h w"]

NETWORKS = ("hyperiqa",)
BLUR_SIZE, MOTION_SIZE = 128, 32
MOTION_FRAMES = 5
BLUR_STEP = 5  # every fifth frame
BLUR_WIDTH = 9
NUM_RATED = 8
# Of an aligned face: without hair and background.
INSIDE = (slice(MOTION_SIZE // 4, -2), slice(MOTION_SIZE // 5, -MOTION_SIZE // 5))


@dataclass(kw_only=True)
class MeasureQuality:
    """Adds `blur` (from 0, sharp, to 1), `motion` (levels of 255 by which the face changes), and
    `upscaling` where `face_px` was measured (by `Align`).

    `network` adds a column of its name, the mean over frames by the package pyiqa.
    """

    name: ClassVar[str] = "quality"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment
    columns: ClassVar[tuple[str, ...]] = ("blur", "motion", "upscaling", *NETWORKS)

    network: str | None = None

    def __post_init__(self) -> None:
        if self.network is not None and self.network not in NETWORKS:
            raise ValueError(f"quality={self.network} must be null or one of {', '.join(NETWORKS)}")

    @cached_property
    def rating(self) -> Callable[[Sequence[Face]], float]:
        assert self.network is not None
        return rating_by(self.network)

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        faces = aligned.faces
        measures: Measures = {"blur": blur(faces), "motion": motion(faces)}
        source_size = aligned.measures.get("face_px")
        if isinstance(source_size, int | float):
            measures["upscaling"] = faces[0].shape[0] / source_size
        if self.network is not None:
            measures[self.network] = self.rating(faces)
        yield aligned.with_measures(**measures)


def blur(faces: Sequence[Face]) -> float:
    """How blurred the faces are at 128 pixels; the median over frames.

    The measure of Crete et al. 2007: blurring once more changes a blurred picture little. It does
    not depend on contrast.
    """
    return float(np.median([blur_of(grey_of(face, BLUR_SIZE)) for face in faces[::BLUR_STEP]]))


def blur_of(picture: Grey) -> float:
    """The larger one of horizontal and vertical; 1 for a picture of one level."""
    ratios = []
    for axis, width in ((0, (1, BLUR_WIDTH)), (1, (BLUR_WIDTH, 1))):
        before = np.abs(np.diff(picture, axis=axis))
        after = np.abs(np.diff(cv2.blur(picture, width), axis=axis))
        lost = np.maximum(before - after, 0).sum()
        ratios.append(1 - lost / before.sum() if before.any() else 1.0)
    return float(max(ratios))


def motion(faces: Sequence[Face]) -> float:
    """Standard deviation over time of the levels inside the face, the median over its pixels.

    The face of a still picture has none, however the picture is moved: it is aligned. Levels are
    means of a fifth of a second, in which the noise of a camera cancels out.
    """
    inside = np.stack([grey_of(face, MOTION_SIZE)[INSIDE] for face in faces])
    width = min(MOTION_FRAMES, len(inside))
    sums = np.cumsum(np.pad(inside, ((1, 0), (0, 0), (0, 0))), axis=0, dtype=np.float64)
    steady = (sums[width:] - sums[:-width]) / width
    return float(np.median(steady.std(axis=0)))


def grey_of(face: Face, size: int) -> Grey:
    """Levels of a face reduced to `size` pixels; smaller ones stay as they are."""
    size = min(size, face.shape[0])
    small = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def rating_by(network: str) -> Callable[[Sequence[Face]], float]:
    """The mean rating of some frames, evenly spread, by a network of pyiqa, in its scale."""
    try:
        pyiqa = import_module("pyiqa")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"prepare.quality={network} needs pyiqa, which fetches the weights: pip install "
            "pyiqa, or give prepare.quality=null"
        ) from error
    net = pyiqa.create_metric(network, device=torch.device("cpu"))

    def rating(faces: Sequence[Face]) -> float:
        count = min(NUM_RATED, len(faces))
        chosen = [faces[index * len(faces) // count] for index in range(count)]
        pixels = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            return float(net(pixels).mean())

    return rating
