"""Where a run's files go: they wait in a folder beside `out` and appear together, or not at all.

A run that is killed at any moment leaves that folder, and the same command goes on from it: the
parts drawn so far, and a note of which files the killed run has put in their places.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from latentsync.files import locked, publish
from latentsync.media.segments import remove_frames, remove_parts, tidy_parts

PUBLISHED = "published.json"


def report_path(out: Path) -> Path:
    return out.with_suffix(".report.json")


def sheet_path(out: Path) -> Path:
    return out.with_suffix(".report.png")


def page_path(out: Path) -> Path:
    return out.with_suffix(".report.html")


def parts_folder(out: Path) -> Path:
    """Where finished parts of `out` wait to be joined; a killed run goes on from there."""
    return out.with_name(f".{out.name}.parts")


def written_files(out: Path) -> tuple[Path, ...]:
    """All that a run writes; `out` itself comes last, so that where it is, all are."""
    return report_path(out), sheet_path(out), page_path(out), out


def check_free(out: Path, *, overwrite: bool) -> None:
    """ValueError if something stands where a run would write that is not a killed run's of it."""
    ours = published_files(out)
    for path in written_files(out):
        if path.is_dir() or (path.exists() and not overwrite and path not in ours):
            raise ValueError(f"{path} exists; choose another out= or add overwrite=true")


def published_files(out: Path) -> set[Path]:
    """The files that a run put in their places before it was killed, if nobody changed them."""
    noted = _read_note(parts_folder(out))
    return {
        path
        for path in written_files(out)
        if path.is_file() and noted.get(path.name) == _identity(path)
    }


def tidy(out: Path) -> None:
    """Remove what a killed run of `out` left that none can go on from; ValueError if one runs."""
    if parts_folder(out).is_dir():
        with Outputs(out, overwrite=True):
            pass


class Outputs:
    """The files of one run, which holds the folder beside `out` while the block lasts.

    `path` says where each is written first; `publish` gives all of them their names. ValueError on
    entering if another run of this `out` is at work, or if `out` is not free.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        self.out, self.overwrite = out, overwrite
        self.folder = parts_folder(out)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder))
            except BlockingIOError as error:
                raise ValueError(
                    f"{self.out} is being written by another run: wait for it to end, or choose "
                    "another out="
                ) from error
            stack.callback(self._tidy)
            self._tidy()
            check_free(self.out, overwrite=self.overwrite)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def path(self, target: Path) -> Path:
        """Where the file waits that will be `target`, one of `written_files`."""
        return self.folder / f"whole{target.suffix}"

    def settle(self, *, is_same: bool) -> bool:
        """Whether a killed run had published all of its files, and was the same as this one.

        If not, what it had published goes, or is what anything else is that stands there.
        """
        ours = published_files(self.out)
        if self.out in ours and is_same:
            return True
        if self.out not in ours:
            for path in ours:
                path.unlink()
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        check_free(self.out, overwrite=self.overwrite)
        return False

    def publish(self) -> None:
        """Put all files in their places, `out` last."""
        check_free(self.out, overwrite=self.overwrite)
        note = {target.name: _identity(self.path(target)) for target in written_files(self.out)}
        with publish(self.folder / PUBLISHED) as partial:
            partial.write_text(json.dumps(note) + "\n", encoding="utf-8")
        for target in written_files(self.out):
            self.path(target).replace(target)

    def clear(self) -> None:
        """Remove what the published files were made of."""
        # In this order: while the note is there, so is what says whose the published files are.
        remove_frames(self.folder)
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        remove_parts(self.folder)

    def _tidy(self) -> None:
        for target in written_files(self.out):
            self.path(target).unlink(missing_ok=True)
        # Of a run that is finished but for its cleaning up, the settings are needed by `settle`.
        if self.out not in published_files(self.out):
            tidy_parts(self.folder)


def _identity(path: Path) -> list[int]:
    """What stays when a file gets another name, and only then."""
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _read_note(folder: Path) -> dict[str, list[int]]:
    try:
        return json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
