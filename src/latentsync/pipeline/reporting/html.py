"""The report as one self-contained HTML file with embedded images."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from latentsync.files import publish
from latentsync.pages import clock, render
from latentsync.pipeline.reporting.curves import Curves
from latentsync.pipeline.reporting.report import (
    SYNC_MEASURES,
    ContactSheet,
    Report,
    ShotReport,
)

# Limits the size of the page for long videos.
MAX_POINTS = 1200
MAX_ROWS = 300

WIDTH, HEIGHT = 1200, 240
TOP, BOTTOM = 12, 204  # of the curves; shots and times are below
NUM_TICKS = 10
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def write_page(
    path: Path, report: Report, *, sheet: ContactSheet | None = None, curves: Curves | None = None
) -> None:
    """Write the page atomically; its size does not grow with the video's length."""
    with publish(path) as partial:
        partial.write_text(build_page(report, sheet=sheet, curves=curves), encoding="utf-8")


def build_page(
    report: Report, *, sheet: ContactSheet | None = None, curves: Curves | None = None
) -> str:
    """The page's HTML; sections without content are omitted."""
    values = {
        "name": Path(report.out).name,
        "report": report,
        "tiles": _tiles(report),
        "notes": [f"Damaged: {line}" for line in report.damage] + report.notes,
        "sheet": None if sheet is None or not sheet.cells else _sheet(sheet),
        "curves": None if curves is None else _curves(curves, report.shots),
        "shot_rows": [_shot_row(shot) for shot in report.shots[:MAX_ROWS]],
        "sync_measure": SYNC_MEASURES[report.sync_measure],
        "skipped_rows": [
            [clock(span.start_seconds), clock(span.end_seconds), span.reason]
            for span in report.skipped[:MAX_ROWS]
        ],
        "stages": _stages(report.stage_seconds),
        "settings": _settings(report),
        "max_rows": MAX_ROWS,
    }
    return render("latentsync.pipeline.reporting", "report.html", values)


def _tiles(report: Report) -> list[tuple[str, str]]:
    share = report.num_frames_with_face / max(report.num_frames, 1)
    return [
        (f"{share:.0%}", f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"),
        (clock(report.num_frames / report.fps), f"long, at {report.fps:g} frames a second"),
        (clock(report.total_seconds), "to make it"),
        (f"{report.peak_memory_mib / 1024:.2f} GiB", "memory at most"),
    ]


def _sheet(sheet: ContactSheet) -> dict[str, object]:
    return {"jpeg": base64.b64encode(sheet.jpeg()).decode("ascii"), "seconds": sheet.seconds}


def _curves(curves: Curves, shots: Sequence[ShotReport]) -> dict[str, object]:
    seconds = max(len(curves.loudness), 1) / curves.fps
    mouths = np.concatenate([curves.before, curves.after])
    widest = float(np.nanmax(mouths)) if np.isfinite(mouths).any() else 0.0
    paths = [("voice", "loudness of the voice", _area(curves.loudness))]
    if widest > 0:
        paths += [
            ("before", "mouth in the source", _line(curves.before / widest)),
            ("after", "mouth in the result", _line(curves.after / widest)),
        ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "band_top": BOTTOM + 4,
        "paths": [{"kind": kind, "label": label, "path": path} for kind, label, path in paths],
        "bands": [_band(shot, seconds) for shot in shots[:MAX_ROWS]],
        "ticks": [_tick(at, seconds) for at in _ticks(seconds)],
    }


def _thin(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " p"]:
    """At most MAX_POINTS values: means of neighbours, NaN only if all of them are."""
    step = -(-len(values) // MAX_POINTS)
    padded = np.concatenate([values, np.full(-len(values) % step, np.nan)]).reshape(-1, step)
    known = np.isfinite(padded)
    sums, counts = np.where(known, padded, 0).sum(axis=1), known.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _points(values: Float[np.ndarray, " k"]) -> list[str | None]:
    thin = _thin(values)
    x = (np.arange(len(thin)) + 0.5) / len(thin) * WIDTH
    y = BOTTOM - thin.clip(0, 1) * (BOTTOM - TOP)
    return [
        f"{left:.1f} {down:.1f}" if np.isfinite(down) else None
        for left, down in zip(x, y, strict=True)
    ]


def _line(values: Float[np.ndarray, " k"]) -> str:
    """An SVG path with gaps where values are missing."""
    if not len(values):
        return ""
    path, pen = [], "M"
    for point in _points(values):
        path.append("" if point is None else pen + point)
        pen = "M" if point is None else "L"
    return "".join(path)


def _area(values: Float[np.ndarray, " k"]) -> str:
    if not len(values):
        return ""
    points = [point for point in _points(np.nan_to_num(values)) if point is not None]
    return f"M0 {BOTTOM}L{'L'.join(points)}L{WIDTH} {BOTTOM}Z"


def _band(shot: ShotReport, seconds: float) -> dict[str, str]:
    left, right = (min(at / seconds, 1.0) * WIDTH for at in (shot.start_seconds, shot.end_seconds))
    return {
        "kind": "drawn" if shot.num_frames_drawn else "alone",
        "x": f"{left:.1f}",
        "width": f"{max(right - left - 1, 0.5):.1f}",
        "title": (
            f"shot {shot.number}, {shot.num_frames_drawn} of {shot.num_frames} frames lip-synced"
        ),
    }


def _ticks(seconds: float) -> Float[np.ndarray, " n"]:
    step = next((step for step in TICK_STEPS if seconds / step <= NUM_TICKS), seconds)
    return np.arange(0, seconds + 1e-9, step)


def _tick(at: float, seconds: float) -> dict[str, object]:
    anchor = "start" if at == 0 else "end" if at > seconds * 0.97 else "middle"
    return {"x": f"{at / seconds * WIDTH:.1f}", "anchor": anchor, "seconds": at}


def _shot_row(shot: ShotReport) -> list[str]:
    return [
        str(shot.number),
        clock(shot.start_seconds),
        clock(shot.end_seconds),
        ", ".join(str(person) for person in shot.persons) or "-",
        str(shot.num_frames),
        str(shot.num_frames_drawn),
        _figure(shot.sync_before),
        _figure(shot.sync_after),
    ]


def _stages(stage_seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Name, seconds, and percent of the longest, which comes first; empty if nothing took time."""
    most = max(stage_seconds.values(), default=0.0)
    if most <= 0:
        return []
    longest_first = sorted(stage_seconds.items(), key=lambda item: -item[1])
    return [(name, seconds, 100 * seconds / most) for name, seconds in longest_first]


def _settings(report: Report) -> dict[str, object]:
    return {
        "video": report.video,
        "audio": report.audio,
        "result": report.out,
        "model": report.model,
        "adapted to": "nobody" if report.adapted_to is None else report.adapted_to["video"],
        "preset": report.preset or "-",
        "sampler": ", ".join(f"{name} {value}" for name, value in report.sampler.items()),
        "seed": report.seed,
        "device": f"{report.device}, {report.dtype}",
        "source": f"{clock(report.video_seconds)} at {report.source_fps:g} frames a second",
        "voice": clock(report.audio_seconds),
        "crf": report.crf,
    }


def _figure(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.2f}"
