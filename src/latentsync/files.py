"""Atomic writes: files and folders appear under their name once complete. Locks, the cache."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from filelock import AcquireReturnProxy, FileLock, Timeout, lock_descriptor
from platformdirs import user_cache_path


def cache_root() -> Path:
    """The user's cache folder of this program."""
    return user_cache_path("latentsync", appauthor=False)


@dataclass(frozen=True, slots=True)
class FilePart:
    """Consecutive bytes of a file, as a file of its own: a member of an archive."""

    path: Path
    offset: int
    size: int
    packets: "FilePart | None" = field(default=None, compare=False)
    """Of a video: where its packets are listed (`latentsync.media.packets`)."""

    def __hash__(self) -> int:
        # Hashed several times for every item; parts of different archives seldom begin alike.
        return self.offset

    def __str__(self) -> str:
        return f"{self.path} from byte {self.offset}"

    def ffmpeg_name(self) -> str:
        """The name by which FFmpeg reads only this part."""
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:file:{self.path}"


# Temporary names stay within this length or that of the target; all file systems in use allow 143.
SHORT_NAME_BYTES = 64
LONGEST_SUFFIX_BYTES = 16  # anything longer does not show a writer the file's format


def aside(path: Path) -> Path:
    """A unique name next to `path`, with its suffix; short or no longer than the original."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX_BYTES else ""
    ending = f".{os.getpid()}-{uuid4().hex[:8]}.partial{suffix}"
    room = max(len(os.fsencode(path.name)), SHORT_NAME_BYTES) - len(os.fsencode(ending)) - 1
    return path.with_name(f".{cut_name(path.stem, room)}{ending}")


def cut_name(name: str, num_bytes: int) -> str:
    """The longest prefix that fits into `num_bytes`, without splitting a character."""
    while len(os.fsencode(name)) > max(num_bytes, 0):
        name = name[:-1]
    return name


def visible_files(folder: Path) -> list[Path]:
    """All files under a folder sorted by relative path, without hidden files and folders.

    Links count as files even if broken. Linked folders are followed, but each folder is listed
    once.
    """
    files: list[Path] = []
    met: set[Path] = set()
    waiting = [folder]
    while waiting:
        # Real folders before links to folders, which may point to one of them.
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
    """All visible entries under a folder, except in folders listed in `met`, which is updated."""
    for place, folders, names in os.walk(top):
        real = Path(place).resolve()
        if real in met:
            folders.clear()
            continue
        met.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in (*folders, *names) if not name.startswith("."))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(path: Path | str) -> str:
    """The path as valid text for any file and terminal: bytes that are not UTF-8 become \\xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yields a temporary path for a file or folder, which is renamed to `path` on success only.

    Files readable by their owner only, like those made with tempfile, get normal permissions.
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
# Retries, as a process that only checks a lock releases it at once.
LOCK_TRIES, LOCK_SECONDS = 5, 0.2


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and lock it until the block ends, then remove it if it is empty.

    BlockingIOError if another process holds it; a killed process releases it.
    """
    with _lock_of(folder):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                # Another process may already be waiting for it.
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock an existing file or folder, without changing it, until the block ends.

    BlockingIOError if another process holds it and not `wait`; a killed process releases it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        if not lock_descriptor(handle, blocking=wait):
            raise BlockingIOError(f"{path} is in use by another run")
        yield
    finally:
        os.close(handle)


def _lock_of(folder: Path) -> AcquireReturnProxy:
    """The acquired lock of a folder: a kernel lock, since a file would outlive a killed process."""
    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS, thread_local=False, fallback_to_soft=False)
    for _ in range(LOCK_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return lock.acquire()
        except FileNotFoundError:  # its last owner has just removed the folder
            continue
        except Timeout:
            break
    raise BlockingIOError(f"{folder} is in use by another run")


def _open_to_others(written: Path) -> None:
    """Give private files (all files, of a folder) the default permissions of the umask."""
    files = [path for path in (written, *written.rglob("*")) if path.is_file()]
    private = [path for path in files if stat.S_IMODE(path.stat().st_mode) == 0o600]
    if not private:
        return
    # The umask cannot be read without changing it for all threads; a new file reveals it.
    probe = aside(written)
    probe.touch(exist_ok=False)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in private:
        path.chmod(mode)
