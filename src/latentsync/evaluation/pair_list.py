"""A list of pairs of a video and a voice to run methods on: a CSV with hashes of the files."""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.evaluation.setting import CROSS, RECONSTRUCTION
from latentsync.files import publish, sha256_of

LIST_NAME = "list.csv"
COLUMNS = ("name", "speaker", "condition", "setting", "video", "audio", "video_sha256",
           "audio_sha256")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """A video to be redrawn and the voice it shall speak with; the video is the reference too.

    `condition`: a group of pairs with figures of its own; empty for none.
    """

    name: str
    speaker: str
    condition: str
    setting: str
    video: Path
    audio: Path
    video_sha256: str
    audio_sha256: str

    def why_changed(self) -> str | None:
        """Why its files are not those that the list was made of, or None."""
        for path, wanted in ((self.video, self.video_sha256), (self.audio, self.audio_sha256)):
            if not path.is_file():
                return f"{path} does not exist"
            if sha256_of(path) != wanted:
                return f"{path} is not the file of the list: its SHA-256 does not begin {wanted:.8}"
        return None


def task_of(
    name: str, video: Path, audio: Path, *, speaker: str, setting: str, condition: str = ""
) -> Task:
    """A pair of files as they are now."""
    return Task(
        *(name, speaker, condition, setting, video, audio, sha256_of(video), sha256_of(audio))
    )


def write_list(path: Path, tasks: Iterable[Task]) -> None:
    """Write the list; paths inside its folder, and relative ones, are relative to it."""
    with publish(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for task in tasks:
            cells = (getattr(task, column) for column in COLUMNS)
            writer.writerow([_relative(cell, path.parent) for cell in cells])


def read_list(path: Path) -> list[Task]:
    """The pairs of a list; ValueError for a column or value that cannot be."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a list of pairs, a CSV")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}")
        tasks = [_task(row, path.parent) for row in reader]
    _check(tasks, path)
    return tasks


def _task(row: dict[str, str], folder: Path) -> Task:
    cells = {column: row[column] for column in COLUMNS}
    video, audio = (folder / cells.pop(name) for name in ("video", "audio"))
    return Task(video=video, audio=audio, **cells)


def _check(tasks: Sequence[Task], path: Path) -> None:
    if not tasks:
        raise ValueError(f"{path} lists no pair")
    names: set[str] = set()
    for task in tasks:
        if task.setting not in (RECONSTRUCTION, CROSS):
            raise ValueError(
                f"{path}: the setting of {task.name} is {task.setting!r}, and must be "
                f"{RECONSTRUCTION} or {CROSS}"
            )
        if not task.name or Path(task.name).name != task.name or task.name in names:
            raise ValueError(
                f"{path}: {task.name!r} is no name of its own: a name is unique and no path"
            )
        names.add(task.name)


def _relative(cell: object, folder: Path) -> object:
    if not isinstance(cell, Path):
        return cell
    if cell.is_relative_to(folder):
        return cell.relative_to(folder).as_posix()
    # `read_list` takes a relative path from the list's folder, not from the working folder.
    return cell if cell.is_absolute() else Path(os.path.relpath(cell, folder)).as_posix()
