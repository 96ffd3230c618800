"""LSE: distance, confidence and offset of SyncNet v2 embeddings, as computed by its authors."""

import math
from dataclasses import astuple, dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentsync.metrics.base import ClipRows, Figure

MAX_SHIFT = 15
SOURCE = "SyncNet v2 (Chung and Zisserman 2016); LSE: Prajwal et al. 2020"
# Clips with their own sound have the same offset if the network knows such faces: by chance, a
# tenth of them lie within one frame of the median. Of fewer clips nothing can be said.
NEAR_OFFSET, SHARE_NEAR, MIN_CLIPS = 1, 0.5, 4


@dataclass(frozen=True, slots=True)
class Lse:
    """Smallest mean distance (LSE-D), median minus smallest (LSE-C), its offset in frames, and the
    median minus the distance where sound and picture are as in the file.

    A positive offset means that the sound leads the picture.
    """

    distance: float
    confidence: float
    offset: int
    confidence_at_0: float


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
    return lse_of(shift_distances(vision, audio, max_shift=max_shift).mean(dim=1))


def lse_of(curve: Float[Tensor, " k"]) -> Lse:
    """LSE from the mean distance at each shift."""
    max_shift = len(curve) // 2
    smallest, best = torch.min(curve, dim=0)
    middle = curve.median()
    return Lse(
        distance=smallest.item(),
        confidence=(middle - smallest).item(),
        offset=max_shift - int(best),
        confidence_at_0=(middle - curve[max_shift]).item(),
    )


def mean_over_tracks(curves: Float[Tensor, "t k"]) -> Lse:
    """LSE of a clip: the mean over its face tracks, of the offset too, which is then cut off."""
    tracks = [lse_of(curve) for curve in curves]
    distance, confidence, offset, at_0 = (
        sum(values) / len(tracks) for values in zip(*map(astuple, tracks), strict=True)
    )
    return Lse(distance, confidence, int(offset), at_0)


def why_invalid(offsets: list[float]) -> str | None:
    """Why LSE is meaningless here, given the offsets of clips with their own sound.

    None if it is valid or cannot be checked.
    """
    if len(offsets) < MIN_CLIPS:
        return None
    middle = torch.tensor(offsets).median()
    near = ((torch.tensor(offsets) - middle).abs() <= NEAR_OFFSET).double().mean().item()
    if near >= SHARE_NEAR:
        return None
    return (
        "not valid here: SyncNet v2 finds the references' own sound at another offset in each "
        f"(within {NEAR_OFFSET} frame of the median: {near:.0%}; where it knows such faces, "
        f"{SHARE_NEAR:.0%} and more)"
    )


class LseFigures(ClipRows):
    """LSE-D, LSE-C, distance of the offset from 0, and LSE-C at offset 0; means over clips.

    LSE-C above the truth's is exaggeration, not quality; clips of 1 to 3 s are flattered by the
    zeros beyond their sound.
    """

    needs = frozenset({"lse_curves"})
    figures = (
        Figure("lse_d", "LSE-D", "distance", "lower", 0.0, math.inf, SOURCE, sync="free"),
        Figure("lse_c", "LSE-C", "distance", "higher", 0.0, math.inf, SOURCE, sync="free"),
        Figure("lse_offset", "LSE |offset|", "frames", "0", 0.0, MAX_SHIFT, SOURCE, "{:.1f}",
               sync="timed"),
        Figure("lse_c_0", "LSE-C at offset 0", "distance", "higher", -math.inf, math.inf, SOURCE,
               sync="timed"),
    )  # fmt: skip

    @property
    def width(self) -> int:
        return len(fields(Lse))

    def update(self, lse_curves: Float[Tensor, "t k"]) -> None:
        """Add one clip."""
        self.add_rows(torch.tensor([astuple(mean_over_tracks(lse_curves))], dtype=torch.float64))

    def offsets(self) -> list[float]:
        """The signed offsets of the clips so far."""
        return self.table()[:, 2].tolist()

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        distance, confidence, offset, at_0 = self.table().T
        return {
            "lse_d": distance.mean().item(),
            "lse_c": confidence.mean().item(),
            "lse_offset": offset.abs().mean().item(),
            "lse_c_0": at_0.mean().item(),
        }
