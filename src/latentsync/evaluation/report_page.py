"""An evaluation as one HTML file beside its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.control_findings import control_table
from latentsync.evaluation.tables import Content, lines
from latentsync.evaluation.views import Files, curve_path, views_of
from latentsync.files import publish
from latentsync.metrics.base import Figure
from latentsync.metrics.sync import MAX_SHIFT
from latentsync.pages import render

PAGE_NAME = "report.html"
WIDTH, HEIGHT = 640, 240
COLOURS = ("#1769c4", "#d9822b", "#2e9a5b", "#9b4dca", "#c0392b", "#607080")
MAX_FAILED = 30
# Why judges are left out, in metrics.json.
INVALID = ("sync_not_valid", "lse_not_valid", "speaker_not_valid")


@dataclass(frozen=True, slots=True)
class Point:
    """A clip of a method: seconds of work, and its figure."""

    method: str
    seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows beside the tables; `files` by row and clip, `points` of `points_of`."""

    files: Mapping[str, Mapping[str, Files]] = field(default_factory=dict)
    points: Sequence[Point] = ()
    points_of: str = ""


def write_page(
    out: Path,
    *,
    title: str,
    content: Content,
    rows: Mapping[str, Row],
    written: Mapping[str, object],
    page: Page,
) -> None:
    """Write the page; `written` is what metrics.json says."""
    controls = written.get("controls")
    assert controls is None or isinstance(controls, dict)
    reasons, failed = written.get("not_measured", {}), written.get("failed", [])
    assert isinstance(reasons, dict) and isinstance(failed, list)
    values = {
        "title": title,
        "tiles": tiles(content, written),
        "head": ["", *content.rows],
        "figures": lines(content),
        "controls": None if controls is None else control_table(controls, content.figures),
        "not_run": {} if controls is None else controls["not_run"],
        "curves": curves(rows),
        "shifts": MAX_SHIFT,
        "views": list(views_of(rows, content.figures, page.files, out=out)),
        "scatter": scatter(page.points),
        "points_of": page.points_of,
        "not_measured": reasons,
        "failed": [(each["pred"], each["failed"]) for each in failed[:MAX_FAILED]],
        "num_failed": content.num_failed,
        "invalid": [written[name] for name in INVALID if written.get(name)],
        "notes": written.get("notes", []),
        "width": WIDTH,
        "height": HEIGHT,
    }  # fmt: skip
    with publish(out / PAGE_NAME) as partial:
        text = render("latentsync.evaluation", "report.html", values)
        partial.write_text(text, encoding="utf-8")


def tiles(content: Content, written: Mapping[str, object]) -> list[tuple[str, str]]:
    """The numbers at the head of the page."""
    most = max((row["num_clips"] for row in content.rows.values()), default=0)
    settings = written["settings"]
    assert isinstance(settings, dict)
    shown = [(f"{most:g}", "clips measured"), (str(content.num_failed), "failed")]
    if settings.get("setting"):
        shown.append((str(settings["setting"]), "setting"))
    return shown


def curves(rows: Mapping[str, Row]) -> list[tuple[str, str, str]]:
    """Name, colour and SVG path of every row's mean cosine at each shift of the sound."""
    known = {name: curve for name, row in rows.items() if (curve := row.curve()) is not None}
    if not known:
        return []
    every = np.concatenate(list(known.values()))
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    return [
        (name, COLOURS[index % len(COLOURS)],
         curve_path(curve, low, high, width=WIDTH, height=HEIGHT))
        for index, (name, curve) in enumerate(known.items())
    ]  # fmt: skip


def scatter(points: Sequence[Point]) -> dict[str, object] | None:
    """Circles of all clips, log seconds from left to right and the figure from below, and the
    range of both axes."""
    if not points:
        return None
    seconds = np.log10([max(point.seconds, 1e-3) for point in points])
    values = np.array([point.value for point in points])
    x, y = (_spread(axis) for axis in (seconds, values))
    methods = list(dict.fromkeys(point.method for point in points))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(methods)}
    return {
        "circles": [
            (f"{WIDTH * across:.1f}", f"{HEIGHT * (1 - up):.1f}", colours[point.method])
            for point, across, up in zip(points, x, y, strict=True)
        ],
        "colours": colours,
        "seconds": [f"{10**edge:.3g}" for edge in (seconds.min(), seconds.max())],
        "values": [f"{edge:.3g}" for edge in (values.min(), values.max())],
    }


def _spread(axis: np.ndarray) -> list[float]:
    """Values between 0.05 and 0.95."""
    span = float(np.ptp(axis))
    inside = (axis - axis.min()) / span if span else np.full(len(axis), 0.5)
    return (0.05 + 0.9 * inside).tolist()


def figure_of(row: Row, figures: Sequence[Figure], keys: Sequence[str]) -> Figure | None:
    """The first of the figures that the row has."""
    by_key = {figure.key: figure for figure in figures}
    summary = row.summary()
    return next((by_key[key] for key in keys if key in summary), None)
