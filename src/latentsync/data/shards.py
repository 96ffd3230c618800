"""A prepared set in archives: tar files, read in place, and an index of what is where."""

import json
from collections.abc import Container
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from latentsync.data.listed import PACKETS_FOLDER
from latentsync.data.remote import RemoteSet
from latentsync.files import FilePart

SHARDS_FOLDER = "shards"
INDEX_NAME = "index.safetensors"
# Metadata of the index, lists in JSON: names of the archives, and folders of the set.
ARCHIVES, FOLDERS = "archives", "folders"
HASHES, PLACES = "hashes", "places"
CLIP_SUFFIX = ".mp4"
MAX_FOUND = 10_000  # places that are remembered: an item asks for a file several times


class ShardedSet:
    """The files of a set folder as members of its archives, here or in a store.

    The index has the hashes of the files' names, sorted, and for each the number of the archive,
    the offset and the size: 32 bytes a file, memory-mapped, the same for all processes. From a
    store every archive is fetched once, whole.
    """

    def __init__(self, folder: Path, *, remote: RemoteSet | None = None) -> None:
        self.folder = folder
        self.remote = remote
        self._found: dict[Path, FilePart] = {}

    def place(self, path: Path) -> FilePart:
        """Where a file of the folder is; FileNotFoundError if it is in no archive."""
        part = self._found.get(path)
        if part is None:
            part = self._part(self.check(path), packets=self._packets(path))
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[path] = part
        if self.remote is not None:
            self.remote.bring(part.path)
        return part

    def check(self, path: Path) -> int:
        """The row of the index for a file; FileNotFoundError if it is in no archive."""
        inside = path.is_relative_to(self.folder)
        name = path.relative_to(self.folder).as_posix() if inside else str(path)
        row = self._row_of(name)
        if row is None:
            raise FileNotFoundError(
                f"{name} is in no archive of {self._shards}: make them again with prepare.py "
                f"stage=shards output={self.folder}"
            )
        return row

    def bring(self, path: Path) -> None:
        """Fetch the archive of a file."""
        self.place(path)

    def folders(self, parent: str) -> list[str]:
        """Names of the folders in one of the set's folders."""
        prefix = f"{parent}/"
        return sorted(
            each.removeprefix(prefix) for each in self._listed(FOLDERS) if each.startswith(prefix)
        )

    def names(self, folder: str) -> Container[str]:
        """Names of the files in one of the set's folders; false if there is none."""
        return _Folder(self, folder)

    def has(self, name: str) -> bool:
        """Whether a file of the set is in an archive."""
        return self._row_of(name) is not None

    def has_folder(self, folder: str) -> bool:
        return folder in self._listed(FOLDERS)

    def _part(self, row: int, *, packets: FilePart | None = None) -> FilePart:
        number, offset, size = self._index[PLACES][row].tolist()
        return FilePart(self._shards / self._listed(ARCHIVES)[number], offset, size, packets)

    def _packets(self, path: Path) -> FilePart | None:
        """Where the packets of a clip are listed; None for other files and in older archives."""
        row = self._row_of(packets_name(path.stem)) if path.suffix == CLIP_SUFFIX else None
        return None if row is None else self._part(row)

    def _row_of(self, name: str) -> int | None:
        hashes = self._hashes
        value = hash_of(name)
        row = int(np.searchsorted(hashes, value))
        return row if row < len(hashes) and hashes[row] == value else None

    def _listed(self, name: str) -> list[str]:
        return self._lists[name]

    @property
    def _shards(self) -> Path:
        return self.folder / SHARDS_FOLDER

    @cached_property
    def _hashes(self) -> np.ndarray:
        return self._index[HASHES].numpy()

    @cached_property
    def _index(self) -> dict[str, Tensor]:
        with safe_open(self._index_path(), framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in (HASHES, PLACES)}

    @cached_property
    def _lists(self) -> dict[str, list[str]]:
        with safe_open(self._index_path(), framework="np") as tensors:
            metadata = tensors.metadata()
        return {name: json.loads(metadata[name]) for name in (ARCHIVES, FOLDERS)}

    def _index_path(self) -> Path:
        path = self._shards / INDEX_NAME
        if self.remote is not None:
            self.remote.bring(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.folder} has no archives (no {path.relative_to(self.folder)}): make them "
                f"with prepare.py stage=shards output={self.folder}"
            )
        return path

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "remote": self.remote, "_found": {}}


class _Folder(Container[str]):
    """Names of the files of a folder, looked up one by one."""

    def __init__(self, shards: ShardedSet, folder: str) -> None:
        self.shards = shards
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        return self.shards.has(f"{self.folder}/{name}")

    def __bool__(self) -> bool:
        return self.shards.has_folder(self.folder)


def index_tensors(places: dict[str, tuple[int, int, int]]) -> dict[str, Tensor]:
    """The index of files: name => number of the archive, offset, size.

    ValueError if two names have the same hash of 64 bits, which is not to be expected.
    """
    hashes = np.array([hash_of(name) for name in places], dtype=np.int64)
    order = np.argsort(hashes)
    hashes = hashes[order]
    if (hashes[1:] == hashes[:-1]).any():
        raise ValueError("two files of the set have names of the same hash: rename one")
    rows = np.array(list(places.values()), dtype=np.int64).reshape(-1, 3)[order]
    return {HASHES: torch.from_numpy(hashes), PLACES: torch.from_numpy(rows)}


def packets_name(name: str) -> str:
    """In the index, the list of a clip's packets."""
    return f"{PACKETS_FOLDER}/{name}.safetensors"


def hash_of(name: str) -> int:
    """64 bits of a name."""
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
