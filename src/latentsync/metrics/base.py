"""The metric protocol: the figures a metric reports and the inputs it needs.

A metric is a `torchmetrics.Metric` around a pure function. `update` takes one clip, passed the
inputs named in `needs` as keyword arguments; `compute` returns the figures by key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

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
    "own_landmarks": "the same of the face as filmed, where another voice is spoken with, f 2",
    "other_voice_landmarks": "the same of the face with another voice, f 2",
    "lips": "40 points of the lips in distances of the eyes, NaN where there is no face, f 40 2",
    "driving_lips": "the same of the face whose voice is spoken with, f 40 2",
    "lse_curves": "SyncNet v2's mean distance to the sound at each shift, a row a face track, t 31",
    "identity": "cosines of the face's embedding with the reference's, of every tenth frame, n",
    "other_identity": "the same with the face of another speaker, n",
    "speaker_scores": "LR-ASD's logits that the face speaks, of slots in which sound is heard, n",
    "speech": "the sound of the face that is measured, 16 kHz, [-1, 1], t",
    "sync_cosines": "SyncNet's cosine of each window with the sound at each shift, n k",
}


# The inputs available for one clip, keyed as in INPUTS.
Sample = dict[str, Tensor]
# How a figure comes from values that each clip has alone.
Average = Literal["mean", "median"]
# What a figure of sync must do: be worse with any other sound than the face's own, and, if it is
# timed, with the own sound at another time; a free one looks for the best time itself.
Sync = Literal["timed", "free"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a metric: its key in metrics.json, label in the table (None: not shown), unit,
    which direction is better, range, source of the definition, number format, how it follows from
    values of single clips (None: it has no meaning for one clip), and whether it measures sync.
    """

    key: str
    label: str | None
    unit: str
    better: Literal["higher", "lower", "1", "0", "-"]
    low: float
    high: float
    source: str
    form: str = "{:.3f}"
    average: Average | None = "mean"
    sync: Sync | None = None


@runtime_checkable
class ClipMetric(Protocol):
    """What every metric of conf/metrics declares, in addition to being a `torchmetrics.Metric`."""

    figures: tuple[Figure, ...]
    needs: frozenset[str]


@runtime_checkable
class NeedsFile(Protocol):
    """A metric that asks a network whose file the user brings."""

    @property
    def not_ready(self) -> str | None:
        """What to fetch and where to name it; None if it is there."""
        ...


class ClipRows(Metric):
    """A metric whose state is one row of numbers per clip, so that processes of any number of
    clips merge into what one process computes. The figures are the means of the columns; NaN
    values are ignored.
    """

    full_state_update = False
    figures: tuple[Figure, ...]
    rows: list[Tensor] | Tensor

    def __init__(self) -> None:
        # A cached result would outlive a merge.
        super().__init__(compute_with_cache=False)
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    def width(self) -> int:
        """The numbers in a row."""
        return len(self.figures)

    def add_rows(self, rows: Float[Tensor, "b n"]) -> None:
        """Add the rows of more clips."""
        assert isinstance(self.rows, list)
        self.rows.append(rows.detach().double())

    def table(self) -> Float[Tensor, "b n"]:
        """All rows so far."""
        if isinstance(self.rows, Tensor):  # merged
            return self.rows
        return torch.cat([torch.zeros(0, self.width, dtype=torch.float64), *self.rows])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one without clips takes part with a table of none."""
        self.rows = [self.table()]
        super().sync(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Add clips; returns the figures of these alone, of this process.

        The same as torchmetrics does, which copies the settings of the metric twice.
        """
        before, self.rows = self.table(), []
        self.update(*args, **kwargs)
        alone = type(self).compute(self)
        self.rows = [before, self.table()]
        return alone

    def compute(self) -> dict[str, float]:
        """The figures by key."""
        means = self.table().nanmean(dim=0).tolist()
        return {figure.key: mean for figure, mean in zip(self.figures, means, strict=True)}


class MeanOverClips(ClipRows):
    """A metric of one figure, the mean over clips; NaN values are ignored."""

    def add(self, values: Float[Tensor, " b"]) -> None:
        """Add the values of more clips."""
        self.add_rows(values[:, None])
