"""What the network must know of the faces of a video, kept on disk for the next run on it.

Latents depend on the video, on how its faces are cut and on the VAE, not on the voice: a second
language or a retake finds them here, and neither cuts a face nor encodes one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from numpy import array, ndarray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.files import publish
from latentsync.models.colour import CELLS
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache

SHARD = 64  # stored frames whose faces lie in one file
PRUNE_EVERY = 32  # files written
MOST_SHARE = 0.5  # of the cache that one video may fill: the rest is for other videos

# A run and a slot => the track and the stored frame that its face comes from.
PlaceOf = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FaceLatents:
    """One face: masked and as seen, as latents, and the colours around what is painted."""

    masked: Float[Tensor, "c x y"]
    seen: Float[Tensor, "c x y"]
    cells: Float[Tensor, "3 k k"]


PARTS = ("masked", "seen", "cells")


def bytes_per_face(model: LipSyncModel) -> int:
    """What a face takes on the disk."""
    side = model.format.resolution // model.codec.factor
    latents = 2 * model.codec.num_channels * side**2 * model.unet.dtype.itemsize
    return latents + 3 * min(CELLS, model.format.resolution) ** 2 * 4


class KeptLatents:
    """Latents of faces by track and stored frame, in files of up to 64 frames of a track.

    What is there is what was there when it was first asked for: a run never reads what it wrote
    itself, so that it gives the same with and without a cache. `key` names all that the latents
    depend on. Faces come in about rising order; a file is written, whole, when faces two files
    further come.
    """

    def __init__(self, cache: Cache, key: Sequence[str], place_of: PlaceOf) -> None:
        self.cache, self.key, self.place_of = cache, tuple(key), place_of
        self.there: dict[tuple[int, int], frozenset[int]] = {}
        self.new: dict[tuple[int, int], dict[int, FaceLatents]] = {}
        self.opened: tuple[tuple[int, int], dict[str, Tensor]] | None = None
        self.num_written = 0
        self.is_full = False

    def has(self, run: int, slot: int) -> bool:
        """Whether the face of a slot was kept by an earlier run."""
        track, number = self.place_of(run, slot)
        shard = track, number // SHARD
        if shard not in self.there:
            self.there[shard] = self._numbers_in(shard)
        return number in self.there[shard]

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
        if not self.has(run, slot):
            return None
        track, number = self.place_of(run, slot)
        held = self._open((track, number // SHARD))
        row = int((held["numbers"] == number).nonzero()[0, 0])
        return FaceLatents(*(held[name][row] for name in PARTS))

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
        self.is_full = num_faces * bytes_per_face > MOST_SHARE * self.cache.most_bytes

    def close(self) -> None:
        """Write what is not written yet."""
        for shard in list(self.new):
            self._write(shard)
        if self.num_written:
            self.cache.prune()

    def _name(self, shard: tuple[int, int]) -> tuple[str, ...]:
        return (*self.key, str(shard[0]), str(shard[1]))

    def _numbers_in(self, shard: tuple[int, int]) -> frozenset[int]:
        path = self.cache.path("latents", *self._name(shard))
        if not path.is_file():
            return frozenset()
        path.touch()  # used now: the last to be removed
        with safe_open(path, framework="pt") as file:
            return frozenset(file.get_tensor("numbers").tolist())

    def _open(self, shard: tuple[int, int]) -> dict[str, Tensor]:
        if self.opened is None or self.opened[0] != shard:
            path = self.cache.path("latents", *self._name(shard))
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} was removed from the cache while it was in use: run the same command "
                    "again"
                )
            self.opened = shard, load_file(path)
        return self.opened[1]

    def _write(self, shard: tuple[int, int]) -> None:
        faces = self.new.pop(shard)
        path = self.cache.path("latents", *self._name(shard))
        held = [(number, face) for number, face in faces.items()]
        if path.is_file():
            # Of a voice that needed other frames: both sets are of use.
            old = load_file(path)
            for row, number in enumerate(old["numbers"].tolist()):
                if number not in faces:
                    held.append((number, FaceLatents(*(old[name][row] for name in PARTS))))
        held.sort(key=lambda item: item[0])
        tensors = {
            name: torch.stack([getattr(face, name).cpu() for _, face in held]).contiguous()
            for name in PARTS
        }
        tensors["numbers"] = torch.tensor([number for number, _ in held])
        with publish(path) as partial:
            save_file(tensors, partial)
        self.num_written += 1
        if self.num_written % PRUNE_EVERY == 0:
            self.cache.prune()
