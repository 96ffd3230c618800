"""Seconds of all sources, stage by stage: what comes in, what is dropped there and why."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from latentsync.data.clips import Clip
from latentsync.prepare.accounts import Bounds, covered
from latentsync.prepare.stage import Dropped, Outcome

NUMBER = re.compile(r"(?<![\w/])-?\d+(?:\.\d+)?(?![\w/])")
CLIP_NAME = re.compile(r" \(clips/[^)]*\)")


@dataclass(slots=True)
class Reason:
    """Dropped parts of one kind; `name` has # for the numbers in which they differ."""

    name: str
    dropped: list[Dropped] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """`seconds_in` reach a stage and `seconds_out` leave it; None: the end of all stages."""

    stage: str
    seconds_in: float
    seconds_out: float
    reasons: list[Reason]

    @property
    def num_dropped(self) -> int:
        return sum(len(reason.dropped) for reason in self.reasons)


def steps_of(outcomes: Sequence[Outcome], stages: Sequence[str]) -> list[Step]:
    """The stages that dropped something, in order; what has no length counts no seconds.

    Stages that are not listed come last: limits, and what looks at the whole set.
    """
    named = dict.fromkeys(stages)
    found = dict.fromkeys(part.stage for each in outcomes for part in each.dropped)
    order = list(named | found)
    after = _seconds_after(outcomes, order)
    steps = []
    for stage, (seconds_in, seconds_out) in zip(order, pairwise(after), strict=True):
        reasons = _reasons(outcomes, stage)
        if reasons:
            steps.append(Step(stage, seconds_in, seconds_out, reasons))
    return steps


def _seconds_after(outcomes: Sequence[Outcome], order: Sequence[str]) -> list[float]:
    """Seconds before the first stage and after each: those in clips or dropped by a later one."""
    totals = [0.0] * (len(order) + 1)
    for outcome in outcomes:
        if outcome.seconds is None:
            continue
        parts = [bounds_of_clip(clip) for clip in outcome.clips]
        totals[-1] += covered(parts, outcome.seconds)
        for place in range(len(order) - 1, -1, -1):
            here = (part for part in outcome.dropped if part.stage == order[place])
            parts += [bounds_of(part, outcome.seconds) for part in here]
            totals[place] += covered(parts, outcome.seconds)
    return totals


def _reasons(outcomes: Sequence[Outcome], stage: str) -> list[Reason]:
    """Why a stage dropped parts, the most seconds first."""
    found: dict[str, Reason] = {}
    for outcome in outcomes:
        parts: dict[str, list[Bounds]] = defaultdict(list)
        for part in outcome.dropped:
            if part.stage != stage:
                continue
            kind = kind_of(part.reason)
            found.setdefault(kind, Reason(kind)).dropped.append(part)
            if outcome.seconds is not None:
                parts[kind].append(bounds_of(part, outcome.seconds))
        for kind, bounds in parts.items():
            found[kind].seconds += covered(bounds, outcome.seconds or 0.0)
    return sorted(found.values(), key=lambda reason: (-reason.seconds, -len(reason.dropped)))


def kind_of(reason: str) -> str:
    """A reason without the numbers and names in which it differs from others of its kind."""
    return NUMBER.sub("#", CLIP_NAME.sub("", reason))


def bounds_of_clip(clip: Clip) -> Bounds:
    return clip.start_frame / clip.fps, (clip.start_frame + clip.num_frames) / clip.fps


def bounds_of(part: Dropped, total: float) -> Bounds:
    """From where to where a part is in its source; without bounds it is all of it."""
    return part.start_seconds or 0.0, total if part.end_seconds is None else part.end_seconds
