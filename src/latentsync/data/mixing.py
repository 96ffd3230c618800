"""Several prepared sets as one: their clips, and how often each set's are shown."""

from collections.abc import Sequence
from itertools import groupby
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Int

from latentsync.data.clips import Clip


def sets_of(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Consecutive clips of the same prepared set, grouped."""
    return [list(each) for _, each in groupby(clips, key=_folder)]


def joined(sets: Sequence[tuple[str, Sequence[Clip]]]) -> list[Clip]:
    """The clips of all sets (name, clips).

    ValueError for a clip that two of them list, and for sets of different resolutions or rates.
    """
    owners: dict[Path, str] = {}
    for name, clips in sets if len(sets) > 1 else ():
        folder = _folder(clips[0]).resolve()
        own = {folder / clip.path.name: name for clip in clips}
        for path in own.keys() & owners.keys():
            raise ValueError(f"{name} and {owners[path]} both list {path}: list a clip once")
        owners |= own
    for value in ("resolution", "fps"):
        found = {name: getattr(clips[0], value) for name, clips in sets}
        if len(set(found.values())) > 1:
            raise ValueError(f"the data sets differ in {value} {found}; prepare them all alike")
    return [clip for _, clips in sets for clip in clips]


def mixed_order(
    sizes: Sequence[int], weights: Sequence[float] | None
) -> Int[np.ndarray, " n"] | None:
    """Numbers of the clips to show, so that every set has its share of an epoch.

    `sizes`: clips of each set, numbered through; `weights`: their shares, of any sum. An epoch is
    just long enough to show every clip at least once; clips of sets with more weight than clips
    come again, in other windows. Sets alternate evenly. None without weights: each clip once.
    """
    if weights is None:
        return None
    shares = _shares(sizes, weights)
    total = ceil(max(size / share for size, share in zip(sizes, shares, strict=True)))
    counts = [max(size, round(total * share)) for size, share in zip(sizes, shares, strict=True)]
    firsts = np.cumsum([0, *sizes[:-1]])
    numbers = [
        first + np.arange(count) % size
        for first, count, size in zip(firsts, counts, sizes, strict=True)
    ]
    places = [(np.arange(count) + 0.5) / count for count in counts]
    return np.concatenate(numbers)[np.argsort(np.concatenate(places), kind="stable")]


def _shares(sizes: Sequence[int], weights: Sequence[float]) -> list[float]:
    if len(weights) != len(sizes):
        raise ValueError(
            f"data.weights={[*weights]} for {len(sizes)} training sets: give one weight for each "
            "of data.train_manifest"
        )
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(
            f"data.weights={[*weights]} must be positive: leave a set out instead of weighting it 0"
        )
    return [weight / sum(weights) for weight in weights]


def _folder(clip: Clip) -> Path:
    return clip.path.parent.parent
