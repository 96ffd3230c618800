"""Numeric measures of clips => histograms as SVG, with the limits as lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Bool, Float

from latentsync.data.clips import Clip
from latentsync.prepare.limits import Limit, Limits

NUM_BARS = 32
WIDTH, HEIGHT, FLOOR = 320, 120, 96  # the axis is at FLOOR, its numbers are below
MARGIN = 8
# Measures whose numbers are names.
NAMES = frozenset(("person",))


@dataclass(frozen=True, slots=True)
class Bar:
    """Clips of one range of values: `kept` from the axis up, `dropped` on top of it."""

    x: float
    width: float
    kept: float
    dropped: float
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a template needs to show the values of one measure."""

    name: str
    bars: list[Bar]
    lines: list[tuple[float, str]]
    low: str
    high: str
    note: str


def histograms_of(clips: Sequence[Clip], kept: frozenset[str], limits: Limits) -> list[Histogram]:
    """Length and every numeric measure of the clips; `kept`: the names of those in the set."""
    names = dict.fromkeys(
        name
        for clip in clips
        for name, value in clip.measures.items()
        if name not in NAMES and np.isfinite(_number(value))
    )
    is_kept = np.array([clip.name in kept for clip in clips], dtype=bool)
    seconds = np.array([clip.num_frames / clip.fps for clip in clips])
    shown = [histogram("seconds", seconds, is_kept, Limit())] if clips else []
    for name in names:
        values = np.array([_number(clip.measures.get(name)) for clip in clips], dtype=float)
        shown.append(histogram(name, values, is_kept, limits.get(name, Limit())))
    return shown


def histogram(
    name: str,
    values: Float[np.ndarray, " n"],
    is_kept: Bool[np.ndarray, " n"],
    limit: Limit,
) -> Histogram:
    """The histogram of a measure; NaN is what was not measured."""
    known = np.isfinite(values)
    found = values[known]
    low, high = _range(found, limit)
    edges = np.linspace(low, high, NUM_BARS + 1)
    counts = np.histogram(found[is_kept[known]], edges)[0]
    others = np.histogram(found[~is_kept[known]], edges)[0]
    return Histogram(
        name,
        _bars(edges, counts, others),
        _lines(limit, low, high),
        f"{low:.4g}",
        f"{high:.4g}",
        _note(found, len(values) - len(found), limit),
    )


def _bars(edges: np.ndarray, counts: np.ndarray, others: np.ndarray) -> list[Bar]:
    most = max(int((counts + others).max(initial=0)), 1)
    width = (WIDTH - 2 * MARGIN) / NUM_BARS
    room = FLOOR - MARGIN
    return [
        Bar(
            round(MARGIN + index * width, 2),
            round(width - 1, 2),
            round(room * int(count) / most, 2),
            round(room * int(other) / most, 2),
            f"{edges[index]:.4g} to {edges[index + 1]:.4g}: {count} kept, {other} dropped",
        )
        for index, (count, other) in enumerate(zip(counts, others, strict=True))
        if count or other
    ]


def _range(found: np.ndarray, limit: Limit) -> tuple[float, float]:
    """From the least to the most value, and to the limits unless they are far away."""
    low, high = float(found.min()), float(found.max())
    room = max(high - low, abs(high) * 0.1, 1e-6)
    bounds = [each for each in (limit.min, limit.max) if each is not None]
    near = [each for each in bounds if low - 1.5 * room <= each <= high + 1.5 * room]
    low, high = min([low, *near]), max([high, *near])
    return (low, high) if high > low else (low - room / 2, high + room / 2)


def _lines(limit: Limit, low: float, high: float) -> list[tuple[float, str]]:
    lines = []
    for name, bound in (("least", limit.min), ("most", limit.max)):
        if bound is not None and low <= bound <= high:
            x = MARGIN + (WIDTH - 2 * MARGIN) * (bound - low) / (high - low)
            lines.append((round(x, 2), f"{name} {bound:g}"))
    return lines


def _note(found: np.ndarray, num_unknown: int, limit: Limit) -> str:
    parts = [f"{found.min():.4g} / {np.median(found):.4g} / {found.max():.4g}"]
    for name, bound in (("at least", limit.min), ("at most", limit.max)):
        if bound is not None:
            parts.append(f"limit: {name} {bound:g}")
    if num_unknown:
        parts.append(f"{num_unknown} not measured")
    return ", ".join(parts)


def _number(value: float | str | None) -> float:
    return value if isinstance(value, int | float) and isfinite(value) else float("nan")
