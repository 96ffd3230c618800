"""Whether a result speaks with the sound of its reference, or with another one."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.correlation import SMALLEST_SPREAD

Mel = Float[Tensor, "80 t"]
OtherMel = Float[Tensor, "80 u"]

# Settings: the result speaks with the reference's own sound, or with another one. They are never in
# one row, as only the first has a truth to compare the mouth with.
AUTO, RECONSTRUCTION, CROSS = SETTINGS = ("auto", "reconstruction", "cross")
# The row of a setting where a folder holds both; where it holds one, that is "pred".
ROW_OF = {RECONSTRUCTION: "pred, own voice", CROSS: "pred, another's voice"}
# Mel bands of one sound, encoded twice, correlate more; those of two sounds less.
SAME_SOUND = 0.8


def setting_of(mels: Mapping[str, Tensor]) -> str:
    """Whether both sounds are the same, but for their encoding; so if one is missing."""
    return RECONSTRUCTION if len(mels) < 2 or same_sound(*mels.values()) else CROSS


def same_sound(one: Mel, other: OtherMel, *, max_lag: int = 4) -> bool:
    """Whether two mel spectrograms are of one sound, up to a few of their frames."""
    return any(
        _alike(one[:, max(lag, 0) :], other[:, max(-lag, 0) :])
        for lag in range(-max_lag, max_lag + 1)
    )


def _alike(one: Mel, other: OtherMel) -> bool:
    length = min(one.shape[1], other.shape[1])
    both = torch.stack([one[:, :length].flatten(), other[:, :length].flatten()]).double()
    if (both.std(dim=1) < SMALLEST_SPREAD).any():  # one is silent
        return bool((both[0] - both[1]).abs().max() < SMALLEST_SPREAD)
    return bool(torch.corrcoef(both)[0, 1] > SAME_SOUND)
