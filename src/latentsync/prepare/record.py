"""Finished items, one line of JSON each, so that a killed run can resume."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from latentsync import files

RECORD_NAME = "record.jsonl"


REPLACES = "replaces"  # in a row: items that it takes the place of


class Record:
    """The parameters of a folder and a row per finished item, the last one added at the end;
    resuming reads only this."""

    def __init__(self, path: Path, rows: dict[str, dict]) -> None:
        self.path = path
        self.rows = rows

    @classmethod
    def open(
        cls, folder: Path, parameters: dict, *, of_today: Callable[[dict], dict] | None = None
    ) -> Self:
        """The record of a folder, new or existing; ValueError if its parameters are different.

        `of_today` converts parameters recorded by earlier versions to the current form.
        """
        path = folder / RECORD_NAME
        if not whole_lines(path):
            path.write_text("", encoding="utf-8")
            record = cls(path, {})
            record._append({"parameters": parameters})
            return record
        before, record = cls.existing(folder)
        check_same(of_today(before) if of_today else before, parameters, folder)
        return record

    @classmethod
    def existing(cls, folder: Path) -> tuple[dict, Self]:
        """The parameters of a folder as they were recorded last, and its record."""
        path = folder / RECORD_NAME
        lines = whole_lines(path)
        if not lines:
            raise FileNotFoundError(
                f"{folder} has no {RECORD_NAME}: give a folder that prepare.py made"
            )
        parameters: dict = {}
        rows: dict[str, dict] = {}
        for row in map(json.loads, lines):
            if "item" in row:
                for item in (row["item"], *row.get(REPLACES, ())):
                    rows.pop(item, None)
                rows[row["item"]] = row
            else:
                parameters = row["parameters"]
        return parameters, cls(path, rows)

    def add(self, item: str, row: dict, *, replaces: Sequence[str] = ()) -> None:
        """Record a finished item, in place of others; it is on disk when this returns."""
        for each in (item, *replaces):
            self.rows.pop(each, None)
        gone = {REPLACES: list(replaces)} if replaces else {}
        self.rows[item] = {"item": item, **row, **gone}
        self._append(self.rows[item])

    def change(self, parameters: dict, rows: Sequence[dict]) -> None:
        """Record other parameters, and rows that say what they outdate.

        The rows are first: if only some of them are on disk, the parameters are as before.
        """
        self.rows |= {row["item"]: row for row in rows}
        self._append(*rows, {"parameters": parameters})

    def _append(self, *rows: dict) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, default=str) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """The lines of a record; an incomplete last line of a killed run is removed from the file."""
    if not path.is_file():
        return []
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.decode("utf-8").splitlines()


def differences(before: Mapping, now: Mapping) -> list[str]:
    """Names of the parameters that are not the same."""
    # Through JSON, like those read: tuples become lists, paths strings.
    before, now = (json.loads(json.dumps(each, default=str)) for each in (before, now))
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def check_same(before: Mapping, now: Mapping, folder: Path, *, otherwise: str = "") -> None:
    """Raise ValueError listing all differences if the parameters of a folder changed; `otherwise`:
    what else can be done."""
    names = differences(before, now)
    if names:
        changes = "; ".join(
            f"{name} was {json.dumps(before.get(name), default=str)}, is now "
            f"{json.dumps(now.get(name), default=str)}"
            for name in names
        )
        raise ValueError(
            f"{folder} was made with other parameters ({changes}): "
            f"give the old ones to go on, {otherwise}or another output folder"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create and lock the folder until the block ends, and remove partial files of killed runs.

    Subfolders with a lock of their own are left alone.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder))
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is being written by another run: wait for it to end"
            ) from error
        for partial in folder.rglob(".*.partial*"):
            inside = partial.relative_to(folder).parents
            if not any((folder / parent / files.LOCK).exists() for parent in inside[:-1]):
                partial.unlink()
        yield
