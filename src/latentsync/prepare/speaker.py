"""Whether a recording can teach one speaker's lips: enough speech, of one person, that is heard."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.faces.detectors.base import Face, FaceDetector
from latentsync.faces.tracking.identity import Appearance, ColorEmbedder, number_people
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.silence import BLOCK_SECONDS, SilenceGate
from latentsync.media.video import probe, read_frames
from latentsync.prepare.sound import loudest_db
from latentsync.prepare.states import heard

# As the limit of the same measure in conf/prepare: talking heads have -39 and more.
DEAD_DB = -50.0
PAUSE_SECONDS = 1.0  # longer ones are no speech
NUM_LOOKS = 32  # frames in which people are counted
MIN_LOOKS = 3  # someone seen less often passes by, or is no face
MIN_HEIGHT = 0.4  # of the largest face of a frame; smaller ones are in the background


@dataclass(frozen=True, slots=True)
class Demands:
    """What a recording of one speaker must have; `max_persons` None does not count people."""

    min_seconds: float = 15.0
    max_persons: int | None = 1


def check_sound(video: Path, demands: Demands) -> None:
    """ValueError if a recording's sound is dead, or holds less speech than is needed."""
    if not probe(video).has_audio:
        raise ValueError(f"{video} has no sound: the speaker's own voice is needed, in sync")
    waveform = read_waveform(video)
    loudest = loudest_db(waveform)
    if loudest < DEAD_DB:
        raise ValueError(
            f"the sound of {video} is dead ({loudest:.0f} dB in its loudest second, {DEAD_DB:.0f} "
            "dB are needed): give a recording with the speaker's own voice"
        )
    _check_seconds(speech_seconds(waveform), video, demands, "speech")


def check_clips(clips: Iterable[Clip], video: Path, demands: Demands) -> float:
    """The seconds of speech in prepared clips; ValueError if there are too few."""
    seconds = sum(speech_seconds(heard(clip)) for clip in clips)
    _check_seconds(seconds, video, demands, "speech with a face that can be redrawn")
    return seconds


def _check_seconds(seconds: float, video: Path, demands: Demands, what: str) -> None:
    if seconds < demands.min_seconds:
        raise ValueError(
            f"{video} holds {seconds:.1f} s of {what}, {demands.min_seconds:g} s are needed: give "
            "a longer recording (a minute is good; two halves can be joined into one file)"
        )


def speech_seconds(waveform: Float[Tensor, " t"]) -> float:
    """Seconds that are not silent; short pauses belong to speech."""
    silent = SilenceGate(min_seconds=PAUSE_SECONDS).silent(waveform, SAMPLE_RATE)
    return float((~silent).sum() * BLOCK_SECONDS)


def check_persons(video: Path, detector: FaceDetector, demands: Demands) -> None:
    """ValueError if a recording shows more people than allowed, together or one after another."""
    if demands.max_persons is None:
        return
    looks = frames_spread_over(video, NUM_LOOKS)
    found = persons_in(looks, detector)
    if found > demands.max_persons:
        raise ValueError(
            f"{video} shows {found} people, a model is adapted to {demands.max_persons}: cut or "
            "crop it to the one speaker (adapt.demands.max_persons=null does not look, and takes "
            "the largest face)"
        )


def persons_in(frames: Iterable[UInt8[np.ndarray, "h w 3"]], detector: FaceDetector) -> int:
    """The number of people seen in several of the frames, told apart by their faces."""
    embedder = detector.identity or ColorEmbedder()
    appearances = [
        Appearance(number, number + 1, face.box, face.box, embedder(frame, face))
        for number, frame in enumerate(frames)
        for face in in_front(detector(frame))
    ]
    people = Counter(number_people(appearances, limit=embedder.limit))
    return sum(count >= MIN_LOOKS for count in people.values())


def in_front(faces: Iterable[Face]) -> list[Face]:
    """The faces that can be redrawn and are not much smaller than the largest."""
    faces = [face for face in faces if face.can_be_aligned]
    heights = [float(face.box[3] - face.box[1]) for face in faces]
    least = MIN_HEIGHT * max(heights, default=0.0)
    return [face for face, height in zip(faces, heights, strict=True) if height >= least]


def frames_spread_over(video: Path, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """At most `count` frames, evenly spread over a video."""
    seconds = probe(video).duration_seconds
    yield from islice(read_frames(video, fps=count / seconds), count)
