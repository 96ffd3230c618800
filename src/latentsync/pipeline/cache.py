"""Results that depend on a file's content only, kept for the next run on the same file.

A second language or a retake on the same video finds its faces already followed, its voice
already listened to. Names are hashes of contents: two files of one name never meet.
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


# What a file that is not whole, not ours, or not readable is told by.
UNUSABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


class Cache:
    """A folder of results; what was not used for longest goes when it holds more than 2 GiB.

    It only saves time: where it cannot be read or written, one warning is logged, and what it
    should have held is made anew. Other processes may remove any file of it at any time.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._has_warned = False

    @classmethod
    def of_user(cls) -> Self:
        return cls(cache_root() / "results")

    def path(self, kind: str, *key: str) -> Path:
        """Where the result of a kind for a key is, or would be."""
        digest = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        return self.folder / f"{kind}-{digest}.safetensors"

    def read(self, path: Path, load: Callable[[Path], T]) -> T | None:
        """What `load` makes of a file of the cache; None if it is not there or is of no use."""
        try:
            found = load(path)
        except UNUSABLE as error:
            if not path.exists():  # or another process removed it meanwhile
                return None
            self._warn(f"{path} cannot be used ({_brief(error)}); what it held is made anew")
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # used now: the last to be removed
        return found

    def write(self, path: Path, save: Callable[[Path], object]) -> bool:
        """Have `save` write a file of the cache, whole; False if that was not possible."""
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
        """The stored tensor, or the one that `make` gives, which is stored."""
        path = self.path(kind, *key)
        stored = self.read(path, lambda there: load_file(there)[kind])
        if stored is not None:
            return stored
        value = make()
        if self.write(path, lambda partial: save_file({kind: value.contiguous()}, partial)):
            self.prune()
        return value

    def prune(self) -> None:
        """Remove what was not used for longest until the rest fits."""
        aged = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):  # another process was here first
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
    """A hash of all bytes of a file, read once as long as its size and time stay."""
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
    """A hash of names, shapes and some 64 evenly spaced values of every tensor: training moves
    nearly all of them, and a large network is told apart in no time."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(net.state_dict().items()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)].float().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def model_hash(model: LipSyncModel) -> str:
    """A hash of all that what a model generates depends on: its networks, what its format says, and
    its noise process, which gives the same weights another way back from noise."""
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
