"""The sound of a recording in a file without a name, of which stages read what they need."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

BYTES = 2  # per sample


class NamelessFile:
    """An open file that is in no folder, and gone when nobody reads it any more."""

    def __init__(self, pieces: Iterable[bytes], folder: Path) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            self.size = sum(file.write(piece) for piece in pieces)
            file.flush()
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, first: int, end: int) -> bytes:
        return os.pread(self.descriptor, end - first, first)


@dataclass(frozen=True, slots=True)
class StoredSound:
    """Samples `first` to `end` of what is stored; a slice of it is a waveform in [-1, 1]."""

    file: NamelessFile
    first: int
    end: int

    @classmethod
    def of(cls, pieces: Iterable[Int16[np.ndarray, " n"]], folder: Path) -> Self:
        """The sound of `read_pieces`, on the disk of a folder.

        OSError if there is no room; errors of reading are raised as they are.
        """
        file = NamelessFile((piece.tobytes() for piece in pieces), folder)
        return cls(file, 0, file.size // BYTES)

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, wanted: slice) -> Float[Tensor, " t"]:
        part = self.part(*wanted.indices(len(self))[:2])
        stored = bytearray(self.file.read(part.first * BYTES, part.end * BYTES))
        levels = np.ndarray(len(stored) // BYTES, np.int16, stored)
        return torch.from_numpy(levels.astype(np.float32)).div_(32768)

    def part(self, first: int, end: int) -> Self:
        """A part, not read yet."""
        first = min(first, len(self))
        end = max(min(end, len(self)), first)
        return replace(self, first=self.first + first, end=self.first + end)


Sound = Float[Tensor, "_"] | StoredSound


def part_of_sound(sound: Sound, first: int, end: int) -> Sound:
    """Samples `first` to `end`, read only if they were."""
    return sound.part(first, end) if isinstance(sound, StoredSound) else sound[first:end]
