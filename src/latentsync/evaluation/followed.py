"""How surely one track follows another: r with an interval, what chance gives, and the offset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Track = Float[np.ndarray, " _"]
Pair = tuple[Track, Track]  # what came and what was wanted, of one clip

PIECE = 25  # frames that are sampled together, or skipped: neighbours are alike
NUM_RESAMPLES = 1000
LEVEL = 0.95
MAX_OFFSET = 10  # frames
NUM_TURNS = 200
MIN_FRAMES = 3
SMALLEST_SPREAD = 1e-12  # of a track's mean square: rounding


@dataclass(frozen=True, slots=True)
class Followed:
    """Of all frames of all clips: Pearson's r, its 95 % interval (bootstrap of pieces), the size of
    r that chance exceeds in one of 20 cases (the same tracks, turned in time), and by how many
    frames the track is best shifted (above 0: it is late). NaN where the tracks are too short.

    Of tracks that do follow, turned ones correlate a little below 0; hence the size."""

    r: float
    low: float
    high: float
    chance: float
    offset: float


def follow(pairs: Sequence[Pair], *, seed: int = 0) -> Followed:
    """Compare tracks of clips with what was wanted; frames where either is NaN do not count."""
    rng = np.random.default_rng(seed)
    low, high = interval(pairs, rng)
    by_chance = np.abs([correlation(each) for each in rotations(pairs, rng)])
    return Followed(
        r=correlation(pairs),
        low=low,
        high=high,
        chance=quantile(by_chance, LEVEL),
        offset=offset_of(pairs),
    )


def correlation(pairs: Sequence[Pair]) -> float:
    """Pearson's r over the frames of all clips; NaN if a track is constant or there are too few."""
    return float(pooled(np.sum([sums(pair) for pair in pairs], axis=0)[None])[0])


def sums(pair: Pair) -> Float[np.ndarray, "6"]:
    """The number of frames where both are seen; sums of both, of squares, of their product."""
    came, wanted = (track.astype(np.float64) for track in pair)
    seen = np.isfinite(came) & np.isfinite(wanted)
    one, other = came[seen], wanted[seen]
    products = (one @ one, other @ other, one @ other)
    return np.array([len(one), one.sum(), other.sum(), *products])


def pooled(rows: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, " n"]:
    """Pearson's r of each row of sums."""
    count, one, other, ones, others, products = rows.T
    frames = np.maximum(count, 1)
    spread = (ones - one**2 / frames) * (others - other**2 / frames)
    is_known = (count >= MIN_FRAMES) & (spread > SMALLEST_SPREAD * ones * others)
    spread = np.where(is_known, spread, 1.0)
    return np.where(is_known, (products - one * other / frames) / np.sqrt(spread), np.nan)


def interval(pairs: Sequence[Pair], rng: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of r if pieces of PIECE frames were other ones."""
    pieces = np.array(
        [
            sums((came[start : start + PIECE], wanted[start : start + PIECE]))
            for came, wanted in pairs
            for start in range(0, len(came), PIECE)
        ]
    )
    if len(pieces) < MIN_FRAMES:
        return float("nan"), float("nan")
    samples = rng.integers(len(pieces), size=(NUM_RESAMPLES, len(pieces)))
    values = pooled(pieces[samples].sum(axis=1))
    return quantile(values, (1 - LEVEL) / 2), quantile(values, (1 + LEVEL) / 2)


def rotations(pairs: Sequence[Pair], rng: np.random.Generator) -> Iterator[list[Pair]]:
    """The clips with what was wanted turned in time, each by PIECE frames or more on both sides;
    clips too short for that by half."""
    for _ in range(NUM_TURNS):
        yield [(came, np.roll(wanted, turn(len(wanted), rng))) for came, wanted in pairs]


def turn(length: int, rng: np.random.Generator) -> int:
    free = length - 2 * PIECE
    return PIECE + int(rng.integers(free)) if free > 0 else length // 2


def offset_of(pairs: Sequence[Pair]) -> float:
    """The shift of what came, in frames, at which r is highest; NaN if r is nowhere defined."""
    shifts = range(-MAX_OFFSET, MAX_OFFSET + 1)
    values = np.array([correlation([moved(pair, shift) for pair in pairs]) for shift in shifts])
    return float(shifts[np.nanargmax(values)]) if np.isfinite(values).any() else float("nan")


def moved(pair: Pair, shift: int) -> Pair:
    """The frames of what came `shift` frames after those of what was wanted."""
    came, wanted = pair
    length = max(len(came) - abs(shift), 0)
    late, early = max(shift, 0), max(-shift, 0)
    return came[late : late + length], wanted[early : early + length]


def quantile(values: Sequence[float] | Track, share: float) -> float:
    """A quantile of the finite values; NaN without any."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(np.quantile(finite, share)) if len(finite) else float("nan")
