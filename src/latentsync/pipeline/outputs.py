"""A run's output files: written to a folder next to `out` and published together, or not at all.

A killed run leaves that folder, from which the same command resumes: it holds the parts generated
so far, and a record of the files that had already been published.
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
    """The folder where finished parts of `out` wait to be joined; killed runs resume from it."""
    return out.with_name(f".{out.name}.parts")


def written_files(out: Path) -> tuple[Path, ...]:
    """All files a run writes; `out` is last, so if it exists, all of them do."""
    return report_path(out), sheet_path(out), page_path(out), out


def check_free(out: Path, *, overwrite: bool) -> None:
    """ValueError if a file that a run would write exists and was not published by a killed run for
    `out`."""
    ours = published_files(out)
    for path in written_files(out):
        if path.is_dir() or (path.exists() and not overwrite and path not in ours):
            raise ValueError(f"{path} exists; choose another out= or add overwrite=true")


def published_files(out: Path) -> set[Path]:
    """The files that a killed run had published and that have not been changed since."""
    noted = _read_note(parts_folder(out))
    return {
        path
        for path in written_files(out)
        if path.is_file() and noted.get(path.name) == _identity(path)
    }


def tidy(out: Path) -> None:
    """Remove remains of a killed run of `out` that cannot be resumed; ValueError if a run is
    active."""
    if parts_folder(out).is_dir():
        with Outputs(out, overwrite=True):
            pass


class Outputs:
    """The files of one run, which locks the folder next to `out` within the block.

    `path` is where a file is first written; `publish` moves all of them to their names. Entering
    raises ValueError if another run for this `out` is active, or if `out` exists.
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
        """Temporary path of the file to be published as `target`, one of `written_files`."""
        return self.folder / f"whole{target.suffix}"

    def settle(self, *, is_same: bool) -> bool:
        """Whether a killed run with the same settings has already published all of its files.

        If not, incompletely published files are removed, and complete ones are treated as foreign
        files.
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
        """Move all files to their names, `out` last."""
        check_free(self.out, overwrite=self.overwrite)
        note = {target.name: _identity(self.path(target)) for target in written_files(self.out)}
        with publish(self.folder / PUBLISHED) as partial:
            partial.write_text(json.dumps(note) + "\n", encoding="utf-8")
        for target in written_files(self.out):
            self.path(target).replace(target)

    def clear(self) -> None:
        """Remove the intermediate files of the published ones."""
        # The order matters: the settings are needed for as long as the record of published files
        # exists.
        remove_frames(self.folder)
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        remove_parts(self.folder)

    def _tidy(self) -> None:
        for target in written_files(self.out):
            self.path(target).unlink(missing_ok=True)
        # If a run is finished but for cleaning up, `settle` needs its settings.
        if self.out not in published_files(self.out):
            tidy_parts(self.folder)


def _identity(path: Path) -> list[int]:
    """Changes if the file is modified or replaced, but not if it is renamed."""
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _read_note(folder: Path) -> dict[str, list[int]]:
    try:
        return json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
