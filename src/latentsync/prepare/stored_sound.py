"""The sound of a recording in a file without a name, of which stages read what they need."""

import os
import tempfile
import wave
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from latentsync.files import publish
from latentsync.media.audio import SoundFormat

BYTES = 2  # per sample


class NamelessFile:
    """What was written to a file that is in no folder, which is gone when nobody reads it any
    more."""

    def __init__(self, file: IO[bytes]) -> None:
        file.flush()
        self.size = os.fstat(file.fileno()).st_size
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
        with tempfile.TemporaryFile(dir=folder) as file:
            for piece in pieces:
                file.write(piece.tobytes())
            return cls.written_to(file)

    @classmethod
    def written_to(cls, file: IO[bytes]) -> Self:
        stored = NamelessFile(file)
        return cls(stored, 0, stored.size // BYTES)

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


@dataclass(frozen=True, slots=True)
class OwnSound:
    """Samples `first` to `end` of a recording's sound at its own rate, with all its channels."""

    file: NamelessFile
    format: SoundFormat
    first: int
    end: int

    @property
    def sample_bytes(self) -> int:
        return BYTES * self.format.num_channels

    def part(self, first: int, end: int, fps: float) -> Self:
        """The sound of frames, counted from where this one begins; not read yet."""
        bounds = (self.first + round(frame * self.format.rate / fps) for frame in (first, end))
        first, end = (max(0, min(each, self.file.size // self.sample_bytes)) for each in bounds)
        return replace(self, first=first, end=max(first, end))

    def write(self, path: Path) -> None:
        """A wav file of 16 bits."""
        with publish(path) as partial, wave.open(str(partial), "wb") as file:
            file.setnchannels(self.format.num_channels)
            file.setsampwidth(BYTES)
            file.setframerate(self.format.rate)
            first, end = (each * self.sample_bytes for each in (self.first, self.end))
            file.writeframes(self.file.read(first, end))


Pairs = Iterable[tuple[Int16[np.ndarray, " n"], Int16[np.ndarray, "m c"]]]


def store_both(pairs: Pairs, own: SoundFormat, folder: Path) -> tuple[StoredSound, OwnSound]:
    """The sound of `read_at_two_rates`, on the disk of a folder; errors as of `StoredSound.of`."""
    with tempfile.TemporaryFile(dir=folder) as mono, tempfile.TemporaryFile(dir=folder) as beside:
        for piece, own_piece in pairs:
            mono.write(piece.tobytes())
            beside.write(own_piece.tobytes())
        sound, file = StoredSound.written_to(mono), NamelessFile(beside)
    return sound, OwnSound(file, own, 0, file.size // BYTES // own.num_channels)
