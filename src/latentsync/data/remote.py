"""A prepared data set in an object store: what is read is fetched, what is old makes room."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.extras import install
from latentsync.files import cache_root, publish

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

SEPARATOR = "://"
TRIES = 3
# Files are listed anew when a process has fetched this share of the limit since, and what is above
# the limit less the other share goes: several processes fetch between two looks of one.
LOOK_SHARE, SPARE_SHARE = 0.005, 0.05
# Stores of clouds, which obstore opens; the rest is fsspec's own or another package's.
CLOUDS = frozenset(("s3", "s3a", "gs", "az", "adl", "abfs", "abfss"))


class StoreUnreachable(Exception):
    """An object store does not answer; not an OSError, which would count as one bad clip."""


def is_remote(path: Path | str) -> bool:
    """Whether it is the address of a store (s3://bucket/folder) and no path."""
    return SEPARATOR in str(path)


@dataclass(frozen=True, slots=True)
class StoreCache:
    """Where files of a store are kept (None: the user's cache), and how much: the least recently
    used go."""

    folder: Path | str | None = None
    gigabytes: float = 100


class RemoteSet:
    """A data set folder at `url`, of which a local folder holds what was used last.

    Clouds (s3://, gs://, az://; keys and endpoint as their environment variables say) are opened
    by obstore, any other address, as hf://datasets/owner/name, by fsspec. Fetched files lie in
    `cache_dir` (None: the user's cache), where processes share them; the least recently used go
    when they are more than `max_bytes`. Every process opens the store for itself.
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

    def read_text(self, name: str) -> str:
        """A small file as it is now, not as it was once."""
        try:
            return self._fs.cat_file(self._address(name)).decode("utf-8")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.url} has no {name}: check the address") from error
        except _refusals() as error:
            raise StoreUnreachable(f"{self.url} does not answer: {_brief(error)}") from error

    def names(self, folder: str) -> set[str]:
        """What lies in one of its folders."""
        try:
            return {Path(each).name for each in self._fs.ls(self._address(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def bring(self, path: Path) -> None:
        """Have a file of the local folder lie there; FileNotFoundError if the store has none."""
        with suppress(FileNotFoundError):  # never fetched, or another process made room just now
            with suppress(PermissionError):  # others keep this cache
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
        for left in reversed(range(TRIES)):
            try:
                self._fs.get_file(address, str(partial))
                return
            except FileNotFoundError:
                raise
            except _refusals() as error:
                if not left:
                    raise StoreUnreachable(
                        f"{address} could not be fetched in {TRIES} tries: {_brief(error)}. When "
                        "the store answers again, go on with ckpt_path=last"
                    ) from error
                log.warning("%s could not be fetched (%s), trying again", address, _brief(error))

    def _make_room(self) -> None:
        """Forget the files that were not used for longest, down to what leaves room for more."""
        kept = []
        for path in self.folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process was here first
                continue
            if path.is_file() and ".partial" not in path.name:
                kept.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in kept) - (1 - SPARE_SHARE) * self.max_bytes
        for used_ns, size, path in sorted(kept):
            if excess <= 0:
                return
            with suppress(FileNotFoundError):
                if path.stat().st_mtime_ns == used_ns:  # or another process reads it just now
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
        protocol = self.url.split(SEPARATOR, maxsplit=1)[0]
        return _open_cloud(protocol, self.url) if protocol in CLOUDS else _open_other(self.url)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


def _open_cloud(protocol: str, url: str) -> "AbstractFileSystem":
    try:
        obstore = import_module("obstore.fsspec")
    except ModuleNotFoundError as error:
        raise ValueError(f"{url} needs obstore: {install('obstore')}") from error
    return obstore.FsspecStore(protocol)


def _open_other(url: str) -> "AbstractFileSystem":
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url} cannot be opened: {error}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """What stores raise when they do not answer."""
    try:
        return (OSError, import_module("obstore.exceptions").BaseError)
    except ModuleNotFoundError:
        return (OSError,)


def _brief(error: Exception) -> str:
    """Its first line; obstore's go on with all they know."""
    return str(error).splitlines()[0]
