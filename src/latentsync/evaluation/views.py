"""What the page shows of a few clips: strips of faces, the opening over time, the video."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from latentsync.evaluation.adapted_page import STRIP_COLUMNS, line, strip
from latentsync.evaluation.aggregate import ClipValues, Row
from latentsync.evaluation.controls import TRUTH
from latentsync.media.video import probe, read_frames
from latentsync.metrics.base import Figure

MAX_CLIPS = 5
# Figures by which clips are ranked, the first that a row has.
RANKED_BY = ("r_open", "r_open_mesh", "in_over_off", "lse_c_0", "psnr_inside")
REFERENCES = ("ref", TRUTH)
STRIP_SIDE = 144


@dataclass(frozen=True, slots=True)
class Files:
    """The result and the reference of a clip."""

    result: Path
    reference: Path


@dataclass(frozen=True, slots=True)
class View:
    """One clip as the page shows it; strips are base64 JPEGs, openings are SVG paths."""

    clip: str
    figure: str
    video: str
    strips: Sequence[tuple[str, str]]
    openings: tuple[str, str] | None


def worst_clips(row: Row, figures: Sequence[Figure]) -> tuple[Figure, list[ClipValues]] | None:
    """The clips of a row with the lowest figure, and which figure that is."""
    values = {clip.clip: (clip, given) for clip, given in row.clip_values()}
    by_key = {figure.key: figure for figure in figures}
    for key in RANKED_BY:
        given = {name: each[key] for name, (_, each) in values.items()
                 if key in each and np.isfinite(each[key])}  # fmt: skip
        if given:
            names = sorted(given, key=lambda name: (given[name], name))[:MAX_CLIPS]
            return by_key[key], [values[name][0] for name in names]
    return None


def views_of(
    rows: Mapping[str, Row],
    figures: Sequence[Figure],
    files: Mapping[str, Mapping[str, Files]],
    *,
    out: Path,
) -> Iterator[tuple[str, str, list[View]]]:
    """Of every row of results: its name, the figure that its clips are ranked by, and the clips."""
    for name, row in rows.items():
        found = worst_clips(row, figures) if name in files else None
        if found is not None:
            figure, clips = found
            shown = [_view(clip, figure, files[name][clip.clip], out) for clip in clips]
            yield name, figure.label or figure.key, shown


def _view(clip: ClipValues, figure: Figure, files: Files, out: Path) -> View:
    value = next(each[figure.key] for each in clip.values.values() if figure.key in each)
    openings = None
    if clip.opening is not None:
        most = max(float(np.nanmax(np.stack(clip.opening), initial=0.0)), 0.05)
        wanted, result = (line(track, most=1.1 * most) for track in clip.opening)
        openings = wanted, result
    strips = [
        (caption, strip(np.stack(list(spread_frames(path)))))
        for caption, path in (("result", files.result), ("reference", files.reference))
    ]
    video = os.path.relpath(files.result, out).replace(os.sep, "/")
    return View(clip.clip, figure.form.format(value), video, strips, openings)


def spread_frames(path: Path) -> Iterator[UInt8[np.ndarray, "r r 3"]]:
    """Frames spread over a video, their middle as squares."""
    last = max(probe(path).num_frames - 1, 0)
    wanted = set(np.linspace(0, last, STRIP_COLUMNS).round().astype(int).tolist())
    for index, frame in enumerate(read_frames(path)):
        if index in wanted:
            height, width = frame.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            yield frame[top : top + side, left : left + side]
        if index >= last:
            return


def curve_path(
    curve: Float[np.ndarray, " k"], low: float, high: float, *, width: int, height: int
) -> str:
    """A curve over its whole width as an SVG path; gaps where there is no value."""
    x = np.linspace(0, width, len(curve))
    y = height * (1 - (curve - low) / max(high - low, 1e-9))
    path, pen = [], "M"
    for left, down in zip(x.tolist(), y.tolist(), strict=True):
        is_known = np.isfinite(down)
        path.append(f"{pen}{left:.1f} {down:.1f}" if is_known else "")
        pen = "L" if is_known else "M"
    return "".join(path)
