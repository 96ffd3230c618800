"""Quality of a sync scorer: accuracy at threshold 1/2, P(in sync > off), and calibration."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

NUM_BINS = 10
IN, OFF = 0, 1


@dataclass(frozen=True, slots=True)
class CalibrationCurve:
    """Per bin of the cosine: its mean, the share of pairs in sync, and the share of all pairs.

    Pairs in sync and off have the same total weight, however many there are of each. The first two
    are NaN in empty bins.
    """

    cosine: Float[np.ndarray, " k"]
    in_sync: Float[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]

    @property
    def error(self) -> float:
        """Expected calibration error: weighted mean of |cosine - share in sync| over the bins."""
        return float(np.nansum(np.abs(self.cosine - self.in_sync) * self.weight))


class CalibrationCounts:
    """Histograms of the cosines of windows with their own sound and with off-sync sound.

    Memory is bounded: only sums and histograms. They are numpy arrays, not states of a torchmetrics
    Metric: float64 on every device (Apple GPUs have none), never moved, not in checkpoints.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Clear all counts."""
        self._counts = np.zeros((2, NUM_BINS))
        self._sums = np.zeros((2, NUM_BINS))
        self._right = np.zeros(2)
        self._wins = 0.0

    def update(self, cosines: Float[Tensor, "b b"], off: Bool[Tensor, "b b"]) -> None:
        """Add `cosines[i, j]` of frames i and sound j; `off` marks pairs known to be off sync."""
        scores, known = cosines.double().cpu().numpy(), off.cpu().numpy()
        own = scores.diagonal()
        for row, values in ((IN, own), (OFF, scores[known])):
            bins = (values * NUM_BINS).astype(int).clip(0, NUM_BINS - 1)
            self._counts[row] += np.bincount(bins, minlength=NUM_BINS)
            self._sums[row] += np.bincount(bins, weights=values, minlength=NUM_BINS)
            self._right[row] += np.count_nonzero((values > 0.5) == (row == IN))
        self._wins += float(np.count_nonzero((own[:, None] > scores)[known]))

    def compute(self) -> dict[str, float]:
        """accuracy, p_in_above_off, cosine_in, cosine_off, calibration_error.

        Only cosine_in if there were no off pairs (one window per clip); empty before the first
        update.
        """
        num_in, num_off = self._counts.sum(axis=1).tolist()
        if not num_in:
            return {}
        sum_in, sum_off = self._sums.sum(axis=1).tolist()
        values = {"cosine_in": sum_in / num_in}
        if num_off:
            right_in, right_off = self._right.tolist()
            values |= {
                "cosine_off": sum_off / num_off,
                "accuracy": (right_in / num_in + right_off / num_off) / 2,
                "p_in_above_off": self._wins / num_off,
                "calibration_error": self.curve().error,
            }
        return values

    def curve(self) -> CalibrationCurve:
        """The share of pairs in sync as a function of the cosine."""
        # A side without pairs stays all zero.
        totals = np.maximum(self._counts.sum(axis=1, keepdims=True), 1)
        shares, sums = self._counts / totals, self._sums / totals
        both = shares.sum(axis=0)
        seen = np.where(both > 0, both, np.nan)
        return CalibrationCurve(sums.sum(axis=0) / seen, shares[IN] / seen, both / both.sum())
