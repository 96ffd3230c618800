"""A prepared data set in an object store, with an LRU cache of its files on the local disk."""

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from latentsync.extras import install
from latentsync.files import cache_root, printable, publish

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SEPARATOR = "://"
TRIES = 3
# A disk that cannot take a file is no fault of the store, nor of the file.
OWN_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# A process checks the cache after fetching the first fraction of its limit, and then deletes down
# to the limit less the second one, because other processes also fetch between its checks.
LOOK_SHARE, SPARE_SHARE = 0.005, 0.05
# Cloud stores, opened by obstore; others are opened by fsspec, possibly with another package.
CLOUDS = frozenset(("s3", "s3a", "gs", "az", "adl", "abfs", "abfss"))


class StoreUnreachable(Exception):
    """An object store does not respond; not an OSError, which would count as a single bad clip."""


def is_remote(path: Path | str) -> bool:
    """Whether it is the URL of a store (s3://bucket/folder) instead of a path."""
    return SEPARATOR in str(path)


@dataclass(frozen=True, slots=True)
class StoreCache:
    """Folder for fetched files (None: in the user's cache) and its size limit; the least recently
    used files are deleted."""

    folder: Path | str | None = None
    gigabytes: float = 100


class RemoteSet:
    """A data set folder at `url`, cached in a local folder.

    Cloud stores (s3://, gs://, az://; keys and endpoint from their usual environment variables) are
    opened with obstore, all others, such as hf://datasets/owner/name, with fsspec. Processes share
    the files in `cache_dir` (None: the user's cache); the least recently used are deleted above
    `max_bytes`. Every process opens its own connection.
    """

    def __init__(self, url: str, *, cache_dir: Path | None = None, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise ValueError(f"a cache must hold something, got {max_bytes} bytes")
        self.url = url.rstrip("/")
        name = sha1(self.url.encode(), usedforsecurity=False).hexdigest()[:16]
        self.folder = (cache_dir or cache_root() / "data") / name
        self.max_bytes = max_bytes
        self._fetched = 0
        self._pid = os.getpid()

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""
        try:
            return int(self._fs.info(self._address(name))["size"])
        except FileNotFoundError:
            return None
        except refusals() as error:
            raise StoreUnreachable(f"{self.url} does not answer: {brief(error)}") from error

    def read_bytes(self, name: str) -> bytes:
        """Contents of a file, never from the cache."""
        try:
            return self._fs.cat_file(self._address(name))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.url} has no {name}: check the address") from error
        except refusals() as error:
            raise StoreUnreachable(f"{self.url} does not answer: {brief(error)}") from error

    def names(self, folder: str) -> set[str]:
        """Names of the files in one of its folders."""
        try:
            return {Path(each).name for each in self._fs.ls(self._address(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def folders(self, parent: str) -> list[str]:
        """Names of the folders in one of its folders."""
        return sorted(self.names(parent))

    def place(self, path: Path) -> Path:
        """A file of the local folder, fetched unless it is cached."""
        self.bring(path)
        return path

    def bring(self, path: Path) -> None:
        """Fetch a file of the local folder unless it is cached; FileNotFoundError if the store
        lacks it."""
        with suppress(FileNotFoundError):  # not fetched yet, or just deleted by another process
            with suppress(PermissionError):  # the cache belongs to another user
                os.utime(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        address = self._address(path.relative_to(self.folder).as_posix())
        with publish(path) as partial:
            self._fetch(address, partial)
        self._fetched += path.stat().st_size
        if self._fetched > LOOK_SHARE * self.max_bytes:
            self._fetched = 0
            self._make_room()

    def _fetch(self, address: str, partial: Path) -> None:
        try:
            ask(
                lambda: self._fs.get_file(address, str(partial)),
                f"{address} could not be fetched",
                advice="go on with ckpt_path=last",
            )
        except FileNotFoundError:
            raise
        except OSError as error:  # of this disk, for every file
            raise StoreUnreachable(
                f"{self.folder} cannot take {address} ({brief(error)}): make room, or choose "
                "another folder or a smaller limit for the cache"
            ) from error

    def _make_room(self) -> None:
        """Delete the least recently used files, with some margin for new ones."""
        kept = []
        for path in self.folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has deleted it
                continue
            if path.is_file() and ".partial" not in path.name:
                kept.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in kept) - (1 - SPARE_SHARE) * self.max_bytes
        for used_ns, size, path in sorted(kept):
            if excess <= 0:
                return
            with suppress(FileNotFoundError):
                if path.stat().st_mtime_ns == used_ns:  # unless another process is reading it now
                    path.unlink()
                    excess -= size

    def _address(self, name: str) -> str:
        return f"{self.url}/{name}"

    @property
    def _fs(self) -> "AbstractFileSystem":
        if self._pid != os.getpid():
            # Connections do not survive a fork.
            self.__dict__.pop("_opened", None)
            self._pid = os.getpid()
        return self._opened

    @cached_property
    def _opened(self) -> "AbstractFileSystem":
        return open_store(self.url)[0]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


def open_store(url: str) -> tuple["AbstractFileSystem", str]:
    """The file system of a URL, and the path in it.

    ValueError naming the package that it needs, or if there is no such protocol.
    """
    protocol = url.split(SEPARATOR, maxsplit=1)[0]
    if protocol in CLOUDS:
        with suppress(ModuleNotFoundError):
            return import_module("obstore.fsspec").FsspecStore(protocol), url
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except ImportError as error:
        needed = (
            f"needs obstore: {install('obstore')}" if protocol in CLOUDS else "cannot be opened"
        )
        raise ValueError(f"{url} {needed} ({error})") from error
    except ValueError as error:
        raise ValueError(f"{url} cannot be opened: {error}") from error


def ask(
    act: Callable[[], Answer],
    trouble: str,
    *,
    advice: str,
    passed: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> Answer:
    """What a store answers, asked a few times if it refuses.

    `trouble` begins the message, `advice` is what to do when the store answers again. Errors that
    are `passed`, and those of the local disk (no room, read-only), are raised as they are.
    """
    for left in reversed(range(TRIES)):
        try:
            return act()
        except passed:
            raise
        except refusals() as error:
            if isinstance(error, OSError) and error.errno in OWN_FAULTS:
                raise
            if not left:
                raise StoreUnreachable(
                    f"{trouble} in {TRIES} tries: {brief(error)}. When the store answers again, "
                    f"{advice}"
                ) from error
            log.warning("%s (%s), trying again", printable(trouble), brief(error))
    raise AssertionError


def refusals() -> tuple[type[Exception], ...]:
    """Errors raised by stores that do not respond."""
    try:
        return (OSError, import_module("obstore.exceptions").BaseError)
    except ModuleNotFoundError:
        return (OSError,)


def brief(error: Exception) -> str:
    """The first line of its message, or its kind; obstore appends long details."""
    return (str(error).splitlines() or [type(error).__name__])[0]
