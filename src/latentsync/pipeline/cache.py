"""Cache of results that depend only on the content of files.

A second language or a retake for the same video reuses its tracked faces and encoded audio. Keys
are hashes of contents, so different files with the same name never collide.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Self, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.files import cache_root, publish
from latentsync.models.lipsync import LipSyncModel

log = logging.getLogger(__name__)

T = TypeVar("T")

BLOCK_BYTES = 1 << 22
MAX_BYTES = 2 << 30


# Raised for files that are incomplete, foreign or unreadable.
UNUSABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


class Cache:
    """A folder of results; the least recently used are deleted when it exceeds 2 GiB.

    It only saves time: if it cannot be read or written, one warning is logged and results are
    computed again. Other processes may delete any of its files at any time.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._has_warned = False

    @classmethod
    def of_user(cls) -> Self:
        return cls(cache_root() / "results")

    def path(self, kind: str, *key: str) -> Path:
        """Path of the result of a kind for a key, whether or not it exists."""
        digest = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        return self.folder / f"{kind}-{digest}.safetensors"

    def read(self, path: Path, load: Callable[[Path], T]) -> T | None:
        """Load a cached file with `load`; None if it does not exist or is unusable."""
        try:
            found = load(path)
        except UNUSABLE as error:
            if not path.exists():  # or another process has deleted it
                return None
            self._warn(f"{path} cannot be used ({_brief(error)}); what it held is made anew")
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # mark as recently used
        return found

    def write(self, path: Path, save: Callable[[Path], object]) -> bool:
        """Write a cached file atomically with `save`; False if that failed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with publish(path) as partial:
                save(partial)
        except (OSError, ValueError, SafetensorError) as error:
            self._warn(
                f"the cache {self.folder} cannot be written ({_brief(error)}); this run goes on, "
                "the next one will find less: make room, or leave it out with cache=false"
            )
            return False
        return True

    def tensor(self, kind: str, *key: str, make: Callable[[], Tensor]) -> Tensor:
        """The cached tensor, or else the result of `make`, which is then cached."""
        path = self.path(kind, *key)
        stored = self.read(path, lambda there: load_file(there)[kind])
        if stored is not None:
            return stored
        value = make()
        if self.write(path, lambda partial: save_file({kind: value.contiguous()}, partial)):
            self.prune()
        return value

    def prune(self) -> None:
        """Delete the least recently used files until the rest fits."""
        aged = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):  # another process may have deleted it
                stat = path.stat()
                aged.append((stat.st_mtime_ns, stat.st_size, path))
        total = 0
        for _, size, path in sorted(aged, reverse=True):
            total += size
            if total > self.max_bytes:
                with suppress(OSError):
                    path.unlink()

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s", message)


def _brief(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


def content_hash(path: Path) -> str:
    """A hash of a file's bytes; read again only if its size, modification time or inode changes."""
    stat = path.stat()
    return _content_hash(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1024)
def _content_hash(path: Path, _size: int, _changed_ns: int, _inode: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tensor_hash(tensor: Float[Tensor, "*n"]) -> str:
    return hashlib.blake2b(
        tensor.detach().cpu().contiguous().numpy().tobytes(), digest_size=16
    ).hexdigest()


def network_hash(net: torch.nn.Module) -> str:
    """A hash of names, shapes and about 64 evenly spaced values of every tensor: training changes
    nearly all of them, and large networks are hashed quickly."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(net.state_dict().items()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)].float().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def model_hash(model: LipSyncModel) -> str:
    """A hash of everything a model's output depends on: its networks, its format, and its noise
    process, which determines how the same weights denoise."""
    process, encoder = model.process, model.audio_encoder
    fields = [
        network_hash(model.unet),
        network_hash(model.codec.vae.net),
        repr(model.format),
        encoder.states_name,
        process.name,
        repr(sorted(process.to_config().items())),
    ]
    return hashlib.blake2b("\0".join(fields).encode(), digest_size=16).hexdigest()
