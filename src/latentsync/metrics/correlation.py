"""How well one track follows another: Pearson's r per clip, averaged over clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef

from latentsync.metrics.base import ClipRows, Figure, Sync

# A track that varies less than this cannot show correlation (traits are in [0, 1]).
SMALLEST_SPREAD = 1e-3
TRAITS = ("open", "width", "round", "teeth")
PEARSON = "Pearson 1895"
# Numbers of a clip from which both its own r and that over all frames follow: r, number of frames,
# sums of track and target, of their squares, of their product.
NUM_MOMENTS = 7


@dataclass(frozen=True, slots=True)
class Correlation:
    """Mean r over clips (the headline figure), its standard deviation, and r over all frames."""

    mean: float
    spread: float
    pooled: float
    num_clips: int


def pearson(track: Float[Tensor, "*t f"], target: Float[Tensor, "*t f"]) -> Float[Tensor, "*t"]:
    """Pearson's r along the frames; NaN if either track is constant."""
    moving = (track.std(dim=-1) > SMALLEST_SPREAD) & (target.std(dim=-1) > SMALLEST_SPREAD)
    r = torch.full(track.shape[:-1], float("nan"), dtype=torch.float64, device=track.device)
    if moving.any():
        # torchmetrics expects outputs as columns; float64, as long tracks lose digits in float32.
        r[moving] = torch.atleast_1d(
            pearson_corrcoef(track[moving].double().T, target[moving].double().T)
        )
    return r.to(track.dtype)


def moments(track: Float[Tensor, " f"], target: Float[Tensor, " f"]) -> Float[Tensor, "7"]:
    """The numbers of a clip that `summary` needs."""
    one, other = track.double(), target.double()
    if len(one) < 2:
        return one.new_tensor([float("nan"), *[0.0] * (NUM_MOMENTS - 1)])
    sums = (one, other, one.square(), other.square(), one * other)
    values = [pearson(one, other), one.new_tensor(len(one)), *(each.sum() for each in sums)]
    return torch.stack(values)


def summary(rows: Float[Tensor, "b 7"]) -> Correlation:
    """Summary over clips of any length; clips with a constant track count in `pooled` only."""
    values = rows[:, 0][~rows[:, 0].isnan()]
    return Correlation(
        mean=values.mean().item() if len(values) else float("nan"),
        spread=values.std().item() if len(values) > 1 else 0.0,
        pooled=_pooled(rows[:, 1:].sum(dim=0)),
        num_clips=len(values),
    )


def _pooled(sums: Float[Tensor, "6"]) -> float:
    """Pearson's r from the number of frames and five sums."""
    count, one, other, one_squares, other_squares, products = sums.tolist()
    if count < 2:
        return float("nan")
    spreads = [
        max(squares - total**2 / count, 0.0)
        for total, squares in ((one, one_squares), (other, other_squares))
    ]
    if min(spreads) <= SMALLEST_SPREAD**2 * (count - 1):
        return float("nan")
    r = (products - one * other / count) / (spreads[0] * spreads[1]) ** 0.5
    return min(max(r, -1.0), 1.0)


def correlate(tracks: list[Float[Tensor, " _"]], targets: list[Float[Tensor, " _"]]) -> Correlation:
    """`summary` of clips that are all in memory."""
    if not tracks:
        raise ValueError("no clips to correlate: the evaluation set is empty")
    pairs = zip(tracks, targets, strict=True)
    return summary(torch.stack([moments(track, target) for track, target in pairs]))


def figures_of(
    key: str,
    label: str | None,
    form: str = "{:.3f}",
    *,
    better: Literal["higher", "0"] = "higher",
    sync: Sync | None = None,
) -> tuple[Figure, ...]:
    """The figures of one correlation: mean over clips (shown in the table), spread, pooled r."""
    return (
        Figure(key, label, "r", better, -1.0, 1.0, PEARSON, form, sync=sync),
        Figure(f"{key}_spread", None, "r", "-", 0.0, 2.0, PEARSON, average=None),
        Figure(f"{key}_pooled", None, "r", better, -1.0, 1.0, PEARSON, average=None),
    )


class CorrelationOverClips(ClipRows):
    """Correlations under several keys, each of which has the figures declared by `figures_of`."""

    keys: tuple[str, ...]

    @property
    def width(self) -> int:
        return NUM_MOMENTS * len(self.keys)

    def add_tracks(
        self, tracks: Sequence[Float[Tensor, " f"]], targets: Sequence[Float[Tensor, " f"]]
    ) -> None:
        """Add the tracks of one clip, one for each key."""
        pairs = zip(tracks, targets, strict=True)
        self.add_rows(torch.cat([moments(track, target) for track, target in pairs])[None])

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        values: dict[str, float] = {}
        rows = self.table()
        for index, key in enumerate(self.keys):
            correlation = summary(rows[:, NUM_MOMENTS * index : NUM_MOMENTS * (index + 1)])
            values |= {
                key: correlation.mean,
                f"{key}_spread": correlation.spread,
                f"{key}_pooled": correlation.pooled,
            }
        return values


class TraitCorrelation(CorrelationOverClips):
    """Correlation of opening, width, roundness and teeth with those expected from the audio."""

    needs = frozenset({"reading", "driving"})
    keys = tuple(f"r_{trait}" for trait in TRAITS)
    figures = tuple(
        figure
        for trait in TRAITS
        for figure in figures_of(f"r_{trait}", f"r({trait})", sync="timed")
    )

    def update(self, reading: Float[Tensor, "f 4"], driving: Float[Tensor, "f 4"]) -> None:
        """Add one clip."""
        self.add_tracks(reading.unbind(dim=1), driving.unbind(dim=1))


class OpeningLeak(CorrelationOverClips):
    """Correlation of the mouth with the face's original voice when dubbed with another voice."""

    needs = frozenset({"reading", "own"})
    keys = ("leak",)
    figures = figures_of("leak", "leak r(open)", "{:+.3f}", better="0")

    def update(self, reading: Float[Tensor, "f 4"], own: Float[Tensor, "f 4"]) -> None:
        """Add one clip."""
        self.add_tracks([reading[:, 0]], [own[:, 0]])


class LandmarkLeak(CorrelationOverClips):
    """The same by landmarks, of a mouth that speaks with another voice than it was filmed with."""

    needs = frozenset({"landmarks", "own_landmarks"})
    keys = ("leak_mesh",)
    figures = figures_of("leak_mesh", "leak r(open), landmarks", "{:+.3f}", better="0")

    def update(self, landmarks: Float[Tensor, "f 2"], own_landmarks: Float[Tensor, "f 2"]) -> None:
        """Add one clip; frames without a face do not count."""
        openings = torch.stack([landmarks[:, 0], own_landmarks[:, 0]])
        one, other = openings[:, ~openings.isnan().any(dim=0)]
        self.add_tracks([one], [other])


class LandmarkCorrelation(CorrelationOverClips):
    """Correlation of landmark-based opening and width, over frames where both faces are found."""

    needs = frozenset({"landmarks", "driving_landmarks"})
    keys = ("r_open_mesh", "r_width_mesh")
    figures = (
        *figures_of("r_open_mesh", "r(open), landmarks", sync="timed"),
        *figures_of("r_width_mesh", None, sync="timed"),
        Figure("mesh_seen", None, "share of frames", "higher", 0.0, 1.0, "here"),
    )

    @property
    def width(self) -> int:
        return NUM_MOMENTS * len(self.keys) + 1

    def update(
        self, landmarks: Float[Tensor, "f 2"], driving_landmarks: Float[Tensor, "f 2"]
    ) -> None:
        """Add one clip; frames without a face are NaN."""
        seen = ~(landmarks.isnan().any(dim=1) | driving_landmarks.isnan().any(dim=1))
        followed = torch.zeros(len(self.keys), NUM_MOMENTS, dtype=torch.float64)
        followed[:, 0] = float("nan")
        if seen.sum() > 2:
            pairs = zip(landmarks[seen].T, driving_landmarks[seen].T, strict=True)
            followed = torch.stack([moments(track, target) for track, target in pairs])
        self.add_rows(torch.cat([followed.flatten(), seen.double().mean()[None]])[None])

    def compute(self) -> dict[str, float]:
        """The figures by key; no correlations if no clip has three frames with both faces."""
        rows = self.table()
        values = {"mesh_seen": rows[:, -1].nanmean().item()}
        return values | super().compute() if rows[:, 1].sum() > 0 else values
