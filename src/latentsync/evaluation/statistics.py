"""How sure a mean over clips is: clips of one speaker resemble each other, so that speakers, not
clips, are drawn again (cluster bootstrap) or change signs (permutation test).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

from latentsync.metrics.base import Average

NUM_RESAMPLES = 2000
LEVEL = 0.95
NUM_FLIPS = 10_000
# All sign flips of so many speakers are fewer than NUM_FLIPS: the test is exact.
EXACT_UP_TO = 13
# Sums of the same numbers with other signs are equal up to rounding.
ROUNDING = 1e-9

Values = Float[np.ndarray, " n"]
Group = Float[np.ndarray, " _"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile bootstrap interval, NaN with fewer than two speakers."""

    low: float
    high: float
    num_clips: int
    num_speakers: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference over clips that both methods have a value of, and how likely one at least
    as large is if the methods were interchangeable, NaN with fewer than two speakers.
    """

    difference: float
    low: float
    high: float
    p_value: float
    num_clips: int
    num_speakers: int


def interval(
    values: Values, speakers: Sequence[str], *, average: Average = "mean", seed: int
) -> Interval:
    """The 95 % interval of the average over clips; NaN values are ignored."""
    groups = _by_speaker(values, speakers)
    low, high = _bounds(groups, average, seed)
    return Interval(low, high, sum(map(len, groups)), len(groups))


def paired_difference(
    values: Values, others: Values, speakers: Sequence[str], *, seed: int
) -> Difference:
    """`values` minus `others`, clip by clip."""
    groups = _by_speaker(values - others, speakers)
    num_clips = sum(map(len, groups))
    mean = float(np.concatenate(groups).mean()) if num_clips else math.nan
    low, high = _bounds(groups, "mean", seed)
    return Difference(mean, low, high, sign_flip_p(groups, seed=seed), num_clips, len(groups))


def sign_flip_p(groups: Sequence[Group], *, seed: int) -> float:
    """Two-sided p-value of a sign-flip permutation test of the sum of the differences.

    All differences of a speaker change their sign together. Exact up to EXACT_UP_TO speakers;
    beyond, (1 + hits) / (1 + NUM_FLIPS) of random flips.
    """
    if len(groups) < 2:
        return math.nan
    sums = np.array([group.sum() for group in groups])
    exact = len(sums) <= EXACT_UP_TO
    if exact:
        signs = np.array(list(product((1, -1), repeat=len(sums))))
    else:
        signs = np.random.default_rng(seed).choice((1, -1), size=(NUM_FLIPS, len(sums)))
    least = abs(sums.sum()) - ROUNDING * np.abs(sums).sum()
    hits = int((np.abs(signs @ sums) >= least).sum())
    return hits / len(signs) if exact else (1 + hits) / (1 + len(signs))


def _by_speaker(values: Values, speakers: Sequence[str]) -> list[Group]:
    """The values of every speaker that has any, in the order of their names."""
    assert len(values) == len(speakers)
    names = np.array(speakers, dtype=str)
    given = ~np.isnan(values)
    return [values[given & (names == name)] for name in sorted({*names[given].tolist()})]


def _bounds(groups: Sequence[Group], average: Average, seed: int) -> tuple[float, float]:
    if len(groups) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    samples = generator.integers(len(groups), size=(NUM_RESAMPLES, len(groups)))
    resampled = AVERAGES[average](groups, samples)
    edges = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(edges[0]), float(edges[1])


def _means(groups: Sequence[Group], samples: Int[np.ndarray, "b s"]) -> Float[np.ndarray, " b"]:
    sums = np.array([group.sum() for group in groups])
    counts = np.array([len(group) for group in groups])
    return sums[samples].sum(axis=1) / counts[samples].sum(axis=1)


def _medians(groups: Sequence[Group], samples: Int[np.ndarray, "b s"]) -> Float[np.ndarray, " b"]:
    return np.array(
        [_median(np.concatenate([groups[index] for index in sample])) for sample in samples]
    )


def _median(values: Group) -> float:
    """The lower one of the two in the middle, as torch's."""
    return float(np.sort(values)[(len(values) - 1) // 2])


AVERAGES: dict[str, Callable] = {"mean": _means, "median": _medians}
