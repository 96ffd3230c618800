"""The two streams of a run: one crops the faces that the network needs, the other pastes the
generated ones. Neither holds frames while the network works: faces are small, frames are not."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import floor

import numpy as np
from jaxtyping import Float, Int32, UInt8

from latentsync.faces import Placement, align, aligned_box, paste, pasted_box
from latentsync.faces.mask import ALL_ROWS, Rows
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import Timeline
from latentsync.pipeline.analysis import Placements
from latentsync.pipeline.chunks import Chunk, Run
from latentsync.pipeline.generation import Face, Faces, GeneratedFaces, Slots, between
from latentsync.pipeline.occlusions import Occlusions

AT_SLOT = 0.02  # of a slot: closer than this, an output frame shows the slot's own face


class RunsAt:
    """The runs that contain a slot; slots must be requested in ascending order."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.waiting = deque(sorted(enumerate(runs), key=lambda item: item[1].first))
        self.active: list[tuple[int, Run]] = []

    def __call__(self, slot: int) -> list[tuple[int, Run]]:
        while self.waiting and self.waiting[0][1].first <= slot:
            self.active.append(self.waiting.popleft())
        self.active = [item for item in self.active if item[1].end >= slot]
        return [item for item in self.active if item[1].end > slot]

    def held(self, slot: int) -> list[tuple[int, Run]]:
        """Runs that ended with the slot before and whose last mouth is held."""
        return [item for item in self.active if item[1].end == slot and item[1].holds]


@dataclass(frozen=True, slots=True)
class Pasting:
    """Which part of a generated face is pasted: the painted part of this mask ("mask"), or the
    whole square with blended edges ("crop"), as in the official pipeline. `rows`: the rows of the
    face to paste. `occlusions`: what hides a face is kept."""

    region: str
    mask: str
    rows: Rows = ALL_ROWS
    occlusions: Occlusions = field(default_factory=Occlusions)


@dataclass(frozen=True, slots=True)
class Cut:
    """The cropped faces of one slot, by run."""

    slot: int
    faces: dict[int, UInt8[np.ndarray, "r r 3"]]


def wanted_slots(chunks: Sequence[Chunk], runs: Sequence[Run]) -> Slots:
    """All slots whose faces a chunk needs, ascending."""
    marks = np.zeros(max((run.end for run in runs), default=0), dtype=bool)
    for chunk in chunks:
        marks[chunk.first : chunk.end] = True
        marks[chunk.reference] = True
    return np.flatnonzero(marks)


def cut_faces(
    pictures: Iterable[Picture],
    slots: Slots,
    numbers: Int32[np.ndarray, " n"],
    runs: Sequence[Run],
    placements: Placements,
    resolution: int,
) -> Iterator[Cut]:
    """The aligned faces of slots; `pictures` and `numbers` (of stored frames) correspond to the
    slots."""
    runs_at = RunsAt(runs)
    for slot, number, picture in zip(slots.tolist(), numbers.tolist(), pictures, strict=True):
        faces = {}
        for index, run in runs_at(slot):
            placement = placements.at(run.track, number)
            assert placement is not None, "a run has a usable face in each of its slots"
            faces[index] = face_in(picture, placement, resolution)
        yield Cut(slot, faces)


def face_in(picture: Picture, placement: Placement, resolution: int) -> UInt8[np.ndarray, "r r 3"]:
    """The aligned face; converts only the part of the picture that contains it."""
    x0, y0, x1, y1 = box = aligned_box(placement, resolution, picture.shape[:2])
    if x1 <= x0 or y1 <= y0:
        return align(picture.rgb(), placement, resolution)
    return align(picture.rgb(box), placement.inside(x0, y0), resolution)


class FaceStore:
    """Faces for chunks, taken from a stream of cuts and held as long as needed."""

    def __init__(self, cuts: Iterator[Cut], keep_slots: int) -> None:
        self.cuts = cuts
        self.keep_slots = keep_slots
        self.faces: dict[tuple[int, int], UInt8[np.ndarray, "r r 3"]] = {}

    def __call__(self, run: int, slots: Slots) -> Faces:
        while (run, int(slots.max())) not in self.faces:
            cut = next(self.cuts)
            self.faces.update({(index, cut.slot): face for index, face in cut.faces.items()})
            self._forget(before=cut.slot - self.keep_slots)
        return np.stack([self.faces[run, slot] for slot in slots.tolist()])

    def _forget(self, before: int) -> None:
        # Slots were added in ascending order, so the oldest come first.
        for key in list(self.faces):
            if key[1] >= before:
                return
            del self.faces[key]


def put_back(
    pictures: Iterable[Picture],
    entries: range,
    timeline: Timeline,
    *,
    fps: float,
    runs: Sequence[Run],
    generated: GeneratedFaces,
    placements: Placements,
    pasting: Pasting,
) -> Iterator[Picture]:
    """The output's frames: the source's with the generated mouths pasted.

    Frames between two slots get an interpolated mouth.
    """
    runs_at = RunsAt(runs)
    for entry, picture in zip(entries, pictures, strict=True):
        shown = shown_mouths(entry, timeline, fps=fps, runs_at=runs_at, placements=placements)
        generated.forget(before=slot_at(entry, timeline, fps=fps) - 1)
        for mouth in shown:
            face = generated.at(mouth.run, mouth.lower)
            if mouth.share > 0 and mouth.upper > mouth.lower:
                face = between(face, generated.at(mouth.run, mouth.upper), mouth.share)
            occluded = pasting.occlusions.mask_at(
                runs[mouth.run].track, int(timeline.numbers[entry]), face.shape[0]
            )
            picture = with_face(
                picture, face, mouth.placement, pasting, strength=mouth.strength, occluded=occluded
            )
        yield picture


@dataclass(frozen=True, slots=True)
class ShownMouth:
    """A generated mouth in an output frame: placement, the slots it is interpolated from,
    opacity."""

    run: int
    placement: Placement
    lower: int
    upper: int
    share: float
    strength: float


def slot_at(entry: int, timeline: Timeline, *, fps: float) -> int:
    """The slot nearest to the start of an output frame."""
    return floor(timeline.seconds(entry) * fps + 0.5)


def shown_mouths(
    entry: int, timeline: Timeline, *, fps: float, runs_at: RunsAt, placements: Placements
) -> list[ShownMouth]:
    """The mouths to paste into an output frame; frames must be requested in order."""
    position, number = timeline.seconds(entry) * fps, int(timeline.numbers[entry])
    shown = []
    slot = slot_at(entry, timeline, fps=fps)
    for index, run in [*runs_at(slot), *runs_at.held(slot)]:
        placement = placements.at(run.track, number)
        lower = min(max(floor(position + AT_SLOT), run.first), run.end - 1)
        upper = min(lower + 1, run.end - 1)
        share = min(max(position - lower, 0.0), 1.0)
        share = 0.0 if share < AT_SLOT else share
        strength = _mixed(run.strength, lower - run.first, upper - run.first, share)
        if placement is not None and strength > 0:
            shown.append(ShownMouth(index, placement, lower, upper, share, strength))
    return shown


def with_face(
    picture: Picture,
    face: Face,
    placement: Placement,
    pasting: Pasting,
    *,
    strength: float,
    occluded: Float[np.ndarray, "r r"] | None = None,
) -> Picture:
    """The picture with the face pasted, except where it is `occluded`; converts only the part that
    changes."""
    size, region, mask, rows = picture.shape[:2], pasting.region, pasting.mask, pasting.rows
    box = pasted_box(placement, face.shape[0], size, region=region, mask=mask, rows=rows)
    if box[2] <= box[0] or box[3] <= box[1]:
        return picture
    box = picture.around(box)
    before = picture.rgb(box)
    part = placement.inside(box[0], box[1])
    after = paste(
        before,
        face,
        part,
        region=region,
        mask=mask,
        rows=rows,
        occluded=occluded,
        strength=strength,
    )
    return picture.with_part(box, before, after)


def _mixed(strength: np.ndarray, lower: int, upper: int, share: float) -> float:
    return float((1 - share) * strength[lower] + share * strength[upper])
