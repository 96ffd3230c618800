"""How much of a clip's speech its face speaks: little of a voice-over or of a listener."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from latentsync.models.speaker_scorers import (
    SCORE_SLOTS,
    ActiveSpeakerScorer,
    LRASDScorer,
    MouthMotionScorer,
    Undecided,
    film_of_faces,
    heard_slots,
    moving_mean,
)
from latentsync.prepare.stage import AlignedSegment
from latentsync.weights import load_official_lr_asd

# Scores above which a face speaks. On labelled real clips, speakers are above for .62 of what is
# heard and more (.65 by mouth and loudness), listeners for .24 and less (.30; one .56, one 1).
SPEAKS, MOUTH_SPEAKS = -0.75, -0.5
MIN_HEARD = 25  # slots of 40 ms: less speech tells nothing


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
        film = film_of_faces(
            aligned.faces, aligned.waveform, fps=self.fps, openings=aligned.openings
        )
        heard = heard_slots(film.waveform, len(film))
        if heard.sum() < MIN_HEARD:
            return None
        try:
            (scores,) = self.scorer(film)
        except Undecided:
            return None
        least = MOUTH_SPEAKS if self.weights is None else SPEAKS
        return float((moving_mean(scores, SCORE_SLOTS)[heard] > least).mean())
