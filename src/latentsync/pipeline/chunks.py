"""Slots of the model's time grid => the windows that the network draws at once.

A run is a stretch of slots in which one face is redrawn. Windows of a run overlap and cross-fade,
so that no seam stands between them, and the last one ends with the run instead of being short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int

Reference = Literal["auto", "previous", "self"]


@dataclass(frozen=True, slots=True)
class Run:
    """Slots `first` to `end` (exclusive) in which the face of a track is redrawn.

    `strength` says how much of the drawn mouth is shown in each slot: 0 (the source) to 1. `turn`
    is the number of a turn that has a voice of its own.
    """

    track: int
    person: int
    first: int
    end: int
    strength: Float32[np.ndarray, " n"]
    turn: int | None = None

    @property
    def speech(self) -> int | str:
        """The name of its voice in `assign`: "turn3", or the person."""
        return self.person if self.turn is None else f"turn{self.turn}"

    def __len__(self) -> int:
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Chunk:
    """Slots that the network draws at once; `weights` is their share in the result.

    `reference` are the slots whose faces are shown unmasked beside them.
    """

    run: int
    first: int
    end: int
    weights: Float32[np.ndarray, " n"]
    reference: Int[np.ndarray, " n"]

    @property
    def slots(self) -> Int[np.ndarray, " n"]:
        return np.arange(self.first, self.end)

    @property
    def needs_until(self) -> int:
        """The slot behind the last one whose face must be at hand."""
        return max(self.end, int(self.reference.max()) + 1)


def cut_chunks(
    runs: Sequence[Run],
    *,
    length: int,
    overlap: int,
    reference: str = "previous",
    short_last: bool = False,
) -> list[Chunk]:
    """The windows of all runs, in the order in which their faces come.

    `reference`: the faces shown unmasked beside a window are those a window before ("previous") or
    its own ("self"). `short_last`: windows follow each other and the last one stays short, as in
    the official pipeline; else it reaches back to be full, unless the whole run is shorter than a
    window.
    """
    if not 0 <= overlap <= length // 2:
        raise ValueError(f"overlap={overlap} must lie between 0 and half a window, {length // 2}")
    chunks = [
        chunk
        for index, run in enumerate(runs)
        for chunk in _of_run(index, run, length, overlap, reference, short_last)
    ]
    return sorted(chunks, key=lambda chunk: (chunk.needs_until, chunk.run, chunk.first))


def _of_run(
    index: int, run: Run, length: int, overlap: int, reference: str, short_last: bool
) -> list[Chunk]:
    starts = [run.first]
    while starts[-1] + length < run.end:
        following = starts[-1] + length - overlap
        starts.append(following if short_last else min(following, run.end - length))
    ends = [min(start + length, run.end) for start in starts]
    chunks = []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        slots = np.arange(start, end)
        weights = np.ones(len(slots), dtype=np.float32)
        if place > 0:
            weights *= _ramp(slots, ends[place - 1], overlap)
        if place + 1 < len(starts):
            weights *= 1 - _ramp(slots, end, overlap)
        shown = slots if reference == "self" else apart(slots, run, length)
        chunks.append(Chunk(index, start, end, weights, shown))
    return chunks


def _ramp(slots: Int[np.ndarray, " n"], before_end: int, overlap: int) -> Float32[np.ndarray, " n"]:
    """The share of a window that follows one which ends at `before_end`: from 0 to 1 within the
    last `overlap` slots of that one."""
    return ((slots - before_end + overlap + 1) / (overlap + 1)).clip(0, 1).astype(np.float32)


def apart(slots: Int[np.ndarray, " n"], run: Run, length: int) -> Int[np.ndarray, " n"]:
    """Slots of the run a window away: before, else behind, else half the run apart in a circle.

    Networks are trained with references from another time; the face's own mouth would leak.
    """
    if slots[0] - length >= run.first:
        return slots - length
    if slots[-1] + length < run.end:
        return slots + length
    return run.first + (slots - run.first + len(run) // 2) % len(run)
