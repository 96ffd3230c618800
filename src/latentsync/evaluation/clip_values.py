"""Values of single clips: clips.csv and clips.parquet, intervals over them, and differences between
two methods."""

import csv
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from latentsync.data.tables import can_read_tables, write_table
from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.statistics import interval, paired_difference
from latentsync.extras import install
from latentsync.files import publish
from latentsync.metrics.base import Figure

log = logging.getLogger(__name__)

CLIPS, CLIPS_TABLE = "clips.csv", "clips.parquet"
FIRST_COLUMNS = ("row", "clip", "speaker")


@dataclass(slots=True)
class ClipTable:
    """The clips of one row and their figures by key, NaN where a clip has none."""

    clips: list[str] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, clip: str, speaker: str, values: Mapping[str, float]) -> None:
        """Add one clip."""
        for key in values.keys() - self.values.keys():
            self.values[key] = [math.nan] * len(self.clips)
        self.clips.append(clip)
        self.speakers.append(speaker)
        for key, column in self.values.items():
            column.append(values.get(key, math.nan))

    def column(self, key: str) -> Float[np.ndarray, " n"]:
        """A figure of every clip."""
        return np.array(self.values[key], dtype=np.float64)

    def of(self, stems: Sequence[str]) -> list[int]:
        """Where the clips of these stems are; ValueError if two have the same."""
        places: dict[str, int] = {}
        for index, clip in enumerate(self.clips):
            if places.setdefault(Path(clip).stem, index) != index:
                raise ValueError(
                    f"two clips are called {Path(clip).stem!r}: rename one to compare methods"
                )
        return [places[stem] for stem in stems]


Tables = Mapping[str, ClipTable]


def tables_of(rows: Mapping[str, Row]) -> dict[str, ClipTable]:
    """The clips of all rows, without figures that are not valid here."""
    tables = {}
    for name, row in rows.items():
        tables[name] = table = ClipTable()
        for clip, values in row.clip_values():
            table.add(clip.clip, clip.speaker, values)
    return tables


def single_figures(figures: Iterable[Figure], tables: Tables) -> list[Figure]:
    """The figures that any clip has a value of, in order."""
    given = {key for table in tables.values() for key in table.values}
    return [figure for figure in figures if figure.key in given]


def write_clips(path: Path, tables: Tables, figures: Iterable[Figure]) -> None:
    """One line per row and clip; figures that a clip has no value of are empty."""
    keys = [figure.key for figure in single_figures(figures, tables)]
    with publish(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIRST_COLUMNS, *keys])
        for name, table in tables.items():
            for index, (clip, speaker) in enumerate(zip(table.clips, table.speakers, strict=True)):
                cells = (table.values[key][index] if key in table.values else math.nan
                         for key in keys)  # fmt: skip
                writer.writerow([name, clip, speaker, *("" if math.isnan(c) else c for c in cells)])


def write_clips_table(path: Path, tables: Tables, figures: Iterable[Figure]) -> None:
    """The lines of `write_clips` as Parquet, null where a clip has no value; one line of the log
    instead if pyarrow is missing."""
    if not can_read_tables():
        log.info("%s is not written without pyarrow: %s", path.name, install("pyarrow"))
        return
    keys = [figure.key for figure in single_figures(figures, tables)]
    rows = []
    for name, table in tables.items():
        values = [table.values.get(key) or [math.nan] * len(table.clips) for key in keys]
        for clip, speaker, *cells in zip(table.clips, table.speakers, *values, strict=True):
            given = [None if math.isnan(cell) else cell for cell in cells]
            texts = zip(FIRST_COLUMNS, (name, clip, speaker), strict=True)
            rows.append({**dict(texts), **dict(zip(keys, given, strict=True))})
    write_table(rows, path, same_as=None)


def read_clips(path: Path) -> dict[str, ClipTable]:
    """The tables that `write_clips` wrote."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: against= is the out= of an earlier evaluation")
    tables: dict[str, ClipTable] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if not line.keys() >= set(FIRST_COLUMNS):
                raise ValueError(f"{path} has no columns {', '.join(FIRST_COLUMNS)}")
            row, clip, speaker = (line.pop(name) for name in FIRST_COLUMNS)
            values = {key: float(cell) for key, cell in line.items() if cell}
            tables.setdefault(row, ClipTable()).add(clip, speaker, values)
    return tables


def intervals(
    tables: Tables, figures: Iterable[Figure], *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The interval of every figure of every row, see `statistics.interval`."""
    averages = {each.key: each.average for each in figures if each.average is not None}
    return {
        name: {
            key: asdict(interval(table.column(key), table.speakers, average=average, seed=seed))
            for key, average in averages.items()
            if key in table.values
        }
        for name, table in tables.items()
    }


def by_condition(
    tables: Tables, figures: Iterable[Figure], conditions: Mapping[str, str]
) -> dict[str, dict[str, dict[str, float]]]:
    """The mean of every figure of every row over the clips of each condition, if there are any."""
    names = list(dict.fromkeys(filter(None, conditions.values())))
    keys = [figure.key for figure in single_figures(figures, tables)]
    result: dict[str, dict[str, dict[str, float]]] = {}
    for row, table in tables.items():
        for name in names:
            inside = np.array([conditions.get(clip) == name for clip in table.clips], dtype=bool)
            means: dict[str, float] = {"num_clips": int(inside.sum())}
            for key in (key for key in keys if key in table.values):
                given = table.column(key)[inside]
                given = given[~np.isnan(given)]
                if len(given):
                    means[key] = float(given.mean())
            result.setdefault(row, {})[name] = means
    return result


def differences(
    tables: Tables, others: Tables, figures: Iterable[Figure], *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Ours minus theirs of every figure and row that both have, over the clips that both have."""
    wanted = [figure.key for figure in figures if figure.average is not None]
    result = {}
    for name in (name for name in tables if name in others):
        ours, theirs = tables[name], others[name]
        stems = sorted({Path(clip).stem for clip in ours.clips}
                       & {Path(clip).stem for clip in theirs.clips})  # fmt: skip
        one, other = ours.of(stems), theirs.of(stems)
        speakers = [ours.speakers[index] for index in one]
        result[name] = {
            key: asdict(
                paired_difference(
                    ours.column(key)[one], theirs.column(key)[other], speakers, seed=seed
                )
            )
            for key in wanted
            if key in ours.values and key in theirs.values
        }
    if not any(any(each["num_clips"] for each in row.values()) for row in result.values()):
        raise ValueError("the two evaluations have no figure of any clip in common")
    return result
