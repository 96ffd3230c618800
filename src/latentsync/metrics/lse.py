"""LSE: distance, confidence and offset of SyncNet v2 embeddings, as computed by its authors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

MAX_SHIFT = 15


@dataclass(frozen=True, slots=True)
class Lse:
    """Smallest mean distance (LSE-D), median minus smallest (LSE-C), and its offset in frames.

    A positive offset means that the sound leads the picture.
    """

    distance: float
    confidence: float
    offset: int


def shift_distances(
    vision: Float[Tensor, "n d"], audio: Float[Tensor, "m d"], *, max_shift: int = MAX_SHIFT
) -> Float[Tensor, "k n"]:
    """Distance of frame i from sound i + shift, one row per shift in -max_shift..max_shift.

    Sound before the first and after the last window is a zero vector, and 1e-6 is added to each
    component of the difference (torch's pairwise distance); published figures include both.
    """
    if vision.shape != audio.shape:
        raise ValueError(
            "LSE needs as many vectors of sound as of pictures, and of one width; "
            f"got {tuple(vision.shape)} and {tuple(audio.shape)}"
        )
    padded = F.pad(audio, (0, 0, max_shift, max_shift))
    shifted = (padded[first : first + len(vision)] for first in range(2 * max_shift + 1))
    return torch.stack([F.pairwise_distance(vision, sound) for sound in shifted])


def lse(
    vision: Float[Tensor, "n d"], audio: Float[Tensor, "m d"], *, max_shift: int = MAX_SHIFT
) -> Lse:
    """LSE-D, LSE-C and offset of a clip, from one pair of embeddings per frame."""
    if not len(vision):
        raise ValueError("LSE needs at least one window of 5 frames, got none")
    curve = shift_distances(vision, audio, max_shift=max_shift).mean(dim=1)
    smallest, best = torch.min(curve, dim=0)
    return Lse(
        distance=smallest.item(),
        confidence=(curve.median() - smallest).item(),
        offset=max_shift - int(best),
    )
