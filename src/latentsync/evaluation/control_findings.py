"""What the controls say about metrics of sync: which are broken, which reward exaggeration."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
from jaxtyping import Float

from latentsync.evaluation.aggregate import Row, figures_of
from latentsync.evaluation.clip_values import ClipTable, tables_of
from latentsync.evaluation.controls import (
    COPIED,
    EXAGGERATED,
    REVERSED,
    SHIFTS,
    SHUFFLED,
    TRUTH,
)
from latentsync.evaluation.statistics import Difference, paired_difference
from latentsync.evaluation.tables import as_text
from latentsync.metrics.base import Figure

# The mean over all shifts of a clip.
SHIFTED = "1 to 15 frames late"
COLUMNS = (COPIED, SHUFFLED, SHIFTED, REVERSED, EXAGGERATED)
RIGHT, FEW = "as it should", "too few speakers to say"
REWARDS = "rewards exaggeration"

Values = Mapping[str, float]


def findings(
    rows: Mapping[str, Row], *, seed: int, not_run: Mapping[str, str]
) -> dict[str, object]:
    """Additions to metrics.json: the controls' figures, differences to the truth, and what follows.

    `not_run`: controls that these clips do not allow, with reasons.
    """
    tables = tables_of(rows)
    figures = [each for each in figures_of(rows[TRUTH].metrics) if each.sync is not None]
    found = {each.key: of_figure(each, tables, seed=seed) for each in figures
             if each.key in tables[TRUTH].values}  # fmt: skip
    marks = {figure.key: mark(figure, found[figure.key]) for figure in figures
             if figure.key in found}  # fmt: skip
    return {
        "rows": {name: row.summary() for name, row in rows.items() if row.num_clips},
        "worse_than_truth_by": {
            key: {name: asdict(each) for name, each in row.items()} for key, row in found.items()
        },
        "marks": marks,
        "not_run": dict(not_run),
    }


def of_figure(
    figure: Figure, tables: Mapping[str, ClipTable], *, seed: int
) -> dict[str, Difference]:
    """By how much each control is worse than the truth, over the clips that have both."""
    truth = costs(figure, tables[TRUTH])
    groups = {name: [name] for name in COLUMNS if name != SHIFTED} | {SHIFTED: [*SHIFTS.values()]}
    result = {}
    for name in COLUMNS:
        spoiled = mean_costs(costs(figure, tables[each]) for each in groups[name])
        clips = sorted(truth.keys() & spoiled.keys())
        if clips:
            speakers = dict(zip(tables[TRUTH].clips, tables[TRUTH].speakers, strict=True))
            result[name] = paired_difference(
                _column(spoiled, clips),
                _column(truth, clips),
                [speakers[clip] for clip in clips],
                seed=seed,
            )
    return result


def costs(figure: Figure, table: ClipTable) -> dict[str, float]:
    """The figure of every clip that has one, turned so that more is worse."""
    if figure.key not in table.values:
        return {}
    values = table.column(figure.key)
    turned = {"higher": -values, "lower": values, "0": np.abs(values)}[figure.better]
    return {
        clip: cost
        for clip, cost in zip(table.clips, turned.tolist(), strict=True)
        if not np.isnan(cost)
    }


def mean_costs(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every clip over the tables that have it."""
    gathered: dict[str, list[float]] = {}
    for table in each:
        for clip, cost in table.items():
            gathered.setdefault(clip, []).append(cost)
    return {clip: float(np.mean(values)) for clip, values in gathered.items()}


def mark(figure: Figure, found: Mapping[str, Difference]) -> str:
    """What the controls say of a figure."""
    decisive = [name for name in (COPIED, SHUFFLED, SHIFTED, REVERSED) if name in found
                and not (name == SHIFTED and figure.sync == "free")]  # fmt: skip
    if not decisive or any(np.isnan(found[name].low) for name in decisive):
        return FEW
    blind = [name for name in decisive if found[name].low <= 0]
    marks = [f"broken: not worse when {', '.join(blind)}"] if blind else []
    if EXAGGERATED in found and found[EXAGGERATED].high < 0:
        marks.append(REWARDS)
    return "; ".join(marks) or RIGHT


def control_table(controls: Mapping[str, object], figures: Iterable[Figure]) -> list[list[str]]:
    """One line per figure of sync: the truth, the controls, and what they say; the head first."""
    rows, marks = controls["rows"], controls["marks"]
    assert isinstance(rows, dict) and isinstance(marks, dict)
    shown = [TRUTH, *COLUMNS]
    lines = [["", *shown, "this metric"]]
    for figure in figures:
        if figure.key in marks:
            cells = [as_text(_shown(rows, name, figure), figure.form) for name in shown]
            lines.append([figure.label or figure.key, *cells, marks[figure.key]])
    return lines


def _shown(rows: Mapping[str, Values], name: str, figure: Figure) -> float | str:
    names = SHIFTS.values() if name == SHIFTED else (name,)
    values = [rows[each][figure.key] for each in names if figure.key in rows.get(each, {})]
    if any(isinstance(value, str) for value in values):
        return values[0]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _column(costs_by_clip: Mapping[str, float], clips: list[str]) -> Float[np.ndarray, " n"]:
    return np.array([costs_by_clip[clip] for clip in clips], dtype=np.float64)
