"""Of the frames of a recording, those that look most alike outside the mask."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from latentsync.data.clips import Clip
from latentsync.data.mixing import column_of
from latentsync.data.windows import Gap

CELLS = 8  # masked faces are compared as means over a grid of so many cells
ROWS = 1024  # frames compared with all others at once: 4 MB for a minute of them


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The frames of one source, as clip and frame, and of each those most alike, as rows; the first
    row of every clip."""

    clips: Int[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    alike: Int[np.ndarray, "n k"]
    first: dict[int, int]


class AlikeFrames:
    """Samples, for a frame, another one of the same source from the `count` whose masked faces are
    most alike and that are `gap` frames away, wherever in the source's clips.

    `masked` returns the masked latents of a clip, or None if they cannot be read: then nothing is
    sampled from it. A source's frames are compared when the first one is asked for.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        masked: Callable[[Clip], Float[Tensor, "f c x y"] | None],
        *,
        count: int,
        gap: Gap,
    ) -> None:
        self.clips = clips
        self.masked = masked
        self.count = count
        self.gap = gap
        self._of_source: dict[str, list[int]] = defaultdict(list)
        for index, source in enumerate(column_of(clips, "source")):
            self._of_source[source].append(index)
        self._neighbours: dict[str, Neighbours] = {}

    def choose(
        self, clip: int, frames: Int[np.ndarray, " w"], rng: np.random.Generator
    ) -> list[tuple[int, int]] | None:
        """A reference for every one of a clip's frames: number of its clip, and frame there; None
        if the clip itself cannot be read."""
        source = self.clips[clip].source
        if source not in self._neighbours:
            self._neighbours[source] = self._compare(self._of_source[source])
        found = self._neighbours[source]
        if clip not in found.first:
            return None
        chosen = []
        for row in found.first[clip] + frames:
            alike = found.alike[row]
            alike = alike[alike >= 0]
            if not len(alike):
                raise ValueError(
                    f"{source}: no frame is {self.gap[0]} to {self.gap[1]} frames away from frame "
                    f"{found.frames[row]} of {self.clips[clip].path}: change reference_gap"
                )
            other = rng.choice(alike)
            chosen.append((int(found.clips[other]), int(found.frames[other])))
        return chosen

    def _compare(self, members: Sequence[int]) -> Neighbours:
        read = {index: self.masked(self.clips[index]) for index in members}
        looks = {i: appearance(masked) for i, masked in read.items() if masked is not None}
        if not looks:
            nothing = np.zeros(0, dtype=np.int64)
            return Neighbours(nothing, nothing, nothing[:, None], {})
        members = [*looks]
        lengths = [self.clips[index].num_frames for index in members]
        starts = [self.clips[index].start_frame for index in members]
        frames = np.concatenate([np.arange(length) for length in lengths])
        return Neighbours(
            clips=np.repeat(members, lengths),
            frames=frames,
            alike=most_alike(
                torch.cat([*looks.values()]),
                torch.from_numpy(np.repeat(starts, lengths) + frames),
                count=self.count,
                gap=self.gap,
            ),
            first=dict(zip(members, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True)),
        )


def appearance(masked: Float[Tensor, "f c x y"]) -> Float[Tensor, "f n"]:
    """What masked faces are compared by."""
    return functional.adaptive_avg_pool2d(masked.float(), CELLS).flatten(1)


def most_alike(
    looks: Float[Tensor, "f n"], times: Int[Tensor, " f"], *, count: int, gap: Gap
) -> Int[np.ndarray, "f k"]:
    """For each frame, the `count` nearest by `looks`, nearest first, among those whose time differs
    by `gap`; -1 where there are fewer."""
    rows = []
    for some, when in zip(looks.split(ROWS), times.split(ROWS), strict=True):
        away = (when[:, None] - times[None]).abs()
        distance = torch.cdist(some, looks)
        distance[(away < gap[0]) | (away > gap[1])] = torch.inf
        nearest = distance.topk(min(count, len(looks)), largest=False)
        rows.append(nearest.indices.masked_fill(nearest.values.isinf(), -1))
    return torch.cat(rows).numpy()
