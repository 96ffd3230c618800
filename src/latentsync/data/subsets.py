"""Manifests of clips chosen from other manifests: copied rows, with paths from their new place."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentsync.data.manifest import listed_rows, manifest_of, write_rows
from latentsync.files import publish

Row = dict[str, str | float | None]

PATHS = ("clip", "features")
COUNTS = ("num_frames", "start_frame", "resolution")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a row must have: `least` and `most` of columns, and columns `equal` to a text.

    A row without a column, or with None, was not measured: it is within its bounds, but equals
    nothing.
    """

    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    equal: Mapping[str, str] = field(default_factory=dict)

    def hold(self, row: Row) -> bool:
        low = (_number(row, name, bound) >= bound for name, bound in self.least.items())
        high = (_number(row, name, bound) <= bound for name, bound in self.most.items())
        same = (str(row.get(name)) == text for name, text in self.equal.items())
        return all(low) and all(high) and all(same)

    def check(self, rows: Sequence[Row]) -> None:
        """ValueError for a column that no row has."""
        for name in (*self.least, *self.most, *self.equal):
            if not any(name in row for row in rows):
                raise ValueError(f"no clip has the column {name}; there are {', '.join(rows[0])}")


def merge(manifests: Sequence[Path], output: Path) -> int:
    """A manifest of all clips of several, in their order; returns how many."""
    return write_subset([row for each in manifests for row in rows_of(each)], output)


def sample(manifest: Path, output: Path, *, count: int, seed: int) -> int:
    """A manifest of `count` clips, chosen by the seed, in the order of the manifest."""
    rows = list(rows_of(manifest))
    if not 1 <= count <= len(rows):
        raise ValueError(f"{count} of the {len(rows)} clips of {manifest}: give 1 to {len(rows)}")
    chosen = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    return write_subset([rows[index] for index in sorted(chosen.tolist())], output)


def filtered(manifest: Path, output: Path, bounds: Bounds) -> int:
    """A manifest of the clips within the bounds."""
    rows = list(rows_of(manifest))
    bounds.check(rows)
    return write_subset([row for row in rows if bounds.hold(row)], output)


def rows_of(manifest: Path) -> Iterator[Row]:
    """The rows of a manifest, with whole paths."""
    manifest = manifest_of(manifest)
    folder, rows = manifest.parent.resolve(), listed_rows(manifest)
    for index in range(len(rows)):
        row = rows[index]
        counts: Row = {name: int(float(str(row[name]))) for name in COUNTS}
        paths: Row = {name: str(folder / str(row[name])) for name in PATHS}
        yield row | counts | paths


def write_subset(rows: Sequence[Row], output: Path) -> int:
    """Write rows with whole paths as a manifest; an existing file is never overwritten."""
    if output.exists():
        raise ValueError(f"{output} exists: give a name that is free")
    if not rows:
        raise ValueError("no clip is left: nothing was written")
    folder, listed = output.parent.resolve(), set[str]()
    chosen = []
    for row in rows:
        path = os.path.normpath(str(row["clip"]))
        if path in listed:
            raise ValueError(f"{path} is listed twice: give each set once")
        listed.add(path)
        relative: Row = {
            name: Path(os.path.relpath(str(row[name]), folder)).as_posix() for name in PATHS
        }
        chosen.append(row | relative)
    with publish(output) as partial:
        write_rows(chosen, partial)
        listed_rows(partial)  # refuses clips of several resolutions and rates
    return len(rows)


def _number(row: Row, name: str, bound: float) -> float:
    """The number of a column; `bound`, which is within, if it was not measured."""
    value = row.get(name)
    if isinstance(value, str):
        raise ValueError(f"the column {name} holds texts ({value!r}): compare with --equal")
    return bound if value is None else value
