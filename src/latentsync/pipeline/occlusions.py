"""Detect what hides the faces to be redrawn, once, before anything is generated."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int32

from latentsync.faces.mask import ALL_ROWS, Rows, load_mask
from latentsync.faces.occlusion import SIDE, OcclusionMasker, steadied
from latentsync.faces.tracking.occlusion import MIN_SHARE, CoveredFrames, OcclusionTracker
from latentsync.faces.tracking.survey import usable
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameReader, Timeline
from latentsync.pipeline.analysis import Placements, VideoAnalysis, aligner_for
from latentsync.pipeline.checks import Inputs
from latentsync.pipeline.plan import HIDDEN, LEFT_ALONE
from latentsync.pipeline.request import Request, Session
from latentsync.runtime import Bar

CALM_FRAMES = 8  # maximum gap between two hidden frames that is left alone too


@dataclass(frozen=True, slots=True)
class Occlusions:
    """What hides faces, by track."""

    tracks: dict[int, CoveredFrames] = field(default_factory=dict)

    def mask_at(self, track: int, number: int, resolution: int) -> Float[np.ndarray, "r r"] | None:
        """Alpha of what stays the source's in a face at a frame, 0 to 1; None if nothing does."""
        seen = self.tracks.get(track)
        return steadied(seen, number, resolution=resolution) if seen else None

    def share(self, track: int, number: int) -> float:
        """The hidden fraction of the painted part of a face."""
        seen = self.tracks.get(track)
        return seen.shares.get(number, 0.0) if seen else 0.0

    def hides(self, track: int, numbers: Int32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether the mouth of a face is hidden in frames."""
        return np.array(
            [self.share(track, number) > MIN_SHARE for number in numbers.tolist()], bool
        )

    def leave_out(
        self, edited: Mapping[int, Int32[np.ndarray, " _"]], firsts: Mapping[int, int]
    ) -> dict[int, Int32[np.ndarray, " _"]]:
        """The edits of tracks, with HIDDEN in frames whose mouth is hidden."""
        without = {}
        for track, frames in edited.items():
            hidden = self.hides(track, firsts[track] + np.arange(len(frames), dtype=np.int32))
            without[track] = np.where(
                (frames != LEFT_ALONE) & with_calm_closed(hidden), HIDDEN, frames
            ).astype(np.int32)
        return without


def with_calm_closed(hidden: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Short gaps between hidden frames count as hidden too."""
    closed = hidden.copy()
    at = np.flatnonzero(hidden)
    for before, after in zip(at[:-1].tolist(), at[1:].tolist(), strict=True):
        if after - before <= CALM_FRAMES:
            closed[before:after] = True
    return closed


def occlusions_of(
    request: Request,
    inputs: Inputs,
    found: VideoAnalysis,
    edited: Mapping[int, Int32[np.ndarray, " _"]],
    timeline: Timeline,
    session: Session,
) -> Occlusions:
    """What hides the edited mouths in the frames that the output shows."""
    choice, form = request.choice, session.model.format
    if session.masker is None or choice.occlusion == "off":
        return Occlusions()
    shown = frozenset(timeline.numbers.tolist())
    wanted = {}
    for index, frames in edited.items():
        track = found.survey.tracks[index]
        fine, _ = usable(track, min_size=choice.min_size, max_yaw=choice.max_yaw)
        numbers = track.first + np.flatnonzero(fine & (frames != LEFT_ALONE))
        wanted[index] = shown.intersection(numbers.tolist())
    numbers = np.array(sorted(frozenset().union(*wanted.values())), dtype=np.int32)
    rate = len(found.times) / max(found.times.seconds, 1e-3)
    reader = FrameReader(request.source.path, found.times, deinterlace=request.timing.deinterlace)
    bar = Bar("hands", len(numbers), session.progress)

    def pictures() -> Iterator[Picture]:
        for picture in reader.pictures(numbers.tolist()):
            bar.update()
            yield picture

    with session.stopwatch.stage("occlusion"), bar, inputs.watched():
        return find_occlusions(
            session.masker,
            pictures(),
            numbers,
            wanted,
            Placements(found.survey, partial(aligner_for, form.aligner, form.resolution, fps=rate)),
            mask=form.mask,
            rows=choice.mask_rows,
        )


def find_occlusions(
    masker: OcclusionMasker,
    pictures: Iterable[Picture],
    numbers: Int32[np.ndarray, " n"],
    wanted: Mapping[int, frozenset[int]],
    placements: Placements,
    *,
    mask: str,
    rows: Rows = ALL_ROWS,
) -> Occlusions:
    """Examine `pictures`, the frames `numbers` in ascending order, for each track in its `wanted`
    frames."""
    painted = load_mask(mask, SIDE, rows=rows) < 0.5
    trackers = {track: OcclusionTracker(masker, painted) for track in wanted}
    for number, picture in zip(numbers.tolist(), pictures, strict=True):
        for track, tracker in trackers.items():
            placement = placements.at(track, number) if number in wanted[track] else None
            if placement is not None:
                tracker(number, picture.rgb, placement)
    seen = {track: tracker.finish() for track, tracker in trackers.items()}
    return Occlusions({track: covered for track, covered in seen.items() if covered})
