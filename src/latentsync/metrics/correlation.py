"""How well one track follows another: Pearson's r, clip by clip, then over all clips."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef

# A track that moves less than this says nothing about following (traits live in [0, 1]).
SMALLEST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class Correlation:
    """r of every clip averaged (the headline), its spread over clips, and r of all frames."""

    mean: float
    spread: float
    pooled: float
    num_clips: int


def pearson(track: Float[Tensor, "*t f"], target: Float[Tensor, "*t f"]) -> Float[Tensor, "*t"]:
    """r along the frames; NaN where either track stands still."""
    moving = (track.std(dim=-1) > SMALLEST_SPREAD) & (target.std(dim=-1) > SMALLEST_SPREAD)
    r = torch.full(track.shape[:-1], float("nan"), dtype=torch.float64, device=track.device)
    if moving.any():
        # Columns are outputs for torchmetrics; float64, or long tracks lose digits.
        r[moving] = torch.atleast_1d(
            pearson_corrcoef(track[moving].double().T, target[moving].double().T)
        )
    return r.to(track.dtype)


def correlate(tracks: list[Float[Tensor, " _"]], targets: list[Float[Tensor, " _"]]) -> Correlation:
    """Summary over clips of any length; clips that stand still count in the pool only."""
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
