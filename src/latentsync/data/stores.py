"""Repeated access to clips: memory-mapped tensors, open decoders, optionally decoded frames in
memory."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.data.listed import ClipOpener
from latentsync.data.members import File, map_tensors
from latentsync.files import publish
from latentsync.media.clip_reader import ClipReader

T = TypeVar("T")

# Linux allows 65530 mappings per process; an open decoder takes a few megabytes.
MAX_MAPPED_FILES = 4096
# Deleting a file of the cache frees its space only when no process maps it any more.
MAX_MAPPED_FETCHED = 64
MAX_OPEN_CLIPS = 32


class Opened(Generic[T]):
    """An LRU cache of the last `limit` opened files; a copy in another process opens its own."""

    def __init__(self, opener: Callable[[File], T], *, limit: int) -> None:
        self.opener = opener
        self.limit = limit
        self._files: OrderedDict[File, T] = OrderedDict()
        self._pid = os.getpid()

    def __call__(self, path: File) -> T:
        if self._pid != os.getpid():
            # Decoder threads do not survive a fork.
            self._files, self._pid = OrderedDict(), os.getpid()
        opened = self._files.get(path)
        if opened is None:
            opened = self._files[path] = self.opener(path)
            if len(self._files) > self.limit:
                self._files.popitem(last=False)
        else:
            self._files.move_to_end(path)
        return opened

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": OrderedDict()}


def mapped_tensors(*, fetched: bool = False) -> Opened[dict[str, Tensor]]:
    """Opens safetensors files as memory-mapped tensors, read from disk on access."""
    return Opened(map_tensors, limit=MAX_MAPPED_FETCHED if fetched else MAX_MAPPED_FILES)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a whole safetensors file; OSError if the disk is full, as from any other writer."""
    with publish(path) as partial:
        try:
            save_file(dict(tensors), partial, metadata=metadata)
        except SafetensorError as error:
            written = re.search(r"\(os error (\d+)\)", str(error))
            if written is None:
                raise
            number = int(written[1])
            raise OSError(number, os.strerror(number), str(path)) from error


class ClipFrames:
    """Frames of clips at one resolution, decoded on demand."""

    def __init__(self, resolution: int, *, reader: str = "pyav") -> None:
        self.resolution = resolution
        self._readers: Opened[ClipReader] = Opened(ClipOpener(reader), limit=MAX_OPEN_CLIPS)

    def __call__(
        self, clip: Clip, indices: Int[np.ndarray, " f"]
    ) -> UInt8[Tensor, "f 3 {self.resolution} {self.resolution}"]:
        frames = self._readers(clip.place(clip.path)).frames(indices)
        return torch.from_numpy(shrink(frames, self.resolution)).permute(0, 3, 1, 2)


class ClipFramesInMemory:
    """Frames of clips at one resolution, each clip decoded once and cached as uint8.

    Every worker process has its own cache.
    """

    def __init__(self, resolution: int, *, reader: str = "pyav") -> None:
        self.resolution = resolution
        self._open = ClipOpener(reader)
        self._kept: dict[Path, Tensor] = {}

    def __call__(
        self, clip: Clip, indices: Int[np.ndarray, " f"]
    ) -> UInt8[Tensor, "f 3 {self.resolution} {self.resolution}"]:
        if clip.path not in self._kept:
            every = np.arange(clip.num_frames)
            frames = shrink(self._open(clip.place(clip.path)).frames(every), self.resolution)
            self._kept[clip.path] = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        return self._kept[clip.path][torch.from_numpy(indices)]


def shrink(frames: UInt8[np.ndarray, "f h w 3"], size: int) -> UInt8[np.ndarray, "f r r 3"]:
    """The frames at `size`, by area averaging."""
    if frames.shape[1:3] == (size, size):
        return np.ascontiguousarray(frames)
    return np.stack(
        [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames]
    )
