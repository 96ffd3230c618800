"""Whole files only: what is written appears under its name when it is finished. And the cache."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import AcquireReturnProxy, FileLock, Timeout, lock_descriptor
from platformdirs import user_cache_path


def cache_root() -> Path:
    """The user's cache of this program."""
    return user_cache_path("latentsync", appauthor=False)


# A folder that takes names of this many bytes takes ours; all file systems in use take 143.
SHORT_NAME_BYTES = 64
LONGEST_SUFFIX_BYTES = 16  # what is longer tells no writer the kind of a file


def aside(path: Path) -> Path:
    """A name of its own beside `path`, with its suffix, that is no longer than it or short."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX_BYTES else ""
    ending = f".{os.getpid()}-{uuid4().hex[:8]}.partial{suffix}"
    room = max(len(os.fsencode(path.name)), SHORT_NAME_BYTES) - len(os.fsencode(ending)) - 1
    return path.with_name(f".{cut_name(path.stem, room)}{ending}")


def cut_name(name: str, num_bytes: int) -> str:
    """As much of its beginning as fits, no character halved."""
    while len(os.fsencode(name)) > max(num_bytes, 0):
        name = name[:-1]
    return name


def visible_files(folder: Path) -> list[Path]:
    """Every file under a folder, in the order of relative paths, but hidden ones and all that a
    hidden folder holds; a link counts as a file even if it leads nowhere.

    A linked folder is gone into like any other, unless it was met before: each is listed once.
    """
    files: list[Path] = []
    met: set[Path] = set()
    waiting = [folder]
    while waiting:
        # Folders before links to folders, which may lead to one of them.
        links = []
        for top in waiting:
            for path in _walked(top, met):
                if path.is_symlink() and path.is_dir():
                    links.append(path)
                elif not path.is_dir():
                    files.append(path)
        waiting = sorted(links)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _walked(top: Path, met: set[Path]) -> Iterator[Path]:
    """All that is not hidden under a folder that is not in `met`, which grows by those walked."""
    for place, folders, names in os.walk(top):
        real = Path(place).resolve()
        if real in met:
            folders.clear()
            continue
        met.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in (*folders, *names) if not name.startswith("."))


def printable(path: Path | str) -> str:
    """The path as text that any file and terminal takes: bytes that are no UTF-8 become \\xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file or folder to; it becomes `path` on success only.

    What a writer made readable to its owner only, as those of temporary files do, gets the rights
    of any new file.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: create it before writing {path}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} is not writable: choose another place for {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder already: choose another name or remove it")
    partial = aside(path)
    try:
        yield partial
        _open_to_others(partial)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


LOCK = ".lock"
# One that only looks whether a folder is held lets go of it at once.
LOCK_TRIES, LOCK_SECONDS = 5, 0.2


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it until the block ends, then remove it if nothing else is in it.

    BlockingIOError if another process holds it; one that is killed lets go of it.
    """
    with _lock_of(folder):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                # Another process may wait in it already.
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file or folder that is there, and change nothing about it, until the block ends.

    BlockingIOError if another process holds it and we do not wait; one that is killed lets go.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        if not lock_descriptor(handle, blocking=wait):
            raise BlockingIOError(f"{path} is in use by another run")
        yield
    finally:
        os.close(handle)


def _lock_of(folder: Path) -> AcquireReturnProxy:
    """The lock file of a folder, held: by the kernel, as a file that is only there would outlive
    whoever was killed."""
    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS, thread_local=False, fallback_to_soft=False)
    for _ in range(LOCK_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return lock.acquire()
        except FileNotFoundError:  # its last owner removed the folder just now
            continue
        except Timeout:
            break
    raise BlockingIOError(f"{folder} is in use by another run")


def _open_to_others(written: Path) -> None:
    """Give private files, of a folder all in it, the rights that the umask leaves to new ones."""
    files = [path for path in (written, *written.rglob("*")) if path.is_file()]
    private = [path for path in files if stat.S_IMODE(path.stat().st_mode) == 0o600]
    if not private:
        return
    # The umask cannot be read without changing it for every thread; a new file tells it.
    probe = aside(written)
    probe.touch(exist_ok=False)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in private:
        path.chmod(mode)
