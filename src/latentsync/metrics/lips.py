"""Lips by landmarks: distance from the truth (LMD), mouth aspect ratio, open mouths in silence.

Points are in units of the distance of the outer eye corners; frames without a face are NaN.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentsync.metrics.base import ClipRows, Figure

# Points of the face mesh along the outer, then the inner edge of the lips, from the image's left
# corner along the lower lip.
OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375)
OUTER_ABOVE = (291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324)
INNER_ABOVE = (308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = (*OUTER, *OUTER_ABOVE, *INNER, *INNER_ABOVE)
GAPS = ((87, 82), (14, 13), (317, 312))  # lower and upper inner edge, at three places
CORNERS = (78, 308)
# KeySync's limit of an open mouth (arXiv 2505.00497), and ours of a closed one.
OPEN_ABOVE, CLOSED_BELOW = 0.25, 0.1
# Softness of soft-DTW's minimum, in the unit of the points.
GAMMA = 0.01

Lips = Float[Tensor, "f 40 2"]


def shape_of(lips: Lips) -> Float[Tensor, "f 2"]:
    """Gap between the inner lips and width of the mouth."""
    return torch.stack([_length(lips, 13, 14), _length(lips, 61, 291)], dim=1)


def mouth_aspect_ratio(lips: Lips) -> Float[Tensor, " f"]:
    """Mean gap between the inner lips at three places over the distance of their corners."""
    gaps = torch.stack([_length(lips, *pair) for pair in GAPS]).mean(dim=0)
    return gaps / _length(lips, *CORNERS).clamp(min=1e-6)


def point_distances(lips: Lips, truth: Lips) -> Float[Tensor, " f"]:
    """LMD of every frame: mean distance of the points after both centroids are removed."""
    return (_centred(lips) - _centred(truth)).norm(dim=-1).mean(dim=-1)


def soft_dtw(costs: Float[Tensor, "f g"], gamma: float = GAMMA) -> float:
    """Soft-DTW (Cuturi and Blondel 2017) of a matrix of costs: the soft minimum over all paths."""
    return float(_soft_dtws(costs[None].double().numpy(), gamma)[0])


def _soft_dtws(costs: Float[np.ndarray, "k f g"], gamma: float = GAMMA) -> Float[np.ndarray, " k"]:
    """Soft-DTW of several matrices at once, one diagonal after the other."""
    num, rows, columns = costs.shape
    # Both diagonals before, by row; row 0 and column 0 lie outside, and no path comes from there.
    last, current = (np.full((num, rows + 1), math.inf) for _ in range(2))
    last[:, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        first, end = max(1, diagonal - columns), min(rows, diagonal - 1) + 1
        before = (last[:, first - 1 : end - 1], current[:, first - 1 : end - 1],
                  current[:, first:end])  # fmt: skip
        least = np.minimum(np.minimum(*before[:2]), before[2])
        shares = sum(np.exp((least - each) / gamma) for each in before)
        row = np.arange(first, end)
        following = np.full_like(current, math.inf)
        following[:, first:end] = costs[:, row - 1, diagonal - row - 1] + (
            least - gamma * np.log(shares)
        )
        last, current = current, following
    return current[:, rows]


def warped_distance(lips: Lips, truth: Lips) -> float:
    """Soft-DTW divergence per frame of the truth: LMD that forgives timing; 0 for equal tracks."""
    one, other = (_centred(each[~each.isnan().any(dim=-1).any(dim=-1)]) for each in (lips, truth))
    if not len(one) or not len(other):
        return math.nan
    costs = [
        torch.cdist(a.flatten(1)[None], b.flatten(1)[None])[0] / math.sqrt(a.shape[1])
        for a, b in ((one, other), (one, one), (other, other))
    ]
    if len(one) == len(other):
        crossed, own, its = _soft_dtws(torch.stack(costs).double().numpy()).tolist()
    else:
        crossed, own, its = map(soft_dtw, costs)
    return max(crossed - (own + its) / 2, 0.0) / len(other)


class LandmarkDistance(ClipRows):
    """LMD frame by frame, with free timing (soft-DTW), and the error of the mouth aspect ratio."""

    needs = frozenset({"lips", "driving_lips"})
    figures = (
        Figure("lmd", "LMD, lips", "eye distances", "lower", 0.0, math.inf,
               "40 mesh points, centroid removed, by outer eye corners", "{:.4f}", sync="timed"),
        Figure("lmd_warped", None, "eye distances", "lower", 0.0, math.inf,
               "the same; soft-DTW divergence (arXiv 2010.08354), gamma 0.01, per frame",
               sync="free"),
        Figure("mar_error", None, "ratio", "lower", 0.0, math.inf,
               "inner gap at three places by inner width", sync="timed"),
    )  # fmt: skip

    def update(self, lips: Lips, driving_lips: Lips) -> None:
        """Add one clip."""
        lmd = point_distances(lips, driving_lips).nanmean()
        ratios = (mouth_aspect_ratio(lips) - mouth_aspect_ratio(driving_lips)).abs().nanmean()
        warped = warped_distance(lips, driving_lips)
        self.add_rows(torch.tensor([[lmd, warped, ratios]], dtype=torch.float64))


class LipLeak(ClipRows):
    """Open and closed mouths in silent frames: with silent sound over a talking face, the first is
    LipLeak, what leaks of the speech that the face was filmed with.
    """

    needs = frozenset({"lips", "silent"})
    figures = (
        Figure("lip_leak", "open in silence", "share of silent frames", "0", 0.0, 1.0,
               "LipLeak (arXiv 2505.00497): mouth aspect ratio > 0.25", "{:.0%}"),
        Figure("lips_closed", "lips closed in silence", "share of silent frames", "higher", 0.0,
               1.0, "here: mouth aspect ratio < 0.1", "{:.0%}"),
    )  # fmt: skip

    def update(self, lips: Lips, silent: Bool[Tensor, " f"]) -> None:
        """Add one clip; frames without a face do not count."""
        ratios = mouth_aspect_ratio(lips)
        ratios = ratios[silent & ~ratios.isnan()]
        shares = [(ratios > OPEN_ABOVE).double().mean(), (ratios < CLOSED_BELOW).double().mean()]
        self.add_rows(torch.stack(shares)[None])


def _length(lips: Lips, one: int, other: int) -> Float[Tensor, " f"]:
    return (lips[:, LIPS.index(one)] - lips[:, LIPS.index(other)]).norm(dim=-1)


def _centred(lips: Lips) -> Lips:
    return lips - lips.mean(dim=1, keepdim=True)
