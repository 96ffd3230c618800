"""Where the face of a track sits in each of its frames."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from latentsync.faces import ALIGNERS, Placement, SmoothAligner
from latentsync.faces.align import Aligner
from latentsync.faces.survey import Survey

TRACKS_AT_HAND = 8
SMOOTH_FPS = 25.0  # the rate that the smoothing's width is meant at


class Places:
    """Placements by track and number of the stored frame; a track's are made at its first use."""

    def __init__(self, survey: Survey, make_aligner: Callable[[], Aligner]) -> None:
        self.survey = survey
        self.make_aligner = make_aligner
        self.of_track = lru_cache(maxsize=TRACKS_AT_HAND)(self._of_track)

    def at(self, track: int, number: int) -> Placement | None:
        """None where the face was not seen, and outside the track."""
        place = number - self.survey.tracks[track].first
        placements = self.of_track(track)
        return placements[place] if 0 <= place < len(placements) else None

    def _of_track(self, track: int) -> list[Placement | None]:
        seen = (
            None if np.isnan(points).any() else points.astype(np.float64)
            for points in self.survey.tracks[track].points
        )
        return list(self.make_aligner().placements(seen))


def aligner_for(name: str, resolution: int, *, fps: float) -> Aligner:
    """A new aligner; smoothing spans the same time at every frame rate."""
    if name == "smooth":
        scale = max(1.0, fps / SMOOTH_FPS)
        return SmoothAligner(resolution, sigma_frames=1.5 * scale, radius=round(4 * scale))
    return ALIGNERS[name](resolution)
