"""What the network must know of the faces of a video, kept on disk for the next run on it.

Latents depend on the video, on how its faces are cut and on the VAE, not on the voice: a second
language or a retake finds them here, and neither cuts a face nor encodes one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from numpy import array, ndarray
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.models.color_matching import CELLS
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache

SHARD = 64  # stored frames whose faces lie in one file
PRUNE_EVERY = 32  # files written
MAX_SHARE = 0.5  # of the cache that one video may fill: the rest is for other videos

# A run and a slot => the track and the stored frame that its face comes from.
PlaceOf = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FaceLatents:
    """One face: masked and as seen, as latents, and the colours around what is painted."""

    masked: Float[Tensor, "c x y"]
    seen: Float[Tensor, "c x y"]
    cells: Float[Tensor, "3 k k"]


PARTS = ("masked", "seen", "cells")


NOTHING = {"numbers": torch.empty(0, dtype=torch.int64)}


def bytes_per_face(model: LipSyncModel) -> int:
    """What a face takes on the disk."""
    side = model.format.resolution // model.codec.factor
    latents = 2 * model.codec.num_channels * side**2 * model.unet.dtype.itemsize
    return latents + 3 * min(CELLS, model.format.resolution) ** 2 * 4


def load_faces(path: Path) -> dict[str, Tensor]:
    """The faces of a file; ValueError if it is none that `LatentCache` wrote."""
    held = load_file(path)
    sizes = {name: len(held[name]) for name in (*PARTS, "numbers")}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"it holds {sizes}")
    return held


class LatentCache:
    """Latents of faces by track and stored frame, in files of up to 64 frames of a track.

    What is there is what was there when it was first asked for: a run never reads what it wrote
    itself, so that it gives the same with and without a cache. `key` names all that the latents
    depend on. Faces come in about rising order; a file is written, whole, when faces two files
    further come. `verify` raises if the video is not that of the key any more.
    """

    def __init__(
        self,
        cache: Cache,
        key: Sequence[str],
        place_of: PlaceOf,
        *,
        verify: Callable[[], None] = lambda: None,
    ) -> None:
        self.cache, self.key, self.place_of, self.verify = cache, tuple(key), place_of, verify
        self.there: dict[tuple[int, int], dict[str, Tensor]] = {}
        self.new: dict[tuple[int, int], dict[int, FaceLatents]] = {}
        self.num_written = 0
        self.is_full = False

    def has(self, run: int, slot: int) -> bool:
        """Whether the face of a slot was kept by an earlier run."""
        track, number = self.place_of(run, slot)
        return bool((self._held((track, number // SHARD))["numbers"] == number).any())

    def missing(
        self, slots: Int[ndarray, " n"], runs_at: Callable[[int], Sequence[int]]
    ) -> Bool[ndarray, " n"]:
        """Which of the slots, rising, have a face that must be cut; `runs_at` gives their runs."""
        return array(
            [not all(self.has(run, slot) for run in runs_at(slot)) for slot in slots.tolist()],
            dtype=bool,
        )

    def read(self, run: int, slot: int) -> FaceLatents | None:
        """The face that an earlier run kept, None if none did."""
        track, number = self.place_of(run, slot)
        held = self._held((track, number // SHARD))
        rows = (held["numbers"] == number).nonzero()[:, 0].tolist()
        return FaceLatents(*(held[name][rows[0]] for name in PARTS)) if rows else None

    def add(self, run: int, slot: int, face: FaceLatents) -> None:
        """Keep a face that `read` did not have."""
        if self.is_full:
            return
        track, number = self.place_of(run, slot)
        shard = number // SHARD
        self.new.setdefault((track, shard), {}).setdefault(number, face)
        for other in [key for key in self.new if key[0] == track and abs(key[1] - shard) > 1]:
            self._write(other)

    def expect(self, num_faces: int, bytes_per_face: int) -> None:
        """Say how much will come: what is too much for the cache is not kept at all."""
        self.is_full = num_faces * bytes_per_face > MAX_SHARE * self.cache.max_bytes

    def close(self) -> None:
        """Write what is not written yet."""
        for shard in list(self.new):
            self._write(shard)
        if self.num_written:
            self.cache.prune()

    def _name(self, shard: tuple[int, int]) -> tuple[str, ...]:
        return (*self.key, str(shard[0]), str(shard[1]))

    def _held(self, shard: tuple[int, int]) -> dict[str, Tensor]:
        """What a file held when it was first asked for: it is mapped, and stays so though another
        process removes it."""
        if shard not in self.there:
            path = self.cache.path("latents", *self._name(shard))
            self.there[shard] = self.cache.read(path, load_faces) or NOTHING
        return self.there[shard]

    def _write(self, shard: tuple[int, int]) -> None:
        faces = self.new.pop(shard)
        path = self.cache.path("latents", *self._name(shard))
        held = [(number, face) for number, face in faces.items()]
        old = self.cache.read(path, load_faces)
        if old is not None:
            # Of a voice that needed other frames: both sets are of use.
            for row, number in enumerate(old["numbers"].tolist()):
                if number not in faces:
                    held.append((number, FaceLatents(*(old[name][row] for name in PARTS))))
        held.sort(key=lambda item: item[0])
        tensors = {
            name: torch.stack([getattr(face, name).cpu() for _, face in held]).contiguous()
            for name in PARTS
        }
        tensors["numbers"] = torch.tensor([number for number, _ in held])
        self.verify()
        self.num_written += self.cache.write(path, lambda partial: save_file(tensors, partial))
        if self.num_written and self.num_written % PRUNE_EVERY == 0:
            self.cache.prune()
