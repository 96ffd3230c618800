"""Several prepared sets as one: their clips, and how often each set's are shown."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, groupby, pairwise
from math import ceil
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int

from latentsync.data.clips import COLUMNS, SPLIT, Clip
from latentsync.data.rows import Lazy, Made


def sets_of(clips: Sequence[Clip]) -> list[Sequence[Clip]]:
    """Consecutive clips of the same prepared set, grouped."""
    if isinstance(clips, Joined):
        return [each for part in clips.parts for each in sets_of(part)]
    if isinstance(clips, Made):
        # Without making them: a manifest may list clips of several sets.
        folders = (str(each).rpartition("/")[0] for each in clips.rows.values("clip"))
        firsts = [0]
        for _, each in groupby(folders):
            firsts.append(firsts[-1] + sum(1 for _ in each))
        return [clips] if len(firsts) == 2 else [clips[a:b] for a, b in pairwise(firsts)]
    return [list(each) for _, each in groupby(clips, key=_folder)]


def joined(sets: Sequence[tuple[str, Sequence[Clip]]]) -> Sequence[Clip]:
    """The clips of all sets (name, clips), one after the other.

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
    return chained([clips for _, clips in sets])


class Joined(Lazy[Clip]):
    """Several sequences of clips as one."""

    def __init__(self, parts: Sequence[Sequence[Clip]]) -> None:
        self.parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: SupportsIndex) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        index = range(len(self))[index]
        part = bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]


def column_of(clips: Sequence[Clip], name: str) -> Iterator[Any]:
    """A value of every clip that is a column of manifests, without making the clips."""
    if isinstance(clips, Joined):
        return chain.from_iterable(column_of(part, name) for part in clips.parts)
    if isinstance(clips, Made):
        return clips.rows.values(name)
    if name in COLUMNS:
        return (getattr(clip, name) for clip in clips)
    return (clip.measures.get(name) for clip in clips)


def chained(parts: Sequence[Sequence[Clip]]) -> Sequence[Clip]:
    """All parts as one sequence; the only one as it is."""
    return parts[0] if len(parts) == 1 else Joined(parts)


def of_split(clips: Sequence[Clip], split: str, name: Path | str) -> Sequence[Clip]:
    """Those for training or for validation, of a set whose manifest has the column `split`; all of
    one without. `name` is for the error: ValueError if there are none."""
    if isinstance(clips, Made):
        named = clips.rows.different(SPLIT)
    else:
        named = {clip.measures.get(SPLIT) for clip in clips}
    found = {str(each) for each in named if each is not None}
    if not found:
        return clips
    if split not in found:
        raise ValueError(
            f"{name} has clips of the splits {', '.join(sorted(found))}, and none of {split}: give "
            f"another set, or split it anew: python prepare.py stage=filter output={name} "
            f"prepare.split.val=0.05"
        )
    if not isinstance(clips, Made):
        return [clip for clip in clips if clip.measures.get(SPLIT) == split]
    chosen = clips.rows.where(SPLIT, split)
    return clips if len(chosen) == len(clips) else clips.chosen(chosen)


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
