"""The metric protocol: the figures a metric reports and the inputs it needs.

A metric is a `torchmetrics.Metric` around a pure function. `update` takes one clip, passed the
inputs named in `needs` as keyword arguments; `compute` returns the figures by key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

# The inputs a metric may ask for, with their descriptions.
INPUTS: Mapping[str, str] = {
    "pixels": "the faces that are measured, [-1, 1], 1 f c h w",
    "original": "the untouched faces, [-1, 1], 1 f c h w",
    "truth": "the untouched faces where they say the same as those measured, 1 f c h w",
    "painted": "1 where the model paints, 1 f 1 h w",
    "kept": "1 where it must not, 1 f 1 h w",
    "reading": "opening, width, roundness, teeth of each mouth as the mouth reader sees them, f 4",
    "driving": "the same as the voice that is spoken with wants them, f 4",
    "own": "the same as the face's own voice wants them, where another is spoken with, f 4",
    "silent": "frames in which that voice is silent, f",
    "landmarks": "opening and width by landmarks, NaN where there is no face, f 2",
    "driving_landmarks": "the same of the face whose voice is spoken with, f 2",
    "sync_cosines": "SyncNet's cosine of each window with the sound at each shift, n k",
}


# The inputs available for one clip, keyed as in INPUTS.
Sample = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a metric: its key in metrics.json, label in the table (None: not shown), unit,
    which direction is better, range, source of the definition, and number format.
    """

    key: str
    label: str | None
    unit: str
    better: Literal["higher", "lower", "1", "0", "-"]
    low: float
    high: float
    source: str
    form: str = "{:.3f}"


@runtime_checkable
class ClipMetric(Protocol):
    """What every metric of conf/metrics declares, in addition to being a `torchmetrics.Metric`."""

    figures: tuple[Figure, ...]
    needs: frozenset[str]


class MeanOverClips(Metric):
    """A metric of one figure, the mean over clips; NaN values are ignored."""

    full_state_update = False
    figures: tuple[Figure, ...]
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [])

    def add(self, values: Float[Tensor, " b"]) -> None:
        """Add the values of more clips."""
        self.values.append(values.double())

    def compute(self) -> dict[str, float]:
        """The figure by key."""
        return {self.figures[0].key: torch.cat(self.values).nanmean().item()}
