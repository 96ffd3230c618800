"""How much of a clip's speech its face speaks: little of a voice-over or of a listener."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from latentsync.media.frame import Picture
from latentsync.models.speaker_scorers import (
    CROP_SCALE,
    SCORE_SLOTS,
    SLOTS_PER_SECOND,
    ActiveSpeakerScorer,
    FaceSlots,
    FilmSlots,
    LRASDScorer,
    MouthMotionScorer,
    Undecided,
    heard_slots,
    moving_mean,
)
from latentsync.prepare.stage import AlignedSegment
from latentsync.weights import load_official_lr_asd

# Scores above which a face speaks. On labelled real clips, speakers are above for .62 of what is
# heard and more (.65 by mouth and loudness), listeners for .24 and less (.30; one .56, one 1).
SPEAKS, MOUTH_SPEAKS = -0.75, -0.5
MIN_HEARD = 25  # slots of 40 ms: less speech tells nothing
ROUNDING = 1e-6  # pixels: the crop's edge is rounded down


@dataclass(kw_only=True)
class MeasureSpeaking:
    """Adds `speaking`, the share of what is heard in a clip that its face is seen to speak.

    None where that cannot be told: too little is heard, or, without weights, no mouth is measured.
    `weights`: a published file of LR-ASD; None compares the mouth with the loudness.
    """

    name: ClassVar[str] = "speaker"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment
    columns: ClassVar[tuple[str, ...]] = ("speaking",)

    weights: Path | str | None = None
    fps: float = 25.0

    @cached_property
    def scorer(self) -> ActiveSpeakerScorer:
        if self.weights is None:
            return MouthMotionScorer()
        return LRASDScorer(load_official_lr_asd(self.weights))

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        yield aligned.with_measures(speaking=self._share(aligned))

    def _share(self, aligned: AlignedSegment) -> float | None:
        film = film_of(aligned, fps=self.fps)
        heard = heard_slots(film.waveform, len(film))
        if heard.sum() < MIN_HEARD:
            return None
        try:
            (scores,) = self.scorer(film)
        except Undecided:
            return None
        least = MOUTH_SPEAKS if self.weights is None else SPEAKS
        return float((moving_mean(scores, SCORE_SLOTS)[heard] > least).mean())


def film_of(aligned: AlignedSegment, *, fps: float) -> FilmSlots:
    """The clip as scorers take it: one face, as large as the picture."""
    num_slots = max(1, round(len(aligned.faces) / fps * SLOTS_PER_SECOND))
    middles = (np.arange(num_slots) + 0.5) / SLOTS_PER_SECOND
    numbers = (middles * fps).astype(int).clip(max=len(aligned.faces) - 1)

    def read(wanted: Sequence[int]) -> Iterator[Picture]:
        return (Picture.of(aligned.faces[number]) for number in wanted)

    boxes = np.tile(whole_box(aligned.faces[0].shape[0]), (num_slots, 1))
    unknown = np.full(num_slots, np.nan)
    openings = unknown if aligned.openings is None else aligned.openings[numbers]
    face = FaceSlots(0, 0, boxes, openings)
    cuts = np.arange(num_slots) == 0
    return FilmSlots(numbers, cuts, [face], aligned.waveform, read)


def whole_box(size: int) -> Float[np.ndarray, "4"]:
    """The box whose crop is the whole aligned face."""
    half = (size / 2 - ROUNDING) / CROP_SCALE
    return np.array([size / 2 - half, size / 2 - half, size / 2 + half, size / 2 + half])
