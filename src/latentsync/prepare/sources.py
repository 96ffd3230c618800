"""Which raw files are prepared: a folder of them, or a list."""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from latentsync.data.clips import SPLIT, TRAIN, VAL
from latentsync.files import visible_files
from latentsync.prepare.remote_sources import RemoteSource, list_url
from latentsync.prepare.split import SPEAKER, TEST
from latentsync.prepare.stage import Listed, Source

PATH, START, END = "path", "start", "end"
LABELS = (SPEAKER, SPLIT)
COLUMNS = (PATH, START, END, *LABELS)
SPLITS = (TRAIN, VAL, TEST)


def find_sources(given: Path | str, output_dir: Path) -> list[Source]:
    """Every file under a folder except hidden ones, sorted by relative path; or what a list names.

    A list is a text file, *.txt with a path per line, or *.csv with a column `path` and any of
    `start`, `end`, `speaker`, `split`. Videos are recognised by content, not by name. A URL is that
    of a folder in a store.
    """
    if isinstance(given, str):
        return [
            RemoteSource(Path(url), name, key_of(name), output_dir, None, url, version)
            for name, url, version in list_url(given, output_dir)
        ]
    if given.is_file():
        return listed_sources(given, output_dir)
    if not given.is_dir():
        raise FileNotFoundError(f"{given} is no folder: input= is a folder of videos, or a list")
    if output_dir == given or output_dir.is_relative_to(given):
        raise ValueError(f"output {output_dir} lies in the input {given}: raw files stay as is")
    paths = visible_files(given)
    check_outside(paths, output_dir)
    names = [path.relative_to(given).as_posix() for path in paths]
    if not names:
        raise FileNotFoundError(f"{given} holds no file: input= is a folder of videos")
    return [Source(given / name, name, key_of(name), output_dir) for name in names]


def listed_sources(listing: Path, output_dir: Path) -> list[Source]:
    """What a list names, sorted by name; relative paths are relative to the list's folder.

    ValueError for a row that is no recording, or is there twice, and for a recording or speaker of
    two splits. Files need not exist: each that does not is listed as dropped.
    """
    rows = list(_rows_of(listing))
    if not rows:
        raise ValueError(f"{listing} lists no recording")
    sources: dict[str, Source] = {}
    for number, row in rows:
        try:
            source = _source(row, listing.parent, output_dir)
        except ValueError as error:
            raise ValueError(f"{listing}, line {number}: {error}") from error
        if source.name in sources:
            raise ValueError(f"{listing}, line {number}: {source.name} is listed twice")
        sources[source.name] = source
    check_outside((source.path for source in sources.values()), output_dir)
    _check_splits(listing, list(sources.values()))
    return [sources[name] for name in sorted(sources)]


def _rows_of(listing: Path) -> Iterator[tuple[int, Mapping[str | None, str | None]]]:
    """The rows of a list, with the numbers of their lines."""
    if listing.suffix.lower() not in (".txt", ".csv"):
        raise ValueError(
            f"{listing} is neither a folder of videos nor a list of them (*.txt, *.csv)"
        )
    with listing.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if listing.suffix.lower() == ".txt":
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith("#"):
                    yield number, {PATH: line.strip()}
            return
        table = csv.DictReader(file, strict=True)
        names = table.fieldnames or []
        if PATH not in names or not set(names) <= {*COLUMNS}:
            raise ValueError(
                f"{listing} has the columns {', '.join(map(str, names)) or 'none'}: its first line "
                f"must name path, and may name {', '.join(COLUMNS[1:])}"
            )
        try:
            yield from ((table.line_num, row) for row in table)
        except csv.Error as error:
            raise ValueError(f"{listing}, line {table.line_num}: {error}") from error


def _source(row: Mapping[str | None, str | None], folder: Path, output_dir: Path) -> Source:
    if None in row or None in row.values():
        raise ValueError("it has not as many values as the first line has columns")
    path = Path(os.path.normpath(folder / _text(row, PATH)))
    start = seconds_of(_text(row, START) or "0")
    end = seconds_of(_text(row, END)) if _text(row, END) else None
    if end is not None and end <= start:
        raise ValueError(f"the part ends at {end:g} s and begins at {start:g} s")
    labels = {name: _text(row, name) for name in LABELS if _text(row, name)}
    if labels.get(SPLIT, TRAIN) not in SPLITS:
        raise ValueError(f"the split {labels[SPLIT]!r} is none of {', '.join(SPLITS)}")
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    if start or end is not None:
        name += f" [{start:g}-{'' if end is None else format(end, 'g')}]"
    return Source(path, name, key_of(name), output_dir, Listed(start, end, labels))


def _text(row: Mapping[str | None, str | None], name: str) -> str:
    text = (row.get(name) or "").strip()
    if name == PATH and not text:
        raise ValueError("it names no path")
    return text


def seconds_of(text: str) -> float:
    """Seconds of "83.5", "1:23.5" or "0:01:23.5"; ValueError for anything else."""
    if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d*)?", text):
        raise ValueError(f"{text!r} is no time: give seconds, or [hours:]minutes:seconds")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _check_splits(listing: Path, sources: Sequence[Source]) -> None:
    """ValueError for a recording or a speaker that is listed for two splits."""
    splits: dict[tuple[str, str], str] = {}
    for source in sources:
        assert source.listed is not None
        labels = source.listed.labels
        groups = [("recording", str(source.path))]
        if SPEAKER in labels:
            groups.append((SPEAKER, labels[SPEAKER]))
        for kind, name in groups:
            split = labels.get(SPLIT, "no split")
            before = splits.setdefault((kind, name), split)
            if before != split:
                raise ValueError(
                    f"{listing} lists the {kind} {name} for {before} and for {split}: a {kind} "
                    "belongs to one split"
                )


def check_outside(paths: Iterable[Path], output_dir: Path) -> None:
    """ValueError for a path that leads into the output."""
    for path in paths:
        if real_path(path).is_relative_to(output_dir):
            raise ValueError(
                f"{path} leads into the output {output_dir}: input= holds raw files only"
            )


def real_path(path: Path) -> Path:
    """Where a path leads; itself if it is a link that leads in a circle."""
    try:
        return path.resolve()
    except RuntimeError:  # Python 3.11 and 3.12 on a loop of links
        return path


def key_of(name: str) -> str:
    """A file name for a relative path: readable, and unique across folders."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:48]
    return f"{readable}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def recording_of(version: str) -> str:
    """The name of the recording that a `version` is of."""
    return version.rsplit(" ", 2)[0]


def version(source: Source) -> str:
    """Identifies the current version of a raw file: a changed file is prepared again."""
    if isinstance(source, RemoteSource):
        return f"{source.name} {source.version}"
    try:
        status = source.path.lstat()
    except FileNotFoundError:  # vanished since the folder was listed
        return f"{source.name} 0 0"
    return f"{source.name} {status.st_size} {status.st_mtime_ns}"
