"""Run a list of jobs (CSV) with one loaded model, row by row; the list can be run again.

The status of every row is in `<list>.status.csv` next to the list, rewritten whenever a row begins
or ends. On another run, rows that are done and whose inputs are unchanged are skipped; all others
are run.
"""

import csv
import hashlib
import io
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

from latentsync.files import held, printable, publish
from latentsync.pipeline.cache import content_hash
from latentsync.pipeline.reporting.report import Report
from latentsync.runtime import forget_peak_memory

log = logging.getLogger(__name__)

NEEDED = ("video", "audio", "out")
QUOTED = "\ue000"  # a private-use character, which does not occur in names
DELIMITERS = ",;\t"  # the delimiter of exported tables depends on the locale

Status = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Row:
    """One job of a list. `options`: its other columns as written, without empty cells.

    `overwrite`: a file at `out` may be replaced, because an earlier run of this list wrote it.
    """

    line: int
    video: Path
    audio: Path
    out: Path
    options: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class RowStatus:
    """Status of a row. `key`: a hash of its inputs and options, "" until the row is started.

    `made`: "yes" if the file at `out` was written by this list.
    """

    line: int
    out: str
    status: Status = "waiting"
    seconds: float = 0.0
    message: str = ""
    made: str = ""
    key: str = ""


def run_jobs(
    list_path: Path,
    lipsync_one: Callable[[Row], Report],
    *,
    settings: str = "",
    overwrite: bool = False,
) -> list[RowStatus]:
    """Run every row that is not done yet; a row that fails does not stop the others.

    `settings`: everything that rows have in common; if it changes, all rows are run again.
    `overwrite`: also replace files not written by this list. ValueError or OSError if the list is
    unusable.
    """
    with _only_run(list_path):
        rows = read_rows(list_path)
        table = _Table(status_path(list_path), rows)
        for place, row in enumerate(rows):
            log.info("[%d/%d] %s", place + 1, len(rows), row.out)
            _settle(row, place, table, lipsync_one, settings=settings, overwrite=overwrite)
    counts = Counter(state.status for state in table.states)
    log.info("%d done, %d failed: see %s", counts["done"], counts["failed"], table.path)
    return table.states


def status_path(list_path: Path) -> Path:
    """Path of the status file of a list."""
    return list_path.with_suffix(".status.csv")


def read_rows(list_path: Path) -> list[Row]:
    """The rows of a list; relative paths are relative to the list's folder.

    Spaces around a cell are ignored, unless they are inside its quotes.
    """
    with _opened(list_path) as file:
        text = file.read()
    delimiter = _delimiter(text.split("\n", maxsplit=1)[0])
    marked = io.StringIO(_mark_quoted(text, delimiter), newline="")
    reader = csv.reader(marked, delimiter=delimiter, strict=True)
    try:
        header = [_cell(name) for name in next(reader, [])]
        _check_header(header, list_path)
        cells = [(reader.line_num, [_cell(cell) for cell in row]) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{list_path}, line {reader.line_num}: {error}") from error
    rows = [_row(header, line, row, list_path) for line, row in cells if any(row)]
    if not rows:
        raise ValueError(f"{list_path} has no rows: write one below its header for each job")
    _check_outs(rows, list_path)
    return rows


@contextmanager
def _opened(path: Path) -> Iterator:
    """Open a text file; spreadsheet programs write a byte order mark first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as CSV (UTF-8)") from error


def _mark_quoted(text: str, delimiter: str) -> str:
    """The text with QUOTED inside the quotes of every quoted cell, and no space before the
    quotes."""
    cell = rf'(^|[{delimiter}\n])[ \t]*"((?:[^"]|"")*)"'
    return re.sub(cell, rf'\1"{QUOTED}\2{QUOTED}"', text)


def _cell(text: str) -> str:
    return text.strip().replace(QUOTED, "")


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=header.count)


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise ValueError(
            f"{path}: the first line must name the columns, {', '.join(missing)} is missing; "
            f"it names {', '.join(header) or 'nothing'}"
        )
    twice = [name for name, count in Counter(header).items() if count > 1 or not name]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} must stand there once, with a name")


def _row(header: Sequence[str], line: int, cells: Sequence[str], path: Path) -> Row:
    if len(cells) != len(header):
        raise ValueError(
            f"{path}, line {line}: {len(cells)} cells for {len(header)} columns; "
            'put a cell with a delimiter in it in "quotes"'
        )
    named = dict(zip(header, cells, strict=True))
    empty = [name for name in NEEDED if not named[name]]
    if empty:
        raise ValueError(f"{path}, line {line}: {', '.join(empty)} is empty")
    video, audio, out = (path.parent / named.pop(name) for name in NEEDED)
    return Row(line, video, audio, out, {name: cell for name, cell in named.items() if cell})


def _check_outs(rows: Sequence[Row], path: Path) -> None:
    lines: dict[Path, int] = {}
    for row in rows:
        first = lines.setdefault(row.out.resolve(), row.line)
        if first != row.line:
            raise ValueError(f"{path}: lines {first} and {row.line} both write {row.out}")


def _settle(
    row: Row,
    place: int,
    table: "_Table",
    lipsync_one: Callable[[Row], Report],
    *,
    settings: str,
    overwrite: bool,
) -> None:
    """Run the row unless it is done, and record the result."""
    former, started = table.states[place], time.perf_counter()

    def ended(status: Status, message: str, **also: str) -> None:
        seconds = round(time.perf_counter() - started, 2)
        table.change(place, status=status, message=message, seconds=seconds, **also)

    try:
        key = row_key(row, settings)
        if former.status == "done" and former.key == key and row.out.is_file():
            log.info("done already")
            return
        if row.out.exists() and not (former.made or overwrite):
            raise ValueError(f"{row.out} exists; choose another out or add overwrite=true")
        # Recorded first: if the run is killed, its output must not be mistaken for a foreign file.
        table.change(place, status="running", message="", seconds=0.0, made="yes", key=key)
        forget_peak_memory()
        report = lipsync_one(replace(row, overwrite=bool(former.made) or overwrite))
        ended("done", f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced")
    except Exception as error:  # no failure may stop the other rows
        expected = isinstance(error, ValueError | OSError)
        text = " ".join(str(error).split())
        message = text if expected and text else f"{type(error).__name__}: {text}"
        log.error("line %d failed: %s", row.line, message, exc_info=not expected)
        ended("failed", message, made=table.states[place].made and _there(row))
    except BaseException:
        ended("stopped", "stopped from outside", made=table.states[place].made and _there(row))
        raise


def _there(row: Row) -> str:
    return "yes" if row.out.exists() else ""


def row_key(row: Row, settings: str) -> str:
    """A hash of everything the row's result depends on: contents of its files, options,
    settings."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (row.video, row.audio):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
        digest.update(content_hash(path).encode())
    digest.update(json.dumps([sorted(row.options.items()), settings]).encode())
    return digest.hexdigest()


class _Table:
    """The status of all rows, in memory and, after every change, in the status file."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self.path = path
        former = {state.out: state for state in _read_states(path)} if path.exists() else {}
        self.states = []
        for row in rows:
            out = printable(row.out)
            known = former.get(out, RowStatus(row.line, out))
            self.states.append(replace(known, line=row.line))
        self._write()

    def change(self, place: int, **changes: str | float) -> None:
        self.states[place] = replace(self.states[place], **changes)  # type: ignore[arg-type]
        self._write()

    def _write(self) -> None:
        names = [column.name for column in fields(RowStatus)]
        with (
            publish(self.path) as partial,
            # Messages may contain names that are not valid UTF-8; their bytes are escaped.
            partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(asdict(state) for state in self.states)


def _read_states(path: Path) -> list[RowStatus]:
    try:
        with _opened(path) as file:
            return [_state(row) for row in csv.DictReader(file, strict=True)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a status that this program wrote ({error}): remove it, then all rows "
            "are done again"
        ) from error


def _state(row: dict[str, str]) -> RowStatus:
    if row["status"] not in get_args(Status):
        raise ValueError(f"status {row['status']!r}")
    numbers = {"line": int(row["line"]), "seconds": float(row["seconds"])}
    return RowStatus(**{**row, **numbers})  # type: ignore[arg-type]


@contextmanager
def _only_run(list_path: Path) -> Iterator[None]:
    """Lock the list, so that no second run works on it; the lock of a killed run is released."""
    if not list_path.is_file():
        raise FileNotFoundError(f"jobs={list_path} is not a file")
    with ExitStack() as stack:
        try:
            stack.enter_context(held(list_path))
        except BlockingIOError as error:
            raise ValueError(f"{list_path}: another run is working on this list") from error
        yield
