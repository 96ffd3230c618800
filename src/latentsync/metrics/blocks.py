"""Clips in blocks of few frames, which stay in the processor's cache while they are compared."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

NUM_FRAMES = 4


def blocks(
    *clips: Float[Tensor, "b f _ h w"], overlap: int = 0
) -> Iterator[tuple[Float[Tensor, "b g _ h w"], ...]]:
    """The same few frames of every clip, contiguous; each block repeats the last `overlap` frames
    of the one before. Nothing for clips of `overlap` frames or fewer.
    """
    for first in range(0, clips[0].shape[1] - overlap, NUM_FRAMES):
        last = first + NUM_FRAMES + overlap
        yield tuple(clip[:, first:last].contiguous() for clip in clips)


def pixel_blocks(faces: UInt8[np.ndarray, "f h w 3"]) -> Iterator[Float[Tensor, "1 g 3 h w"]]:
    """A few uint8 faces at a time => pixels in [-1, 1]."""
    for first in range(0, len(faces), NUM_FRAMES):
        yield to_planes(faces[first : first + NUM_FRAMES])


def to_planes(faces: UInt8[np.ndarray, "f h w 3"]) -> Float[Tensor, "1 f 3 h w"]:
    """uint8 faces => pixels in [-1, 1], channel by channel in memory, as masks are."""
    planes = torch.empty(1, len(faces), 3, *faces.shape[1:3])
    for first in range(0, len(faces), NUM_FRAMES):
        some = faces[first : first + NUM_FRAMES]
        apart = np.stack([cv2.split(face) for face in some])
        planes[0, first : first + len(some)] = torch.from_numpy(apart)
    return planes.div_(127.5).sub_(1)
