"""Who of several persons speaks in a video: whose mouth moves with its sound."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from latentsync.faces.tracking.survey import Survey
from latentsync.media.frame_reader import FrameTimes
from latentsync.pipeline.silence import BLOCK_SECONDS, levels_db

MAX_LAG_SECONDS = 0.2
MIN_FRAMES = 12
NO_FIT = -1.0


def find_speaker(
    survey: Survey, times: FrameTimes, waveform: Float[Tensor, " t"], sample_rate: int
) -> int:
    """The person whose mouth opening goes best with the loudness of the video's own sound."""
    fits = {
        person: fit_of(person, survey, times, waveform, sample_rate)
        for person in sorted({track.person for track in survey.tracks})
    }
    if not fits:
        raise ValueError("faces.select=speaker: the video shows no face")
    if not any(np.isfinite(track.openings).any() for track in survey.tracks):
        raise ValueError(
            "faces.select=speaker needs to see mouths open, which this detector's points do not "
            "tell: take faces=mesh, or name a person (faces.select=0; plan=true lists them)"
        )
    if len(fits) > 1 and max(fits.values()) == NO_FIT:
        raise ValueError(
            "faces.select=speaker cannot tell who speaks: the video's sound does not change, or no "
            f"mouth is seen in {MIN_FRAMES} frames; name a person (faces.select=0; plan=true "
            "lists them)"
        )
    return max(fits, key=lambda person: fits[person])


def fit_of(
    person: int,
    survey: Survey,
    times: FrameTimes,
    waveform: Float[Tensor, " t"],
    sample_rate: int,
) -> float:
    """The best correlation of a person's mouth opening with the loudness, within 0.2 s."""
    level = levels_db(waveform, sample_rate)
    seconds, openings = _openings(person, survey, times)
    if len(openings) < MIN_FRAMES:
        return NO_FIT
    lags = np.arange(-MAX_LAG_SECONDS, MAX_LAG_SECONDS + 1e-9, BLOCK_SECONDS * 2)
    return max(_correlation(openings, _at(level, seconds + lag)) for lag in lags)


def _openings(
    person: int, survey: Survey, times: FrameTimes
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    seconds, openings = [], []
    for track in survey.tracks:
        if track.person == person:
            numbers = track.first + np.flatnonzero(np.isfinite(track.openings))
            seconds.append(times.starts[numbers] * float(times.time_base))
            openings.append(track.openings[numbers - track.first].astype(float))
    return np.concatenate(seconds), np.concatenate(openings)


def _at(
    level: Float[np.ndarray, " b"], seconds: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    blocks = (seconds / BLOCK_SECONDS).astype(int).clip(0, len(level) - 1)
    return level[blocks].astype(float)


def _correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / spread) if spread > 0 else NO_FIT
