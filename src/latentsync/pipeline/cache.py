"""Results that depend on a file's content only, kept for the next run on the same file.

A second language or a retake on the same video finds its faces already followed, its voice
already listened to. Names are hashes of contents: two files of one name never meet.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.files import cache_root, publish

BLOCK_BYTES = 1 << 22
MOST_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of results; what was not used for longest goes when it holds more than 2 GiB."""

    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def of_user(cls) -> "Cache":
        return cls(cache_root() / "results")

    def path(self, kind: str, *key: str) -> Path:
        """Where the result of a kind for a key is, or would be."""
        digest = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{kind}-{digest}.safetensors"

    def tensor(self, kind: str, *key: str, make: Callable[[], Tensor]) -> Tensor:
        """The stored tensor, or the one that `make` gives, which is stored."""
        path = self.path(kind, *key)
        if path.is_file():
            path.touch()
            return load_file(path)[kind]
        value = make()
        with publish(path) as partial:
            save_file({kind: value.contiguous()}, partial)
        self.prune()
        return value

    def prune(self) -> None:
        """Remove what was not used for longest until the rest fits."""
        files = [path for path in self.folder.glob("*.safetensors") if path.is_file()]
        aged = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in aged:
            total += path.stat().st_size
            if total > self.most_bytes:
                path.unlink(missing_ok=True)


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
