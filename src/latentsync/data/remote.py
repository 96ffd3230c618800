"""A prepared data set in an object store: what is read is fetched, what is old makes room."""

import logging
import os
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.files import cache_root, publish

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

SEPARATOR = "://"
TRIES = 3
# Room is made when this share of the limit was fetched since, so that files are rarely listed.
SHARE = 0.05
EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


class StoreUnreachable(Exception):
    """An object store does not answer; not an OSError, which would count as one bad clip."""


def is_remote(path: Path | str) -> bool:
    """Whether it is the address of a store (s3://bucket/folder) and no path."""
    return SEPARATOR in str(path)


class RemoteSet:
    """A data set folder at `url`, of which a local folder holds what was used last.

    Any address fsspec opens: s3://, gs://, hf://datasets/..., https:// for single files. Fetched
    files lie in `cache_dir` (None: the user's cache), where processes share them; the least
    recently used go when they are more than `max_bytes`. Processes open the store for themselves.
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
        except OSError as error:
            raise StoreUnreachable(f"{self.url} does not answer: {error}") from error

    def names(self, folder: str) -> set[str]:
        """What lies in one of its folders."""
        try:
            return {Path(each).name for each in self._fs.ls(self._address(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def bring(self, path: Path) -> None:
        """Have a file of the local folder lie there; FileNotFoundError if the store has none."""
        if path.exists():
            os.utime(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        address = self._address(path.relative_to(self.folder).as_posix())
        with publish(path) as partial:
            self._fetch(address, partial)
        self._fetched += path.stat().st_size
        if self._fetched > SHARE * self.max_bytes:
            self._fetched = 0
            self._make_room()

    def _fetch(self, address: str, partial: Path) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._fs.get_file(address, str(partial))
                return
            except FileNotFoundError:
                raise
            except OSError as error:
                if not left:
                    raise StoreUnreachable(
                        f"{address} could not be fetched in {TRIES} tries: {error}. When the store "
                        "answers again, go on with ckpt_path=last"
                    ) from error
                log.warning("%s could not be fetched (%s), trying again", address, error)

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
        excess = sum(size for _, size, _ in kept) - (1 - SHARE) * self.max_bytes
        for _, size, path in sorted(kept):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
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
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url)[0]
        except (ImportError, ValueError) as error:
            protocol = self.url.split(SEPARATOR, maxsplit=1)[0]
            package = EXTRAS.get(protocol)
            remedy = f"pip install {package}" if package else "see fsspec's list of protocols"
            raise ValueError(f"{self.url} cannot be opened ({error}): {remedy}") from error

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}
