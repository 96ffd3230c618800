"""Clips beyond a limit of what was measured => listed as dropped; their files stay."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from latentsync.data.clips import Clip
from latentsync.prepare.stage import Dropped, Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """From where to where a measure may be; None: no limit. `stage` is named in what is dropped."""

    min: float | None = None
    max: float | None = None
    stage: str = "limits"

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the limits min={self.min:g} and max={self.max:g} let nothing pass")

    def passed(self, value: float) -> float | None:
        """The bound that a value is beyond, or None."""
        if self.min is not None and value < self.min:
            return self.min
        return self.max if self.max is not None and value > self.max else None


Limits = Mapping[str, Limit]


def limits_of(named: Mapping[str, Mapping]) -> dict[str, Limit]:
    """Limits from plain values: {measure: {min, max, stage}}."""
    limits = {}
    for measure, bounds in named.items():
        try:
            limits[measure] = Limit(**bounds)
        except TypeError as error:
            raise ValueError(
                f"the limit of {measure} is {bounds!r}: a limit has min, max and stage"
            ) from error
    return limits


def within(outcomes: Sequence[Outcome], limits: Limits) -> list[Outcome]:
    """The outcomes, with the clips beyond a limit among the dropped.

    A clip without a measure, or with None, is not dropped for it: it was not measured.
    """
    check_measures([clip for outcome in outcomes for clip in outcome.clips], limits)
    return [_within(outcome, limits) for outcome in outcomes]


def check_measures(clips: Sequence[Clip], limits: Limits) -> None:
    """Warn of limits that cannot do anything, as no clip has their measure; ValueError for one of
    a text."""
    for measure, limit in limits.items():
        values = [clip.measures[measure] for clip in clips if measure in clip.measures]
        texts = [value for value in values if isinstance(value, str)]
        if limit == Limit(stage=limit.stage):
            continue
        if texts:
            raise ValueError(f"{measure} is a text ({texts[0]!r}), which has no min and max")
        if clips and not values:
            logger.warning("no clip has the measure %s: its limit does nothing", measure)


def _within(outcome: Outcome, limits: Limits) -> Outcome:
    kept: list[Clip] = []
    dropped = list(outcome.dropped)
    for clip in outcome.clips:
        beyond = list(_beyond(clip, limits))
        if beyond:
            dropped.append(_dropped(outcome.source.name, clip, beyond, limits))
        else:
            kept.append(clip)
    return replace(outcome, clips=kept, dropped=dropped)


def _beyond(clip: Clip, limits: Limits) -> Iterable[tuple[str, float, float]]:
    """Measure, value and threshold of every limit that a clip is beyond."""
    for measure, limit in limits.items():
        value = clip.measures.get(measure)
        if isinstance(value, int | float):
            threshold = limit.passed(value)
            if threshold is not None:
                yield measure, value, threshold


def _dropped(
    source: str, clip: Clip, beyond: Sequence[tuple[str, float, float]], limits: Limits
) -> Dropped:
    """One line for a clip, with the first measure's values and a reason for each."""
    reasons = [
        f"{measure} is {value:g}, {threshold:g} is the {'least' if value < threshold else 'most'}"
        for measure, value, threshold in beyond
    ]
    end = clip.start_frame + clip.num_frames
    measure, value, threshold = beyond[0]
    return Dropped(
        source,
        limits[measure].stage,
        f"{'; '.join(reasons)} (clips/{clip.path.name})",
        clip.start_frame,
        clip.start_frame / clip.fps,
        end / clip.fps,
        value,
        threshold,
        clip.path.name,
    )
