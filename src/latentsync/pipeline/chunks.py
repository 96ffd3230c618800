"""A plan on the model's grid of slots: in which runs of slots each face is redrawn, why it is not
in the others, and the chunks of a run that the network generates at once.

Chunks of a run overlap and cross-fade, so that no seam stands between them, and the last one ends
with the run instead of being short.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Shaped

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
NOT_USABLE = -3  # beside what a plan makes of a frame
# Stored frames that the video moves on by from slot to slot, at most (10 at 240 fps).
MAX_STEP = 16


Reference = Literal["auto", "previous", "self"]


@dataclass(frozen=True, slots=True)
class Run:
    """Slots `first` to `end` (exclusive) in which the face of a track is redrawn.

    `strength` says how much of the drawn mouth is shown in each slot: 0 (the source) to 1. `turn`
    is the number of a turn that has a voice of its own. `holds`: its last mouth stays until a cut,
    or the end, which follows: frames between two slots are of the later one.
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
    """Slots that the network draws at once; `weights` is their share in the result.

    `reference` are the slots whose faces are shown unmasked beside them.
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
        """The slot behind the last one whose face must be at hand."""
        return max(self.end, int(self.reference.max()) + 1)


def cut_chunks(
    runs: Sequence[Run],
    *,
    length: int,
    overlap: int,
    reference: str = "previous",
    short_last: bool = False,
) -> list[Chunk]:
    """The windows of all runs, in the order in which their faces come.

    `reference`: the faces shown unmasked beside a window are those a window before ("previous") or
    its own ("self"). `short_last`: windows follow each other and the last one stays short, as in
    the official pipeline; else it reaches back to be full, unless the whole run is shorter than a
    window.
    """
    if not 0 <= overlap <= length // 2:
        raise ValueError(f"overlap={overlap} must lie between 0 and half a window, {length // 2}")
    chunks = [
        chunk
        for index, run in enumerate(runs)
        for chunk in _of_run(index, run, length, overlap, reference, short_last)
    ]
    return sorted(chunks, key=lambda chunk: (chunk.needs_until, chunk.run, chunk.first))


def _of_run(
    index: int, run: Run, length: int, overlap: int, reference: str, short_last: bool
) -> list[Chunk]:
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
        shown = slots if reference == "self" else apart(slots, run, length)
        chunks.append(Chunk(index, start, end, weights, shown))
    return chunks


def _ramp(slots: Int[np.ndarray, " n"], before_end: int, overlap: int) -> Float32[np.ndarray, " n"]:
    """The share of a window that follows one which ends at `before_end`: from 0 to 1 within the
    last `overlap` slots of that one."""
    return ((slots - before_end + overlap + 1) / (overlap + 1)).clip(0, 1).astype(np.float32)


def apart(slots: Int[np.ndarray, " n"], run: Run, length: int) -> Int[np.ndarray, " n"]:
    """Slots of the run a window away: before, else behind, else half the run apart in a circle.

    Networks are trained with references from another time; the face's own mouth would leak.
    """
    if slots[0] - length >= run.first:
        return slots - length
    if slots[-1] + length < run.end:
        return slots + length
    return run.first + (slots - run.first + len(run) // 2) % len(run)


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
    """The runs of all edited faces, and for every slot why it is left alone ("" where it is not).

    Only the first `num_spoken` slots have sound to speak.
    """
    numbers = timeline.numbers[entries]
    left = np.array(["no face found"] * len(numbers), dtype=object)
    runs: list[Run] = []
    left[num_spoken:] = "after the end of the sound"
    heard = np.arange(len(numbers)) < num_spoken
    least = max(1, round(choice.min_seconds * float(fps)))
    # Those that are redrawn come last: what is wrong with them is what counts.
    for index in sorted(range(len(survey.tracks)), key=lambda index: (index in edited, index)):
        track, shot = survey.tracks[index], _shot_of(survey.tracks[index], survey)
        wanted = _wanted_slots(track, edited.get(index), numbers, heard, choice, left)
        in_shot = heard & (shot.first <= numbers) & (numbers < shot.end)
        for first, end, is_usable in _stretches(wanted != NOT_USABLE, numbers):
            # A shot, or a voice, may itself be as short as that.
            if is_usable and end - first < min(least, int(in_shot.sum())):
                wanted[first:end] = NOT_USABLE
                left[first:end] = (
                    f"face seen for less than faces.min_seconds={choice.min_seconds:g} s"
                )
        for first, end, turn in _stretches(wanted, numbers):
            if turn in (NOT_USABLE, LEFT_ALONE):
                continue
            shown = _fades(first, end, numbers, survey, track, choice.fade_slots)
            own = None if turn == AS_PERSON else turn
            holds = end == len(numbers) or not shot.first <= numbers[end] < shot.end
            strength = shown.astype(np.float32)
            runs.append(Run(index, track.person, first, end, strength, own, holds))
    for run in runs:
        left[run.first : run.end] = ""
    return sorted(runs, key=lambda run: run.first), list(left)


def _wanted_slots(
    track: Track,
    frames: Int32[np.ndarray, " n"] | None,
    numbers: Int32[np.ndarray, " k"],
    heard: Bool[np.ndarray, " k"],
    choice: Choice,
    left: Shaped[np.ndarray, " k"],
) -> Int32[np.ndarray, " k"]:
    """What becomes of the track in every slot; why, where it is left alone, is noted in `left`."""
    fine, reasons = usable(track, min_size=choice.min_size, max_yaw=choice.max_yaw)
    inside = heard & (numbers >= track.first) & (numbers < track.first + len(track.boxes))
    positions = np.where(inside, numbers - track.first, 0)
    for slot in np.flatnonzero(inside):
        if frames is None or not fine[positions[slot]]:
            left[slot] = reasons[positions[slot]] or NOT_SELECTED
    if frames is None:
        return np.full(len(numbers), NOT_USABLE, dtype=np.int32)
    wanted = np.where(inside & fine[positions], frames[positions], NOT_USABLE).astype(np.int32)
    left[wanted == LEFT_ALONE] = NOT_SPEAKING
    left[wanted == HIDDEN] = BEHIND
    wanted[wanted == HIDDEN] = NOT_USABLE
    return wanted


def _stretches(
    values: Shaped[np.ndarray, " k"], numbers: Int32[np.ndarray, " k"]
) -> list[tuple[int, int, int]]:
    """Slots in a row of one value in which the video plays on, forwards or backwards."""
    # A repeat from the start is a cut as well.
    jumps = np.abs(np.diff(numbers, prepend=numbers[:1])) > MAX_STEP
    label = np.cumsum(jumps)
    stretches = []
    position = 0
    for (value, _), group in groupby(zip(values.tolist(), label.tolist(), strict=True)):
        length = len(list(group))
        stretches.append((position, position + length, value))
        position += length
    return stretches


def _shot_of(track: Track, survey: Survey) -> Shot:
    return next(shot for shot in survey.shots if shot.first <= track.first < shot.end)


def _fades(
    first: int,
    end: int,
    numbers: Int32[np.ndarray, " k"],
    survey: Survey,
    track: Track,
    fade_slots: int,
) -> Float[np.ndarray, " n"]:
    """1, rising from and falling to 0 where the same shot goes on without the face."""
    shot = _shot_of(track, survey)

    def goes_on(slot: int) -> bool:
        return 0 <= slot < len(numbers) and bool(shot.first <= numbers[slot] < shot.end)

    length = end - first
    positions = np.arange(length)
    strength = np.ones(length)
    if fade_slots and goes_on(first - 1):
        strength = np.minimum(strength, (positions + 1) / (fade_slots + 1))
    if fade_slots and goes_on(end):
        strength = np.minimum(strength, (length - positions) / (fade_slots + 1))
    return strength


def edited_tracks(
    plan: Plan, survey: Survey, times: FrameTimes, *, voiced_turns: Collection[int] = ()
) -> dict[int, Int32[np.ndarray, " _"]]:
    """The tracks that a plan, maybe edited by hand, wants redrawn: for each of their frames
    LEFT_ALONE, AS_PERSON, or the number of the turn, of those in `voiced_turns`.

    Where a plan has turns these decide, but for a face that they leave out and a hand took in.
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
    """Slot k of the model's grid => the timeline's entry that it shows: the last one whose start,
    rounded to a slot, is k or less."""
    arrivals = slot_of(timeline, fps=fps)
    slots = np.arange(num_slots)
    return (np.searchsorted(arrivals, slots, side="right") - 1).clip(0).astype(np.int32)


def slot_of(timeline: Timeline, *, fps: Fraction) -> Int32[np.ndarray, " m"]:
    """Every entry's start, rounded half up to a slot."""
    per_tick = timeline.time_base * fps
    twice = 2 * timeline.starts.astype(np.int64) * per_tick.numerator + per_tick.denominator
    return (twice // (2 * per_tick.denominator)).astype(np.int32)
