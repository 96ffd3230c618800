"""A plan on the model's grid: in which slots each face is redrawn, and why not in the others."""

from collections.abc import Mapping
from fractions import Fraction
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float, Int32, Shaped

from latentsync.faces.tracking.survey import Shot, Survey, Track, usable
from latentsync.media.frame_reader import Timeline
from latentsync.pipeline.chunks import Run
from latentsync.pipeline.plan import AS_PERSON, LEFT_ALONE, Choice

NOT_SELECTED = "only faces that faces.select, or the plan, leaves out"
NOT_SPEAKING = "nobody who is there speaks, as the turns say"
NOT_USABLE = -3  # beside what a plan makes of a frame
# Stored frames that the video moves on by from slot to slot, at most (10 at 240 fps).
MAX_STEP = 16


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
            runs.append(Run(index, track.person, first, end, shown.astype(np.float32), own))
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
