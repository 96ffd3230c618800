"""Latents of a video's faces, cached on disk for later runs on the same video.

They depend on the video, on how its faces are cropped and on the VAE, but not on the voice: with a
second language or a retake no face needs to be cropped or encoded again.
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

SHARD = 64  # stored frames per file
PRUNE_EVERY = 32  # files written
MAX_SHARE = 0.5  # maximum fraction of the cache for one video, to leave room for others

# (run, slot) => (track, stored frame) of the face.
PlaceOf = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FaceLatents:
    """One face: latents of the masked and the unmasked face, and the colours around the painted
    part."""

    masked: Float[Tensor, "c x y"]
    seen: Float[Tensor, "c x y"]
    cells: Float[Tensor, "3 k k"]


PARTS = ("masked", "seen", "cells")


NOTHING = {"numbers": torch.empty(0, dtype=torch.int64)}


def bytes_per_face(model: LipSyncModel) -> int:
    """Size of one face on disk."""
    side = model.format.resolution // model.codec.factor
    latents = 2 * model.codec.num_channels * side**2 * model.unet.dtype.itemsize
    return latents + 3 * min(CELLS, model.format.resolution) ** 2 * 4


def load_faces(path: Path) -> dict[str, Tensor]:
    """The faces of a file; ValueError if it was not written by `LatentCache`."""
    held = load_file(path)
    sizes = {name: len(held[name]) for name in (*PARTS, "numbers")}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"it holds {sizes}")
    return held


class LatentCache:
    """Latents of faces by track and stored frame, in files of up to 64 frames of a track.

    Its contents are those at first access: a run never reads what it has written itself, so results
    are the same with and without a cache. `key` identifies everything that the latents depend on.
    Faces are added roughly in ascending order; a file is written, atomically, once faces arrive two
    files later. `verify` raises if the video has changed and no longer fits the key.
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
        """Whether an earlier run has cached the face of a slot."""
        track, number = self.place_of(run, slot)
        return bool((self._held((track, number // SHARD))["numbers"] == number).any())

    def missing(
        self, slots: Int[ndarray, " n"], runs_at: Callable[[int], Sequence[int]]
    ) -> Bool[ndarray, " n"]:
        """Which of the ascending slots have a face that must be cropped; `runs_at` gives the runs
        of a slot."""
        return array(
            [not all(self.has(run, slot) for run in runs_at(slot)) for slot in slots.tolist()],
            dtype=bool,
        )

    def read(self, run: int, slot: int) -> FaceLatents | None:
        """The face cached by an earlier run, or None."""
        track, number = self.place_of(run, slot)
        held = self._held((track, number // SHARD))
        rows = (held["numbers"] == number).nonzero()[:, 0].tolist()
        return FaceLatents(*(held[name][rows[0]] for name in PARTS)) if rows else None

    def add(self, run: int, slot: int, face: FaceLatents) -> None:
        """Cache a face that `read` did not have."""
        if self.is_full:
            return
        track, number = self.place_of(run, slot)
        shard = number // SHARD
        self.new.setdefault((track, shard), {}).setdefault(number, face)
        for other in [key for key in self.new if key[0] == track and abs(key[1] - shard) > 1]:
            self._write(other)

    def expect(self, num_faces: int, bytes_per_face: int) -> None:
        """Announce the number of faces: if they take too much of the cache, none is stored."""
        self.is_full = num_faces * bytes_per_face > MAX_SHARE * self.cache.max_bytes

    def close(self) -> None:
        """Write the remaining faces."""
        for shard in list(self.new):
            self._write(shard)
        if self.num_written:
            self.cache.prune()

    def _name(self, shard: tuple[int, int]) -> tuple[str, ...]:
        return (*self.key, str(shard[0]), str(shard[1]))

    def _held(self, shard: tuple[int, int]) -> dict[str, Tensor]:
        """Contents of a file at first access; they are memory-mapped and remain valid if another
        process deletes the file."""
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
            # Written for a voice that needed other frames: keep both sets.
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
