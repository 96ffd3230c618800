"""Quality and speed of every clip of a benchmark, of this evaluation and of the one against it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from latentsync.evaluation.clip_values import CLIPS, ClipTable, read_clips
from latentsync.evaluation.report_page import Point
from latentsync.evaluation.run_method import RUNS_NAME, costs_by_name
from latentsync.evaluation.views import RANKED_BY
from latentsync.metrics.base import Figure


def speed_points(
    tables: Mapping[str, ClipTable],
    figures: Sequence[Figure],
    folders: Mapping[str, Path],
) -> tuple[list[Point], str]:
    """The points of the folders' runs and the name of the figure, the first that the clips have.

    `folders`: the `out` of each evaluation by its name, this one first; its figures are `tables`.
    """
    results = {name: table for name, table in tables.items() if name.startswith("pred")}
    key = next((each for each in RANKED_BY
                if any(each in table.values for table in results.values())), None)  # fmt: skip
    if key is None:
        return [], ""
    label = next(figure.label or key for figure in figures if figure.key == key)
    points: list[Point] = []
    for index, (name, folder) in enumerate(folders.items()):
        if not (folder / RUNS_NAME).is_file():
            continue
        given = tables if index == 0 else read_clips(folder / CLIPS)
        seconds = {clip: cost.seconds for clip, cost in costs_by_name(folder / RUNS_NAME).items()}
        points += [
            Point(name, seconds[Path(clip).stem], value)
            for row, table in given.items()
            if row.startswith("pred") and key in table.values
            for clip, value in zip(table.clips, table.values[key], strict=True)
            if Path(clip).stem in seconds and not math.isnan(value)
        ]
    return points, label
