"""Whether every second of a source is in a clip or in the list of what was dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

from latentsync.prepare.stage import Outcome

FRAME_SECONDS = 0.0401  # at 25 fps, rounded up

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Account:
    """Seconds of a source: `total` by its header or its list, `kept` in clips, `dropped` and not
    kept, and in neither."""

    source: str
    total: float
    kept: float
    dropped: float
    missing: float


def account_of(outcome: Outcome) -> Account | None:
    """What became of a source; None if it has no length, as it is no video.

    Seconds that two clips show, of two people, count once.
    """
    start, end = outcome.source.start_seconds, outcome.seconds
    if end is None:
        return None
    total = max(0.0, end - start)
    clips = [
        (clip.start_frame / clip.fps, (clip.start_frame + clip.num_frames) / clip.fps)
        for clip in outcome.clips
    ]
    parts = [
        # Without bounds all of the source was dropped, or the rest of it.
        (part.start_seconds or 0.0, end if part.end_seconds is None else part.end_seconds)
        for part in outcome.dropped
    ]
    kept, listed = (covered(each, end, start) for each in (clips, [*clips, *parts]))
    return Account(outcome.source.name, total, kept, listed - kept, total - listed)


def covered(parts: Sequence[Bounds], total: float, begin: float = 0.0) -> float:
    """Seconds of `begin` to `total` that are in any of the parts."""
    seconds, reached = 0.0, begin
    for start, end in sorted(parts):
        start, end = max(start, reached), min(end, total)
        if end > start:
            seconds += end - start
            reached = end
    return seconds


def accounts_of(outcomes: Sequence[Outcome]) -> list[Account]:
    """Those of all sources that have a length."""
    return [account for account in map(account_of, outcomes) if account]


def unaccounted(accounts: Sequence[Account]) -> list[Account]:
    """Those of which more than a frame is missing: a source's length is no whole number of them."""
    return [account for account in accounts if account.missing > FRAME_SECONDS]
