"""Manifests: one row per prepared clip, its paths relative to the manifest; lines of JSON, and
Parquet."""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from math import ceil
from pathlib import Path

from latentsync.data.clips import COLUMNS, SPLIT, Clip
from latentsync.data.remote import RemoteSet, is_remote
from latentsync.data.rows import AnyRows, Made, Row, Rows
from latentsync.data.shards import ShardedSet
from latentsync.data.tables import (
    SUFFIX,
    TableRows,
    can_read_tables,
    is_same_as,
    noted_size,
    write_table,
)
from latentsync.files import publish

MANIFEST_NAME = "manifest.jsonl"
TABLE_NAME = f"manifest{SUFFIX}"
DROPPED_NAME = "dropped.jsonl"
MAX_LOOKED_AT = 10_000  # clips whose files are looked for when a manifest is read
NEEDED = frozenset((*COLUMNS, SPLIT))  # columns that training reads
TEXTS = ("clip", "features", "source")
NUMBERS = ("num_frames", "start_frame", "resolution", "fps")

log = logging.getLogger(__name__)


def read_manifest(
    path: Path | str,
    *,
    cache_dir: Path | None = None,
    cache_gigabytes: float = 100,
    with_measures: bool = True,
    shards: bool = False,
) -> Sequence[Clip]:
    """The clips of a manifest, or of the data set folder that contains one.

    With the URL of an object store (s3://bucket/folder) clips are fetched when they are read, into
    `cache_dir`, see `RemoteSet`. Without measures a large manifest takes half the memory. With
    `shards` files are read from the archives of `prepare.py stage=shards`.
    """
    names = None if with_measures else NEEDED
    if is_remote(path):
        url = str(path).removesuffix(f"/{MANIFEST_NAME}").removesuffix(f"/{TABLE_NAME}")
        store = RemoteSet(url, cache_dir=cache_dir, max_bytes=round(cache_gigabytes * 1e9))
        rows = _remote_rows(store, names)
        if shards:
            return _in_shards(rows, ShardedSet(store.folder, remote=store))
        return Made(rows, partial(Clip.from_row, folder=store.folder, store=store))
    path = manifest_of(Path(path))
    if shards:
        return _in_shards(listed_rows(path, names=names), ShardedSet(path.parent))
    clips = listed_clips(path, names=names)
    # Evenly spread: `latentsync-data verify` looks at every file of a large set.
    looked_at = clips[:: ceil(len(clips) / MAX_LOOKED_AT)]
    listed = (each for clip in looked_at for each in (clip.path, clip.features_path))
    missing = [each for each in listed if not each.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} lists {missing[0]}, which does not exist"
            + (f" (nor do {len(missing) - 1} others)" if len(missing) > 1 else "")
            + "; bring it back or prepare this data set again"
        )
    return clips


def _in_shards(rows: AnyRows, store: ShardedSet) -> Sequence[Clip]:
    """The clips of the rows in archives; FileNotFoundError if one that is looked for is in none."""
    clips = Made(rows, partial(Clip.from_row, folder=store.folder, store=store))
    for clip in clips[:: ceil(len(clips) / MAX_LOOKED_AT)]:
        store.check(clip.path)
    return clips


def manifest_of(path: Path) -> Path:
    """The manifest itself, or that of the data set folder; FileNotFoundError without one.

    Of a folder it is the Parquet file, unless the lines of JSON have been changed since it was
    written, or pyarrow is not installed.
    """
    if path.is_dir():
        lines, table = path / MANIFEST_NAME, path / TABLE_NAME
        path = table if table.is_file() and _is_usable(table, lines) else lines
    if not path.is_file():
        raise FileNotFoundError(
            f"no manifest at {path}; make one with: python prepare.py input=... "
            f"output={path.parent}"
        )
    return path


def _is_usable(table: Path, lines: Path) -> bool:
    if not lines.is_file():
        return True
    if not can_read_tables():
        return False
    same = is_same_as(table, lines)
    if not same:
        log.warning("%s is older than %s, and not read", table, lines)
    return same


def listed_clips(manifest: Path, *, names: Collection[str] | None = None) -> Sequence[Clip]:
    """The clips of a manifest on this machine; their files need not be there. `names`: of the
    columns to read, None for all."""
    rows = listed_rows(manifest, names=names)
    return Made(rows, partial(Clip.from_row, folder=manifest.parent))


def listed_rows(manifest: Path, *, names: Collection[str] | None = None) -> AnyRows:
    """The rows of a manifest on this machine; ValueError for what is none."""
    if manifest.suffix == SUFFIX:
        return _checked_table(TableRows(manifest, names=names), str(manifest))
    with manifest.open(encoding="utf-8") as lines:
        return _checked(_read_lines(lines, str(manifest), names), str(manifest))


def _remote_rows(store: RemoteSet, names: Collection[str] | None) -> AnyRows:
    """The rows of a set in a store: Parquet if it has as many bytes of JSON as the table notes."""
    name = f"{store.url}/{MANIFEST_NAME}"
    size = store.size(MANIFEST_NAME)
    if can_read_tables() and store.size(TABLE_NAME) is not None:
        content = store.read_bytes(TABLE_NAME)
        # The name says what is in it, so the cache never holds another one.
        table = (
            store.folder / f"manifest-{sha1(content, usedforsecurity=False).hexdigest()}{SUFFIX}"
        )
        table.parent.mkdir(parents=True, exist_ok=True)
        with publish(table) as partial_path:
            partial_path.write_bytes(content)
        if size is None or noted_size(table) == size:
            return _checked_table(TableRows(table, names=names), f"{store.url}/{TABLE_NAME}")
    lines = store.read_bytes(MANIFEST_NAME).decode("utf-8").splitlines()
    return _checked(_read_lines(lines, name, names), name)


def _read_lines(lines: Iterable[str], name: str, names: Collection[str] | None) -> Rows:
    """The rows of lines of JSON in a manifest called `name`."""
    rows = Rows()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            _check_row(row)
            rows.append(row if names is None else {key: row[key] for key in row if key in names})
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name}, line {number} is not a clip ({error!r}): {line[:80]}"
            ) from error
    return rows


def _check_row(row: dict) -> None:
    """TypeError, KeyError or ValueError if it is no clip's."""
    for name in TEXTS:
        if not isinstance(row[name], str):
            raise TypeError(f"{name} is no text")
    for name in NUMBERS:
        float(row[name])


def _checked_table(rows: TableRows, name: str) -> AnyRows:
    kinds = rows.kinds()
    wrong = [each for each in TEXTS if kinds.get(each) != "text"]
    wrong += [each for each in NUMBERS if kinds.get(each) != "number"]
    if wrong:
        raise ValueError(
            f"{name} is no manifest: its column {wrong[0]} is missing, of another type, or has gaps"
        )
    return _checked(rows, name)


def _checked(rows: AnyRows, name: str) -> AnyRows:
    """The rows, all of the same resolution and rate; ValueError for others, and for none."""
    if not len(rows):
        raise ValueError(
            f"{name} lists no clip; {DROPPED_NAME} beside it says why each was dropped"
        )
    for value in ("resolution", "fps"):
        found = sorted({float(str(each)) for each in rows.different(value)})
        if len(found) > 1:
            shown = [
                int(each) if each.is_integer() and value == "resolution" else each for each in found
            ]
            raise ValueError(f"{name} mixes clips of {value} {shown}; prepare them all alike")
    return rows


def write_manifest(clips: Iterable[Clip], path: Path) -> None:
    """Write lines of JSON, or Parquet if the name ends so."""
    write_rows([clip.as_row(path.parent) for clip in clips], path)


def write_rows(rows: Sequence[Mapping], path: Path) -> None:
    """Write rows whose paths are relative to the manifest's folder."""
    if path.suffix == SUFFIX:
        write_table(rows, path, same_as=None)
        return
    with publish(path) as partial_path:
        partial_path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_both(clips: Sequence[Clip], folder: Path) -> None:
    """Write the manifest of a set as lines of JSON, and if possible as Parquet."""
    rows: list[Row] = [dict(clip.as_row(folder)) for clip in clips]
    write_rows(rows, folder / MANIFEST_NAME)
    if not can_read_tables():
        log.info("the manifest is not written as Parquet: pyarrow is not installed")
        return
    try:
        write_table(rows, folder / TABLE_NAME, same_as=folder / MANIFEST_NAME)
    except UnicodeEncodeError as error:
        log.warning("the manifest is not written as Parquet, a name in it is no Unicode: %s", error)
