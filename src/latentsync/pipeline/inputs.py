"""The files that a run reads: they must stay as they are until it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from latentsync.media.video import VideoInfo, probe
from latentsync.pipeline.cache import content_hash


@dataclass(frozen=True, slots=True)
class Source:
    """The video that a run reads: opened, probed and hashed once, where the run begins."""

    info: VideoInfo
    content_hash: str

    @classmethod
    def of(cls, path: Path) -> Self:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file: check the path")
        return cls(probe(path), content_hash(path))

    @property
    def path(self) -> Path:
        return self.info.path


@dataclass(frozen=True, slots=True)
class _State:
    """What changes when a file is written or replaced."""

    num_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class Inputs:
    """Looks whether files are still those that they were; what is only touched or moved is."""

    def __init__(self, *paths: Path) -> None:
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not a file: check the path")
        self.states = {path: _State.of(path) for path in paths}
        self.hashes = {path: content_hash(path) for path in paths}

    def check_still(self, source: Source) -> None:
        """ValueError if the video was changed since it was opened."""
        if self.hashes[source.path] != source.content_hash:
            raise ValueError(
                f"{source.path} changed after it was opened: run the same command again when "
                "nothing writes it"
            )

    def check(self) -> None:
        """ValueError or FileNotFoundError if one of them is another now."""
        for path, before in self.states.items():
            if not path.exists():
                raise FileNotFoundError(f"{path} was removed while it was read: bring it back")
            now = _State.of(path)
            if now == before:
                continue
            if now.num_bytes != before.num_bytes or content_hash(path) != self.hashes[path]:
                raise ValueError(
                    f"{path} changed while it was read, from {before.num_bytes} to "
                    f"{now.num_bytes} bytes: run the same command again when nothing writes it"
                )
            self.states[path] = now

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Check them after the block; if it failed, because of that too."""
        try:
            yield
        except (ValueError, OSError):
            self.check()
            raise
        self.check()
