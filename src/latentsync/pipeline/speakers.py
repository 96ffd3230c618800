"""Determine who of several persons speaks when: turns, from the video's own sound or an RTTM
file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int

from latentsync.faces.tracking.survey import Survey
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.container import warn
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameReader, FrameTimes
from latentsync.media.video import VideoInfo
from latentsync.models.speaker_scorers import (
    SLOTS_PER_SECOND,
    ActiveSpeakerScorer,
    FilmSlots,
    MouthMotionScorer,
    score_matrix,
)
from latentsync.runtime import Bar, Progress

NOBODY = -1
# Logit below which a face is not speaking: if all are, nobody speaks.
NOBODY_SCORE = -0.75
# Gain, in logits summed over slots of 40 ms, required for a change of speaker within a shot.
# Accuracy on real conversations is flat from 2 to 20.
CHANGE_COST = 10.0
DOUBTFUL = 0.6  # turns with lower confidence are reported
# Times of diarisations are rounded and refer to the sound, which may end shortly after the picture.
END_TOLERANCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """`start` to `end`, in seconds of the source, during which a person speaks; None is somebody
    off screen. `confidence` is 0 to 1."""

    start: float
    end: float
    person: int | None
    confidence: float = 1.0

    @classmethod
    def read(cls, fields: Mapping[str, object]) -> Self:
        """Parse a turn of a file; ValueError or TypeError if it is invalid."""
        turn = cls(**fields)  # type: ignore[arg-type]
        for value in (turn.start, turn.end, turn.confidence):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"a turn starts and ends at seconds, got {value!r}")
        if turn.person is not None and type(turn.person) is not int:
            raise ValueError(f"a turn's person is a number or null, got {turn.person!r}")
        return turn


@dataclass(frozen=True, slots=True)
class SpeakerChoice:
    """How speakers are determined: by the turns of an RTTM file, else by a scorer, else by mouth
    motion and loudness."""

    scorer: ActiveSpeakerScorer | None = None
    rttm: Path | None = None


def who_speaks(
    source: VideoInfo,
    survey: Survey,
    times: FrameTimes,
    choice: SpeakerChoice,
    *,
    deinterlace: str = "auto",
    progress: Progress = False,
) -> list[Turn]:
    """The turns of a video; ValueError if it cannot be determined who speaks."""
    persons = persons_of(survey)
    if choice.rttm is not None:
        turns = read_rttm(choice.rttm)
        check_turns(turns, persons, times.seconds, where=f"turns={choice.rttm}")
        return turns
    if not source.has_audio:
        raise ValueError(f"faces.select=speaker: {source.path} has no sound to tell who speaks")
    # Even a truncated soundtrack is useful.
    waveform = read_waveform(source.path, SAMPLE_RATE, on_cut=warn(source.path))
    reader = FrameReader(source.path, times, deinterlace=deinterlace)

    def read(numbers: Sequence[int]) -> Iterator[Picture]:
        bar = Bar("speakers", len(numbers), progress)
        with closing(reader.pictures(numbers)) as pictures, bar:
            for picture in pictures:
                yield picture
                bar.update()

    return find_turns(FilmSlots.of(survey, times, waveform, read), choice.scorer)


def find_turns(film: FilmSlots, scorer: ActiveSpeakerScorer | None = None) -> list[Turn]:
    """The most likely turns in a film; ValueError if there are none."""
    scores = (scorer or MouthMotionScorer())(film)
    persons = sorted({face.person for face in film.faces})
    matrix = score_matrix(film.faces, scores, persons, len(film))
    course = likeliest_course(matrix, film.cuts)
    turns = turns_of(course, matrix, persons, slots_per_second=SLOTS_PER_SECOND)
    if not turns:
        raise ValueError(
            "faces.select=speaker cannot tell who speaks: nobody's mouth goes with the video's own "
            "sound; name a person (faces.select=0; plan=true lists them), or give turns="
        )
    return turns


def persons_of(survey: Survey) -> list[int]:
    return sorted({track.person for track in survey.tracks})


def check_speeches(
    names: Sequence[int | str], turns: Sequence[Turn] | None, survey: Survey
) -> list[int]:
    """Numbers of the turns with voices of their own; ValueError for names in `assign` that are
    neither a person nor a turn."""
    persons, numbers = persons_of(survey), []
    for name in names:
        number = str(name).removeprefix("turn")
        if isinstance(name, int) and name in persons:
            continue
        if not isinstance(name, int) and int(number) < len(turns or []):
            numbers.append(int(number))
            continue
        turns_there = f"turns 0 to {len(turns) - 1}" if turns else "no turns"
        raise ValueError(
            f"assign names {name}: the video shows the persons {persons} and has {turns_there} "
            "(plan=true lists them)"
        )
    return numbers


def likeliest_course(
    scores: Float[np.ndarray, "n p"],
    cuts: Bool[np.ndarray, " n"],
    *,
    nobody_score: float = NOBODY_SCORE,
    change_cost: float = CHANGE_COST,
) -> Int[np.ndarray, " n"]:
    """Who speaks in every slot, as a column of `scores` or NOBODY, maximising the sum of scores
    minus the cost of changes (Viterbi).

    `scores` are -inf where a face is not on screen. `cuts` marks first slots of shots, where
    changes are free.
    """
    num_slots, num_persons = scores.shape
    states = np.column_stack([scores, np.full(num_slots, nobody_score)])
    came_from = np.empty((num_slots, num_persons + 1), dtype=np.int32)
    best = states[0] if num_slots else states.sum(axis=0)
    own = np.arange(num_persons + 1)
    for slot in range(1, num_slots):
        top = int(best.argmax())
        from_top = best[top] - (0.0 if cuts[slot] else change_cost)
        changes = best < from_top
        came_from[slot] = np.where(changes, top, own)
        best = np.where(changes, from_top, best) + states[slot]
    course = np.empty(num_slots, dtype=np.int64)
    state = int(best.argmax())
    for slot in range(num_slots - 1, -1, -1):
        course[slot] = state
        state = int(came_from[slot, state]) if slot else state
    return np.where(course == num_persons, NOBODY, course)


def turns_of(
    course: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, "n p"],
    persons: Sequence[int],
    *,
    slots_per_second: float,
) -> list[Turn]:
    """The stretches in which one person speaks, each with their mean probability."""
    turns, first = [], 0
    for column, group in groupby(course.tolist()):
        end = first + len(list(group))
        if column != NOBODY:
            likely = probabilities(scores[first:end])[:, column]
            turns.append(
                Turn(
                    round(first / slots_per_second, 3),
                    round(end / slots_per_second, 3),
                    persons[column],
                    round(float(likely.mean()), 3),
                )
            )
        first = end
    return turns


def probabilities(scores: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n q"]:
    """Probabilities of each person and, in the last column, of nobody, for every slot
    independently."""
    states = np.column_stack([scores, np.full(len(scores), NOBODY_SCORE)])
    weights = np.exp(states - states.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def speaking_frames(
    turns: Sequence[Turn], person: int, times: FrameTimes
) -> Bool[np.ndarray, " n"]:
    """The stored frames whose middle is in a turn of the person."""
    edges = np.append(times.starts, times.end) * float(times.time_base)
    middles = (edges[:-1] + edges[1:]) / 2
    speaking = np.zeros(len(middles), dtype=bool)
    for turn in turns:
        if turn.person == person:
            speaking |= (turn.start <= middles) & (middles < turn.end)
    return speaking


def check_turns(turns: Sequence[Turn], persons: Sequence[int], seconds: float, where: str) -> None:
    """ValueError for turns of persons who are not in the video, or at times outside of it."""
    for number, turn in enumerate(turns):
        place = f"{where}, turn {number} ({turn.start:g} to {turn.end:g} s)"
        if turn.person is not None and turn.person not in persons:
            raise ValueError(
                f"{place}: there is no person {turn.person}, the video shows the persons "
                f"{list(persons)} (plan=true lists them)"
            )
        if not 0 <= turn.start < turn.end:
            raise ValueError(f"{place}: it must end after it starts, at 0 s or later")
        if turn.end > seconds + END_TOLERANCE_SECONDS:
            raise ValueError(
                f"{place}: the video ends at {seconds:.2f} s; are these the turns of another one?"
            )


def read_rttm(path: Path) -> list[Turn]:
    """The turns of an RTTM file in order of time. Lines are `SPEAKER file channel start duration
    <NA> <NA> name <NA> <NA>`, with numbers of persons as names."""
    if not path.is_file():
        raise FileNotFoundError(f"turns={path} is not a file: check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"turns={path} is no text (UTF-8), so no RTTM file") from error
    turns = [
        _rttm_turn(line.split(), f"turns={path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith(";")
    ]
    if not turns:
        raise ValueError(f"turns={path} holds no SPEAKER line: an RTTM file has one for each turn")
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def _rttm_turn(words: Sequence[str], where: str) -> Turn:
    if len(words) < 8 or words[0] != "SPEAKER":
        raise ValueError(
            f"{where}: an RTTM line is SPEAKER FILE 1 START SECONDS <NA> <NA> PERSON <NA> <NA>, "
            f"got {' '.join(words)[:60]!r}"
        )
    try:
        start, seconds = float(words[3]), float(words[4])
    except ValueError as error:
        raise ValueError(
            f"{where}: start and duration must be seconds, got {words[3]} {words[4]}"
        ) from error
    if not (np.isfinite(start) and np.isfinite(seconds) and start >= 0 and seconds > 0):
        raise ValueError(f"{where}: start and duration must be seconds, got {start:g} {seconds:g}")
    if not words[7].isdecimal():
        raise ValueError(
            f"{where}: its speaker is called {words[7]!r}; give the number of a person instead, as "
            "plan=true lists them"
        )
    return Turn(start, round(start + seconds, 3), int(words[7]))
