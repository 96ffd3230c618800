"""Leakage, mismatched: how much of a mouth follows the speech that its face was filmed with.

The matched set-up is the correlation with the truth, the silent one `lips.LipLeak`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.base import ClipRows, Figure
from latentsync.metrics.correlation import SMALLEST_SPREAD, CorrelationOverClips, figures_of

# Openings that explain less than this of the wanted and the filmed one are noise.
SMALLEST_SUM = 0.1
MIN_FRAMES = 3
# What the mouth is read by => inputs: the opening is their first column.
READ_BY = {
    "landmarks": ("landmarks", "driving_landmarks", "own_landmarks"),
    "reading": ("reading", "driving", "own"),
}


def leak_share(
    opening: Float[Tensor, " f"], wanted: Float[Tensor, " f"], filmed: Float[Tensor, " f"]
) -> float:
    """b / (a + b) of the regression opening = a wanted + b filmed + c; NaN if it explains nothing.

    A mouth mixed of (1 - x) wanted and x filmed has x.
    """
    tracks = torch.stack([opening, wanted, filmed]).double()
    tracks = tracks[:, ~tracks.isnan().any(dim=0)]
    if tracks.shape[1] < MIN_FRAMES or (tracks[1:].std(dim=1) < SMALLEST_SPREAD).any():
        return math.nan
    target, *causes = tracks - tracks.mean(dim=1, keepdim=True)
    a, b = torch.linalg.lstsq(torch.stack(causes, dim=1), target[:, None]).solution.flatten()
    return (b / (a + b)).item() if (a + b).abs() > SMALLEST_SUM else math.nan


class LeakShare(ClipRows):
    """The share of the filmed speech in the opening, `by` landmarks or by the mouth reader."""

    def __init__(self, by: str) -> None:
        super().__init__()
        if by not in READ_BY:
            raise ValueError(f"by={by!r} must be one of {', '.join(READ_BY)}")
        self.inputs = READ_BY[by]
        self.needs = frozenset(self.inputs)
        key = {"landmarks": "leak_share_mesh", "reading": "leak_share"}[by]
        label = f"leak share, {by}"
        source = "here: b / (a + b) of opening = a wanted + b filmed + c"
        self.figures = (Figure(key, label, "share", "0", -math.inf, math.inf, source, "{:+.2f}"),)

    def update(self, **given: Tensor) -> None:
        """Add one clip; `given` holds the inputs named in `needs`."""
        opening, wanted, filmed = (given[name][:, 0] for name in self.inputs)
        self.add_rows(torch.tensor([[leak_share(opening, wanted, filmed)]]))


class SameFace(CorrelationOverClips):
    """Same face, two voices: the correlation of both openings, which is by chance if nothing leaks.

    The other half, same voice and two faces, is the correlation with the face that was filmed
    with that voice: `correlation.LandmarkCorrelation`.
    """

    needs = frozenset({"landmarks", "other_voice_landmarks"})
    keys = ("same_face",)
    figures = figures_of("same_face", "r(open), same face, two voices", "{:+.3f}", better="0")

    def update(
        self, landmarks: Float[Tensor, "f 2"], other_voice_landmarks: Float[Tensor, "f 2"]
    ) -> None:
        """Add one clip; frames without a face do not count."""
        openings = torch.stack([landmarks[:, 0], other_voice_landmarks[:, 0]])
        one, other = openings[:, ~openings.isnan().any(dim=0)]
        self.add_tracks([one], [other])
