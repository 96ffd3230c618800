"""Clips that show and sound the same as an earlier one of the set => listed as dropped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from latentsync.data.clips import Clip
from latentsync.prepare.fingerprint import share_of_different_bits, to_bytes
from latentsync.prepare.stage import Dropped, Outcome

PICTURE, SOUND = "picture_hash", "sound_hash"
# Two clips are compared if one of these pieces of their sound's bits is the same.
PIECE_BYTES = 3
# In a piece that many clips share, each is compared with the next ones only.
MAX_NEIGHBOURS = 16


@dataclass(frozen=True, kw_only=True)
class Dedupe:
    """Drops the later of two clips whose hashes differ in at most these shares of their bits.

    Both must agree: one voice with two pictures, and one picture with two voices, are no copies.
    Clips without hashes are kept.
    """

    max_picture: float
    max_sound: float

    name: ClassVar[str] = "dedupe"

    def __call__(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        clips = [
            clip
            for outcome in outcomes
            for clip in outcome.clips
            if clip.measures.get(PICTURE) and clip.measures.get(SOUND)
        ]
        copies = {clips[late].name: clips[early] for late, early in self._copies(clips).items()}
        return [_without(outcome, copies) for outcome in outcomes]

    def _copies(self, clips: Sequence[Clip]) -> dict[int, int]:
        """Number of a copy => that of the clip it is a copy of, which is kept."""
        if len(clips) < 2:
            return {}
        pictures, sounds = (
            np.stack([to_bytes(str(clip.measures[name])) for clip in clips])
            for name in (PICTURE, SOUND)
        )
        copies: dict[int, int] = {}
        for early, late in sorted(set(alike(sounds))):
            if early in copies or late in copies:
                continue
            differences = (
                share_of_different_bits(sounds[early], sounds[late]),
                share_of_different_bits(pictures[early], pictures[late]),
            )
            if differences[0] <= self.max_sound and differences[1] <= self.max_picture:
                copies[late] = early
        return copies


def alike(hashes: UInt8[np.ndarray, "n b"]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share a piece, the earlier first; takes a sort per piece, not n * n."""
    weights = 256 ** np.arange(PIECE_BYTES)
    for first in range(0, hashes.shape[1] - PIECE_BYTES + 1, PIECE_BYTES):
        values = hashes[:, first : first + PIECE_BYTES].astype(np.int64) @ weights
        order = np.argsort(values, kind="stable")
        for step in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
            same = np.flatnonzero(values[order[:-step]] == values[order[step:]])
            if not len(same):
                break
            yield from zip(order[same].tolist(), order[same + step].tolist(), strict=True)


def _without(outcome: Outcome, copies: dict[str, Clip]) -> Outcome:
    found = [clip for clip in outcome.clips if clip.name in copies]
    if not found:
        return outcome
    dropped = [_dropped(outcome.source.name, clip, copies[clip.name]) for clip in found]
    return replace(
        outcome,
        clips=[clip for clip in outcome.clips if clip.name not in copies],
        dropped=[*outcome.dropped, *dropped],
    )


def _dropped(source: str, clip: Clip, first: Clip) -> Dropped:
    start, end = clip.start_frame, clip.start_frame + clip.num_frames
    return Dropped(
        source,
        Dedupe.name,
        f"same as clips/{first.path.name}",
        start,
        start / clip.fps,
        end / clip.fps,
        clip=clip.path.name,
    )
