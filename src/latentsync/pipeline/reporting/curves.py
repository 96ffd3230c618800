"""Mouth and voice over time for the report, and their correlation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from latentsync.media.silence import BLOCK_SECONDS

QUIETEST_DB = 50.0  # below the loudest moment: anything quieter is clipped to this
MAX_LAG_SECONDS = 0.2
MIN_SLOTS = 12


@dataclass(frozen=True, slots=True)
class Curves:
    """One value per slot of a grid of `fps`.

    `loudness`: of the voice, 0 (silence) to 1 (its loudest moment). `before`, `after`: the mouth's
    opening in eye distances, in the source and in the result; NaN if no mouth was measured.
    """

    fps: float
    loudness: Float[np.ndarray, " k"]
    before: Float[np.ndarray, " k"]
    after: Float[np.ndarray, " k"]


def loudness(
    level: Float[np.ndarray, " n"], *, fps: float, num_slots: int
) -> Float[np.ndarray, " k"]:
    """Loudness at the centre of every slot, from 0 (50 dB below the loudest moment) to 1.

    `level`: of every 10 ms of the voice, from `levels_db`.
    """
    if not len(level):
        return np.zeros(num_slots)
    blocks = ((np.arange(num_slots) + 0.5) / fps / BLOCK_SECONDS).astype(int)
    heard = np.where(blocks < len(level), level[blocks.clip(max=len(level) - 1)], -np.inf)
    top = level.max()
    # Digital silence throughout has no loudest moment.
    return (1 + (heard - top) / QUIETEST_DB).clip(0, 1) if top > -119 else np.zeros(num_slots)


def sync_of(
    opening: Float[np.ndarray, " k"], loud: Float[np.ndarray, " k"], *, fps: float
) -> float | None:
    """Pearson's r of opening and loudness at the best lag within 0.2 s, in [-1, 1].

    None if fewer than 12 slots have a mouth, or if mouth or voice is constant.
    """
    most = round(MAX_LAG_SECONDS * fps)
    fits = [_correlation(opening, loud, lag) for lag in range(-most, most + 1)]
    return max((fit for fit in fits if fit is not None), default=None)


def _correlation(
    opening: Float[np.ndarray, " k"], loud: Float[np.ndarray, " k"], lag: int
) -> float | None:
    positions = np.flatnonzero(np.isfinite(opening))
    positions = positions[(positions + lag >= 0) & (positions + lag < len(loud))]
    if len(positions) < MIN_SLOTS:
        return None
    a, b = opening[positions].astype(float), loud[positions + lag].astype(float)
    if a.std() < 1e-6 or b.std() < 1e-6:
        return None
    return float(np.corrcoef(a, b)[0, 1])
