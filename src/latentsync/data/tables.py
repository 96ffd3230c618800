"""Manifests as Parquet, which pandas, polars and DuckDB open, and rows of them for millions of
clips."""

import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from latentsync.data.rows import AnyRows, Row, Value
from latentsync.extras import install
from latentsync.files import publish

SUFFIX = ".parquet"
# In the file's metadata: size and checksum of the JSON lines that it holds too.
SAME_AS = b"latentsync.same_as"
# There if every features file has the name of its clip, as prepare.py writes them: then the column,
# which is the longest, need not be read.
FOLLOWS = b"latentsync.features_follow"
CLIP, FEATURES = "clip", "features"
ROWS_PER_GROUP = 65_536
BLOCK_BYTES = 1 << 20
UNIQUE = (CLIP, FEATURES)
KINDS = {
    **dict.fromkeys(("string", "large_string"), "text"),
    **dict.fromkeys(("double", "float", "int64", "int32"), "number"),
}


def can_read_tables() -> bool:
    """Whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def write_table(rows: Sequence[Mapping[str, Value]], path: Path, *, same_as: Path | None) -> None:
    """Write rows as Parquet; a column that has texts and numbers becomes texts.

    `same_as`: the JSON lines that hold the same rows, see `is_same_as`.
    """
    pa = _arrow("pyarrow")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    noted = {} if same_as is None else {SAME_AS: json.dumps(fingerprint(same_as)).encode()}
    if all(row.get(FEATURES) == features_of(str(row.get(CLIP))) for row in rows):
        noted[FOLLOWS] = b"yes"
    table = pa.table(columns).replace_schema_metadata(noted)
    with publish(path) as partial:
        _arrow("pyarrow.parquet").write_table(
            table, partial, row_group_size=ROWS_PER_GROUP, compression="zstd"
        )


def features_of(clip: str) -> str:
    """The features file of clips/NAME.mp4, relative to the same folder."""
    folder, _, name = clip.rpartition("clips/")
    return f"{folder}features/{name.rpartition('.')[0]}.safetensors"


def _column(values: Sequence[Value]) -> Any:
    pa = _arrow("pyarrow")
    if any(isinstance(value, str) for value in values):
        texts = [
            value if value is None or isinstance(value, str) else f"{value:g}" for value in values
        ]
        return pa.array(texts, pa.string())
    if all(value is None for value in values):
        return pa.array(values, pa.float64())
    return pa.array(values)


def fingerprint(path: Path) -> list[int]:
    """Size and checksum of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return [path.stat().st_size, checksum]


def noted_size(path: Path) -> int | None:
    """The size of the JSON lines that a table says it holds too."""
    noted = _noted(path)
    return noted[0] if noted else None


def is_same_as(path: Path, lines: Path) -> bool:
    """Whether a table was written with these JSON lines, and they have not changed since."""
    noted = _noted(path)
    return noted is not None and noted[0] == lines.stat().st_size and noted == fingerprint(lines)


def _noted(path: Path) -> list[int] | None:
    metadata = _metadata(_opened(path))
    return json.loads(metadata[SAME_AS]) if SAME_AS in metadata else None


class TableRows(AnyRows):
    """The rows of a Parquet file, or of some of its columns, as Arrow columns.

    A copy in another process reads the file itself.
    """

    def __init__(
        self,
        path: Path,
        *,
        names: Collection[str] | None = None,
        chosen: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        opened = _opened(path)
        there = opened.schema_arrow.names
        self.path = path
        self.names = [name for name in there if names is None or name in names]
        self.chosen = chosen
        self.length = opened.metadata.num_rows if chosen is None else len(chosen)

    def kinds(self) -> dict[str, str]:
        """Names of the columns without gaps, and whether they are of "text" or "number"."""
        opened = _opened(self.path)
        groups = [opened.metadata.row_group(index) for index in range(opened.num_row_groups)]
        return {
            name: kind
            for index, (name, kind) in enumerate(_kinds_of(opened).items())
            if kind and not any(each.column(index).statistics.null_count for each in groups)
        }

    @cached_property
    def columns(self) -> dict[str, Any]:
        opened = _opened(self.path)
        texts = {name for name, kind in _kinds_of(opened).items() if kind == "text"}
        read = partial(
            _arrow("pyarrow.parquet").read_table, self.path, memory_map=True, use_threads=False
        )
        columns = {}
        for name in self.names:
            if name == FEATURES and CLIP in self.names and FOLLOWS in _metadata(opened):
                continue
            # A path of a clip comes once, other texts come again. One column at a time: what
            # reading takes beyond the column is free for the next.
            again = [name] if name in texts and name not in UNIQUE else []
            columns[name] = read(columns=[name], read_dictionary=again).column(name)
        return columns

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Row:
        row = index if self.chosen is None else int(self.chosen[index])
        found = {name: column[row].as_py() for name, column in self.columns.items()}
        if FEATURES in self.names and FEATURES not in found:
            found[FEATURES] = features_of(str(found[CLIP]))
        return found

    def select(self, indices: Sequence[int] | np.ndarray) -> "TableRows":
        own = np.asarray(indices, dtype=np.int64)
        made = TableRows(
            self.path, names=self.names, chosen=own if self.chosen is None else self.chosen[own]
        )
        made.__dict__["columns"] = self.columns  # one copy for all
        return made

    def values(self, name: str) -> Iterator[Value]:
        if name == FEATURES and FEATURES in self.names and FEATURES not in self.columns:
            yield from (features_of(str(each)) for each in self.values(CLIP))
        elif name not in self.columns:
            yield from repeat(None, self.length)
        else:
            for part in self._parts(name):
                yield from part.to_pylist()

    def different(self, name: str) -> set[Value]:
        if name not in self.columns:
            return super().different(name)
        unique = _arrow("pyarrow.compute").unique
        return {each for part in self._parts(name) for each in unique(part).to_pylist()}

    def _parts(self, name: str) -> Iterator[Any]:
        """A column of the chosen rows, in parts."""
        column = self.columns[name]
        if self.chosen is None:
            yield from column.chunks
            return
        for start in range(0, self.length, ROWS_PER_GROUP):
            yield from column.take(self.chosen[start : start + ROWS_PER_GROUP]).chunks

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "columns"}


def _kinds_of(opened: Any) -> dict[str, str | None]:
    """The columns of a file, "text", "number" or None."""
    return {field.name: KINDS.get(str(field.type)) for field in opened.schema_arrow}


def _metadata(opened: Any) -> dict[bytes, bytes]:
    return opened.schema_arrow.metadata or {}


def _opened(path: Path) -> Any:
    try:
        return _arrow("pyarrow.parquet").ParquetFile(path, memory_map=True)
    except _arrow("pyarrow").ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


def _arrow(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"Parquet needs pyarrow: {install('pyarrow')}") from error
