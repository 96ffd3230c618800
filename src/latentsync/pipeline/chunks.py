"""Place a plan on the model's grid of slots: the runs of slots in which each face is redrawn, the
reasons why it is not in the others, and the chunks of a run that the network generates at once.

Chunks of a run overlap and cross-fade, which avoids seams, and the last one ends with the run
instead of being short.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Shaped

from latentsync.faces.tracking.survey import Shot, Survey, Track, usable
from latentsync.media.frame_reader import FrameTimes, Timeline
from latentsync.pipeline.plan import (
    AS_PERSON,
    HIDDEN,
    LEFT_ALONE,
    NO_TURN,
    Choice,
    Plan,
    planned_faces,
)
from latentsync.pipeline.speakers import Turn, speaking_frames

NOT_SELECTED = "only faces that faces.select, or the plan, leaves out"
NOT_SPEAKING = "nobody who is there speaks, as the turns say"
BEHIND = "something lies before the mouth (faces.occlusion=skip)"
NOT_USABLE = -3  # in addition to the plan's values
# Maximum step in stored frames from slot to slot that is not a jump (10 at 240 fps).
MAX_STEP = 16
# Maximum distance of a reference from its chunk, in chunks. The faces in between are held.
MAX_REFERENCE_CHUNKS = 4

Reference = Literal["auto", "previous", "self"]


@dataclass(frozen=True, slots=True)
class Run:
    """Slots `first` to `end` (exclusive) in which the face of a track is redrawn.

    `strength` is the opacity of the generated mouth in each slot: 0 (the source) to 1. `turn` is
    the number of a turn with a voice of its own. `holds`: a cut or the end follows, and the last
    mouth is shown until then, since frames between two slots belong to the later one.
    """

    track: int
    person: int
    first: int
    end: int
    strength: Float32[np.ndarray, " n"]
    turn: int | None = None
    holds: bool = False

    @property
    def speech(self) -> int | str:
        """The name of its voice in `assign`: "turn3", or the person."""
        return self.person if self.turn is None else f"turn{self.turn}"

    def __len__(self) -> int:
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Chunk:
    """Slots that the network generates at once; `weights` are their weights in the cross-fade.

    `reference` are the slots of the reference faces.
    """

    run: int
    first: int
    end: int
    weights: Float32[np.ndarray, " n"]
    reference: Int[np.ndarray, " n"]

    @property
    def slots(self) -> Int[np.ndarray, " n"]:
        return np.arange(self.first, self.end)

    @property
    def needs_until(self) -> int:
        """One past the last slot whose face is needed."""
        return max(self.end, int(self.reference.max()) + 1)


def cut_chunks(
    runs: Sequence[Run],
    *,
    length: int,
    overlap: int,
    reference: str = "previous",
    short_last: bool = False,
    hidden: Sequence[Bool[np.ndarray, " _"]] | None = None,
) -> list[Chunk]:
    """The chunks of all runs, in the order in which their faces become available.

    `reference`: the reference faces of a chunk are those one chunk earlier ("previous") or its own
    ("self"). `short_last`: chunks are consecutive and the last one is short, as in the official
    pipeline; otherwise it begins earlier to be full, unless the whole run is shorter than a chunk.
    `hidden`: for each run, in which of its slots something hides the mouth; references avoid them.
    """
    if not 0 <= overlap <= length // 2:
        raise ValueError(f"overlap={overlap} must lie between 0 and half a window, {length // 2}")
    chunks = [
        chunk
        for index, run in enumerate(runs)
        for chunk in _of_run(index, run, length, overlap, short_last)
    ]
    if reference != "self":
        chunks = [
            replace(
                chunk,
                reference=apart(
                    chunk.slots,
                    runs[chunk.run],
                    length,
                    hidden=None if hidden is None else hidden[chunk.run],
                ),
            )
            for chunk in chunks
        ]
    return sorted(chunks, key=lambda chunk: (chunk.needs_until, chunk.run, chunk.first))


def _of_run(index: int, run: Run, length: int, overlap: int, short_last: bool) -> list[Chunk]:
    """The chunks of a run, each its own reference."""
    starts = [run.first]
    while starts[-1] + length < run.end:
        following = starts[-1] + length - overlap
        starts.append(following if short_last else min(following, run.end - length))
    ends = [min(start + length, run.end) for start in starts]
    chunks = []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        slots = np.arange(start, end)
        weights = np.ones(len(slots), dtype=np.float32)
        if place > 0:
            weights *= _ramp(slots, ends[place - 1], overlap)
        if place + 1 < len(starts):
            weights *= 1 - _ramp(slots, end, overlap)
        chunks.append(Chunk(index, start, end, weights, slots))
    return chunks


def _ramp(slots: Int[np.ndarray, " n"], before_end: int, overlap: int) -> Float32[np.ndarray, " n"]:
    """Weights of a chunk whose predecessor ends at `before_end`, rising from 0 to 1 over the last
    `overlap` slots of the predecessor."""
    return ((slots - before_end + overlap + 1) / (overlap + 1)).clip(0, 1).astype(np.float32)


def apart(
    slots: Int[np.ndarray, " n"],
    run: Run,
    length: int,
    *,
    hidden: Bool[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " n"]:
    """Slots of the run one chunk away: before, else after, else rotated by half the run.

    Networks are trained with references from another time; the face's own mouth would leak. Where
    the mouth is `hidden` (by slot of the run), which would show the network nothing, others up to
    `MAX_REFERENCE_CHUNKS` away are taken, the nearest ones with the fewest hidden slots, and the
    mouth before or after stands for a hidden one.
    """
    distances = range(length, MAX_REFERENCE_CHUNKS * length + 1)
    candidates = [
        slots + step
        for distance in (distances if hidden is not None and hidden.any() else [length])
        for step in (-distance, distance)
        if run.first <= slots[0] + step and slots[-1] + step < run.end
    ]
    if not candidates:
        candidates = [run.first + (slots - run.first + len(run) // 2) % len(run)]
    if hidden is None:
        return candidates[0]
    best = min(candidates, key=lambda shown: int(hidden[shown - run.first].sum()))
    return _seen(best, hidden[best - run.first])


def _seen(slots: Int[np.ndarray, " n"], hidden: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The slots, the nearest one that is not hidden in place of each that is."""
    free = np.flatnonzero(~hidden)
    if not len(free):
        return slots
    nearest = np.abs(np.arange(len(slots))[:, None] - free).argmin(axis=1)
    return slots[free[nearest]]


def find_runs(
    survey: Survey,
    edited: Mapping[int, Int32[np.ndarray, " _"]],
    timeline: Timeline,
    entries: Int32[np.ndarray, " k"],
    choice: Choice,
    *,
    fps: Fraction,
    num_spoken: int,
) -> tuple[list[Run], list[str]]:
    """The runs of all edited faces, and for every slot why it is left alone ("" if it is not).

    Only the first `num_spoken` slots have sound.
    """
    numbers = timeline.numbers[entries]
    skip_reasons = np.array(["no face found"] * len(numbers), dtype=object)
    runs: list[Run] = []
    skip_reasons[num_spoken:] = "after the end of the sound"
    heard = np.arange(len(numbers)) < num_spoken
    least = max(1, round(choice.min_seconds * float(fps)))
    # Redrawn tracks come last, so that their reasons override those of others.
    for index in sorted(range(len(survey.tracks)), key=lambda index: (index in edited, index)):
        track, shot = survey.tracks[index], _shot_of(survey.tracks[index], survey)
        wanted = _wanted_slots(track, edited.get(index), numbers, heard, choice, skip_reasons)
        in_shot = heard & (shot.first <= numbers) & (numbers < shot.end)
        for first, end, is_usable in _stretches(wanted != NOT_USABLE, numbers):
            # A shot, or a voice, may itself be that short.
            if is_usable and end - first < min(least, int(in_shot.sum())):
                wanted[first:end] = NOT_USABLE
                skip_reasons[first:end] = (
                    f"face seen for less than faces.min_seconds={choice.min_seconds:g} s"
                )
        for first, end, turn in _stretches(wanted, numbers):
            if turn in (NOT_USABLE, LEFT_ALONE):
                continue
            own = None if turn == AS_PERSON else turn
            holds = end == len(numbers) or not shot.first <= numbers[end] < shot.end
            strength = np.ones(end - first, dtype=np.float32)
            runs.append(Run(index, track.person, first, end, strength, own, holds))
    for run in runs:
        skip_reasons[run.first : run.end] = ""
    faded = _faded(runs, numbers, survey, choice.fade_slots)
    return sorted(faded, key=lambda run: run.first), list(skip_reasons)


def _wanted_slots(
    track: Track,
    frames: Int32[np.ndarray, " n"] | None,
    numbers: Int32[np.ndarray, " k"],
    heard: Bool[np.ndarray, " k"],
    choice: Choice,
    skip_reasons: Shaped[np.ndarray, " k"],
) -> Int32[np.ndarray, " k"]:
    """The edit of the track in every slot; why it is left alone goes into `skip_reasons`."""
    fine, reasons = usable(track, min_size=choice.min_size, max_yaw=choice.max_yaw)
    inside = heard & (numbers >= track.first) & (numbers < track.first + len(track.boxes))
    positions = np.where(inside, numbers - track.first, 0)
    for slot in np.flatnonzero(inside):
        if frames is None or not fine[positions[slot]]:
            skip_reasons[slot] = reasons[positions[slot]] or NOT_SELECTED
    if frames is None:
        return np.full(len(numbers), NOT_USABLE, dtype=np.int32)
    wanted = np.where(inside & fine[positions], frames[positions], NOT_USABLE).astype(np.int32)
    skip_reasons[wanted == LEFT_ALONE] = NOT_SPEAKING
    skip_reasons[wanted == HIDDEN] = BEHIND
    wanted[wanted == HIDDEN] = NOT_USABLE
    return wanted


def _stretches(
    values: Shaped[np.ndarray, " k"], numbers: Int32[np.ndarray, " k"]
) -> list[tuple[int, int, int]]:
    """Stretches of slots with one value during which the video plays continuously, in either
    direction."""
    # Starting again from the beginning counts as a cut.
    jumps = np.abs(np.diff(numbers, prepend=numbers[:1])) > MAX_STEP
    label = np.cumsum(jumps)
    stretches = []
    position = 0
    for (value, _), group in groupby(zip(values.tolist(), label.tolist(), strict=True)):
        length = len(list(group))
        stretches.append((position, position + length, value))
        position += length
    return stretches


def _faded(
    runs: Sequence[Run],
    numbers: Int32[np.ndarray, " k"],
    survey: Survey,
    fade_slots: int,
) -> list[Run]:
    """Fade mouths in and out where the same shot continues without them: not where the same person
    is redrawn in the slot beside, as another track (lost for an instant) or in another turn."""
    begins = {(run.person, run.first) for run in runs}
    ends = {(run.person, run.end) for run in runs}
    faded = []
    for run in runs:
        shot = _shot_of(survey.tracks[run.track], survey)
        near = [slot for slot in (run.first - 1, run.end) if 0 <= slot < len(numbers)]
        shown = {slot for slot in near if shot.first <= numbers[slot] < shot.end}
        strength = run.strength.copy()
        rise = np.arange(1, len(run) + 1, dtype=np.float32) / (fade_slots + 1)
        if run.first - 1 in shown and (run.person, run.first) not in ends:
            strength = np.minimum(strength, rise)
        if run.end in shown and (run.person, run.end) not in begins:
            strength = np.minimum(strength, rise[::-1])
        faded.append(replace(run, strength=strength))
    return faded


def _shot_of(track: Track, survey: Survey) -> Shot:
    return next(shot for shot in survey.shots if shot.first <= track.first < shot.end)


def edited_tracks(
    plan: Plan, survey: Survey, times: FrameTimes, *, voiced_turns: Collection[int] = ()
) -> dict[int, Int32[np.ndarray, " _"]]:
    """The tracks that a plan, possibly edited by hand, redraws: for each of their frames
    LEFT_ALONE, AS_PERSON, or the number of the turn if it is in `voiced_turns`.

    If a plan has turns, they decide, except for faces outside of them that were selected by hand.
    """
    edited = {}
    for index, face in planned_faces(plan, survey, times).items():
        track = survey.tracks[index]
        frames = np.full(len(track.boxes), AS_PERSON, dtype=np.int32)
        if plan.turns is not None and face.edit == (face.reason != NO_TURN):
            frames = _in_turns(plan.turns, track, times, voiced_turns)
        elif not face.edit:
            continue
        edited[index] = frames
    return edited


def _in_turns(
    turns: Sequence[Turn], track: Track, times: FrameTimes, voiced_turns: Collection[int]
) -> Int32[np.ndarray, " n"]:
    frames = np.full(len(track.boxes), LEFT_ALONE, dtype=np.int32)
    for number, turn in enumerate(turns):
        speaking = speaking_frames([turn], track.person, times)[track.first : track.end]
        frames[speaking] = number if number in voiced_turns else AS_PERSON
    return frames


def slot_entries(timeline: Timeline, *, fps: Fraction, num_slots: int) -> Int32[np.ndarray, " k"]:
    """Slot k of the model's grid => index of the output frame it shows: the last one whose start,
    rounded to a slot, is at most k."""
    arrivals = slot_of(timeline, fps=fps)
    slots = np.arange(num_slots)
    return (np.searchsorted(arrivals, slots, side="right") - 1).clip(0).astype(np.int32)


def slot_of(timeline: Timeline, *, fps: Fraction) -> Int32[np.ndarray, " m"]:
    """The start of every output frame, rounded half up to a slot."""
    per_tick = timeline.time_base * fps
    twice = 2 * timeline.starts.astype(np.int64) * per_tick.numerator + per_tick.denominator
    return (twice // (2 * per_tick.denominator)).astype(np.int32)
