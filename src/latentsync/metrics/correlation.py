"""How well one track follows another: Pearson's r per clip, averaged over clips."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef

from latentsync.metrics.base import Figure

# A track that varies less than this cannot show correlation (traits are in [0, 1]).
SMALLEST_SPREAD = 1e-3
TRAITS = ("open", "width", "round", "teeth")
PEARSON = "Pearson 1895"


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


def correlate(tracks: list[Float[Tensor, " _"]], targets: list[Float[Tensor, " _"]]) -> Correlation:
    """Summary over clips of any length; clips with a constant track count in `pooled` only."""
    pairs = list(zip(tracks, targets, strict=True))
    if not pairs:
        raise ValueError("no clips to correlate: the evaluation set is empty")
    values = torch.stack([pearson(track, target) for track, target in pairs])
    values = values[~values.isnan()]
    spread = values.std().item() if len(values) > 1 else 0.0
    return Correlation(
        mean=values.mean().item() if len(values) else float("nan"),
        spread=spread,
        pooled=pearson(torch.cat(tracks), torch.cat(targets)).item(),
        num_clips=len(values),
    )


def figures_of(key: str, label: str | None, form: str = "{:.3f}") -> tuple[Figure, ...]:
    """The figures of one correlation: mean over clips (shown in the table), spread, pooled r."""
    return (
        Figure(key, label, "r", "higher", -1.0, 1.0, PEARSON, form),
        Figure(f"{key}_spread", None, "r", "-", 0.0, 2.0, PEARSON),
        Figure(f"{key}_pooled", None, "r", "higher", -1.0, 1.0, PEARSON),
    )


def values_of(key: str, tracks: list[Tensor], targets: list[Tensor]) -> dict[str, float]:
    """The values of the figures declared by `figures_of`."""
    correlation = correlate(tracks, targets)
    return {
        key: correlation.mean,
        f"{key}_spread": correlation.spread,
        f"{key}_pooled": correlation.pooled,
    }


class TraitCorrelation(Metric):
    """Correlation of opening, width, roundness and teeth with those expected from the audio."""

    full_state_update = False
    needs = frozenset({"reading", "driving"})
    figures = tuple(
        figure for trait in TRAITS for figure in figures_of(f"r_{trait}", f"r({trait})")
    )
    readings: list[Tensor]
    wanted: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("readings", [])
        self.add_state("wanted", [])

    def update(self, reading: Float[Tensor, "f 4"], driving: Float[Tensor, "f 4"]) -> None:
        """Add one clip."""
        self.readings.append(reading)
        self.wanted.append(driving)

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        values: dict[str, float] = {}
        for column, trait in enumerate(TRAITS):
            tracks, targets = (
                [each[:, column] for each in side] for side in (self.readings, self.wanted)
            )
            values |= values_of(f"r_{trait}", tracks, targets)
        return values


class OpeningLeak(Metric):
    """Correlation of the mouth with the face's original voice when dubbed with another voice."""

    full_state_update = False
    needs = frozenset({"reading", "own"})
    figures = tuple(
        replace(figure, better="0" if figure.better == "higher" else "-")
        for figure in figures_of("leak", "leak r(open)", "{:+.3f}")
    )
    openings: list[Tensor]
    own_openings: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("openings", [])
        self.add_state("own_openings", [])

    def update(self, reading: Float[Tensor, "f 4"], own: Float[Tensor, "f 4"]) -> None:
        """Add one clip."""
        self.openings.append(reading[:, 0])
        self.own_openings.append(own[:, 0])

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        return values_of("leak", self.openings, self.own_openings)


class LandmarkCorrelation(Metric):
    """Correlation of landmark-based opening and width, over frames where both faces are found."""

    full_state_update = False
    needs = frozenset({"landmarks", "driving_landmarks"})
    figures = (
        *figures_of("r_open_mesh", "r(open), landmarks"),
        *figures_of("r_width_mesh", None),
        Figure("mesh_seen", None, "share of frames", "higher", 0.0, 1.0, "here"),
    )
    readings: list[Tensor]
    wanted: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("readings", [])
        self.add_state("wanted", [])

    def update(
        self, landmarks: Float[Tensor, "f 2"], driving_landmarks: Float[Tensor, "f 2"]
    ) -> None:
        """Add one clip; frames without a face are NaN."""
        self.readings.append(landmarks)
        self.wanted.append(driving_landmarks)

    def compute(self) -> dict[str, float]:
        """The figures by key; no correlations if no clip has three frames with both faces."""
        pairs = list(zip(self.readings, self.wanted, strict=True))
        seen = [~(one.isnan().any(dim=1) | other.isnan().any(dim=1)) for one, other in pairs]
        shares = torch.tensor([each.float().mean().item() for each in seen], dtype=torch.float64)
        values = {"mesh_seen": shares.nanmean().item()}
        usable = [
            (one[where], other[where])
            for (one, other), where in zip(pairs, seen, strict=True)
            if where.sum() > 2
        ]
        for column, key in enumerate(("r_open_mesh", "r_width_mesh") if usable else ()):
            tracks = [one[:, column] for one, _ in usable]
            values |= values_of(key, tracks, [other[:, column] for _, other in usable])
        return values
