"""The report as one HTML file to look at: it holds its pictures and asks nothing of anybody."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from latentsync.files import publish
from latentsync.pipeline.reporting.curves import Curves
from latentsync.pipeline.reporting.html_style import STYLE
from latentsync.pipeline.reporting.report import (
    SYNC_MEASURES,
    ContactSheet,
    Report,
    ShotReport,
    SkippedSpan,
)

T = TypeVar("T")

# However long the video, the page stays a page.
MAX_POINTS = 1200
MAX_ROWS = 300

WIDTH, HEIGHT = 1200, 240
TOP, BOTTOM = 12, 204  # of the curves; shots and times stand below
NUM_TICKS = 10
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def write_page(
    path: Path, report: Report, *, sheet: ContactSheet | None = None, curves: Curves | None = None
) -> None:
    """Write the page, whole; its size does not grow with the video's length."""
    with publish(path) as partial:
        partial.write_text(build_page(report, sheet=sheet, curves=curves), encoding="utf-8")


def build_page(
    report: Report, *, sheet: ContactSheet | None = None, curves: Curves | None = None
) -> str:
    """The page's HTML; parts that there is nothing to say about are left out."""
    name = escape(Path(report.out).name)
    parts = [
        f"<h1>{name}</h1>",
        _summary(report),
        _warnings(report),
        "" if sheet is None or not sheet.cells else _sheet(sheet),
        "" if curves is None else _curves(curves, report.shots),
        _shots(report.shots, report.sync_measure),
        _left_alone(report.skipped),
        _timings(report),
        _settings(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style></head>\n"
        "<body><main>\n" + "\n".join(part for part in parts if part) + "\n</main></body></html>\n"
    )


def clock(seconds: float) -> str:
    """12.34 => 0:12.34; hours only where there are any."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{rest / 100:05.2f}"
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}" if hours else short


def _summary(report: Report) -> str:
    share = report.num_frames_with_face / max(report.num_frames, 1)
    tiles = [
        (f"{share:.0%}", f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"),
        (clock(report.num_frames / report.fps), f"long, at {report.fps:g} frames a second"),
        (clock(report.total_seconds), "to make it"),
        (f"{report.peak_memory_mib / 1024:.2f} GiB", "memory at most"),
    ]
    cells = (f"<div><b>{big}</b><span>{escape(small)}</span></div>" for big, small in tiles)
    return f'<section class="tiles">{"".join(cells)}</section>'


def _warnings(report: Report) -> str:
    lines = [f"Damaged: {line}" for line in report.damage] + report.notes
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in _cut(lines))
    return f'<ul class="warnings">{items}{_rest(lines)}</ul>'


def _sheet(sheet: ContactSheet) -> str:
    coded = base64.b64encode(sheet.jpeg()).decode("ascii")
    times = "".join(
        f"<span>{'' if seconds is None else clock(seconds)}</span>" for seconds in sheet.seconds
    )
    return (
        "<section><h2>Source above, result below</h2>"
        f'<img src="data:image/jpeg;base64,{coded}" alt="Frames of the source, and below them '
        f'the same frames of the result"><div class="times">{times}</div></section>'
    )


def _curves(curves: Curves, shots: Sequence[ShotReport]) -> str:
    seconds = max(len(curves.loudness), 1) / curves.fps
    mouths = np.concatenate([curves.before, curves.after])
    widest = float(np.nanmax(mouths)) if np.isfinite(mouths).any() else 0.0
    marks = [
        f'<path class="voice" d="{_area(curves.loudness)}"/>',
        *(
            f'<path class="{name}" d="{_line(values / widest)}"/>'
            for name, values in (("before", curves.before), ("after", curves.after))
            if widest > 0
        ),
        *(_band(shot, seconds) for shot in _cut(shots)),
        *(_tick(at, seconds) for at in _ticks(seconds)),
    ]
    names = [("voice", "loudness of the voice")]
    if widest > 0:
        names += [("before", "mouth in the source"), ("after", "mouth in the result")]
    legend = "".join(f'<span class="key {name}">{text}</span>' for name, text in names)
    return (
        f'<section><h2>Mouth and voice</h2><p class="legend">{legend}</p>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Opening of the mouth and loudness of the voice over time">'
        f"{''.join(marks)}</svg></section>"
    )


def _thin(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " p"]:
    """At most MAX_POINTS values: means of neighbours, NaN only where all of them are."""
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
    """A path with a hole wherever there is no value."""
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


def _band(shot: ShotReport, seconds: float) -> str:
    left, right = (min(at / seconds, 1.0) * WIDTH for at in (shot.start_seconds, shot.end_seconds))
    kind = "drawn" if shot.num_frames_drawn else "alone"
    title = f"shot {shot.number}, {shot.num_frames_drawn} of {shot.num_frames} frames lip-synced"
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{BOTTOM + 4}" '
        f'width="{max(right - left - 1, 0.5):.1f}" height="8"><title>{title}</title></rect>'
    )


def _ticks(seconds: float) -> Float[np.ndarray, " n"]:
    step = next((step for step in TICK_STEPS if seconds / step <= NUM_TICKS), seconds)
    return np.arange(0, seconds + 1e-9, step)


def _tick(at: float, seconds: float) -> str:
    anchor = "start" if at == 0 else "end" if at > seconds * 0.97 else "middle"
    x = at / seconds * WIDTH
    return f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{clock(at)}</text>'


def _shots(shots: Sequence[ShotReport], measure: str) -> str:
    if not shots:
        return ""
    head = ["shot", "from", "to", "person", "frames", "lip-synced", "sync before", "sync after"]
    rows = (
        [
            str(shot.number),
            clock(shot.start_seconds),
            clock(shot.end_seconds),
            ", ".join(str(person) for person in shot.persons) or "-",
            str(shot.num_frames),
            str(shot.num_frames_drawn),
            _figure(shot.sync_before),
            _figure(shot.sync_after),
        ]
        for shot in _cut(shots)
    )
    note = f"Sync: {escape(SYNC_MEASURES[measure])}."
    return f"<section><h2>Shots</h2>{_table(head, rows)}{_rest(shots)}<p>{note}</p></section>"


def _left_alone(spans: Sequence[SkippedSpan]) -> str:
    if not spans:
        return ""
    rows = (
        [clock(span.start_seconds), clock(span.end_seconds), span.reason] for span in _cut(spans)
    )
    table = _table(["from", "to", "why"], rows)
    return f"<section><h2>Left as it was</h2>{table}{_rest(spans)}</section>"


def _timings(report: Report) -> str:
    most = max(report.stage_seconds.values(), default=0.0)
    if most <= 0:
        return ""
    rows = "".join(
        f"<tr><th>{escape(stage)}</th><td>{seconds:.2f} s</td>"
        f'<td class="bar"><i style="width:{100 * seconds / most:.1f}%"></i></td></tr>'
        for stage, seconds in sorted(report.stage_seconds.items(), key=lambda item: -item[1])
    )
    note = f"Stages work beside each other; the whole took {report.total_seconds:.2f} s."
    return f"<section><h2>Time</h2><table>{rows}</table><p>{note}</p></section>"


def _settings(report: Report) -> str:
    lines = {
        "video": report.video,
        "audio": report.audio,
        "result": report.out,
        "model": report.model,
        "preset": report.preset or "-",
        "sampler": ", ".join(f"{name} {value}" for name, value in report.sampler.items()),
        "seed": report.seed,
        "device": f"{report.device}, {report.dtype}",
        "source": f"{clock(report.video_seconds)} at {report.source_fps:g} frames a second",
        "voice": clock(report.audio_seconds),
        "crf": report.crf,
    }
    rows = "".join(
        f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in lines.items()
    )
    return f'<section><h2>Settings</h2><div class="wide"><table>{rows}</table></div></section>'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _figure(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _cut(items: Sequence[T]) -> Sequence[T]:
    return items[:MAX_ROWS]


def _rest(items: Sequence[object]) -> str:
    more = len(items) - MAX_ROWS
    return f"<p>and {more} more: see the .report.json beside this page</p>" if more > 0 else ""
