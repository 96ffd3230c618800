"""Whole files only: what is written appears under its name when it is finished. And the cache."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def cache_root() -> Path:
    """The user's cache of this program."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentsync"


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file or folder to; it becomes `path` on success only."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: create it before writing {path}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} is not writable: choose another place for {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder already: choose another name or remove it")
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
