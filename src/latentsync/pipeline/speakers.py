"""Who of several persons speaks when in a video: by its own sound, or as an RTTM file says."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from latentsync.faces.tracking.survey import Survey
from latentsync.media.audio import read_waveform
from latentsync.media.container import warn
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameReader, FrameTimes
from latentsync.media.video import VideoInfo
from latentsync.pipeline.film_slots import SAMPLE_RATE, SLOTS_PER_SECOND, FilmSlots
from latentsync.pipeline.plan import Plan
from latentsync.pipeline.speaker_scorers import (
    ActiveSpeakerScorer,
    MouthMotionScorer,
    score_matrix,
)
from latentsync.pipeline.turns import (
    DOUBTFUL,
    Turn,
    check_turns,
    likeliest_course,
    read_rttm,
    turns_of,
)
from latentsync.runtime import Bar, Progress


@dataclass(frozen=True, slots=True)
class SpeakerChoice:
    """How it is told who speaks: by the turns of an RTTM file, else by a scorer; without either by
    mouths and loudness."""

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
    """The turns of a video; ValueError if nobody who is seen can be told to speak."""
    persons = persons_of(survey)
    if choice.rttm is not None:
        turns = read_rttm(choice.rttm)
        check_turns(turns, persons, times.seconds, where=f"turns={choice.rttm}")
        return turns
    if not source.has_audio:
        raise ValueError(f"faces.select=speaker: {source.path} has no sound to tell who speaks")
    # Half a soundtrack tells who speaks, too.
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
    """The likeliest turns in a film; ValueError if there is none."""
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


def check_plan(plan: Plan, survey: Survey, times: FrameTimes) -> None:
    """ValueError if the turns of a plan, maybe edited by hand, cannot be."""
    check_turns(plan.turns or [], persons_of(survey), times.seconds, where="the plan")


def check_speeches(
    names: Sequence[int | str], turns: Sequence[Turn] | None, survey: Survey
) -> list[int]:
    """The turns that have voices of their own; ValueError for names of `assign` that are neither
    a person nor a turn."""
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


def doubts_of(plan: Plan) -> list[str]:
    """A line on turns that might be somebody else's."""
    doubtful = [turn for turn in plan.turns or [] if turn.confidence < DOUBTFUL]
    if not doubtful:
        return []
    worst = min(doubtful, key=lambda turn: turn.confidence)
    return [
        f"who speaks is doubtful in {len(doubtful)} of {len(plan.turns or [])} turns, most from "
        f"{worst.start:g} to {worst.end:g} s (person {worst.person}, confidence "
        f"{worst.confidence:.2f}): look at the turns with plan=true"
    ]
