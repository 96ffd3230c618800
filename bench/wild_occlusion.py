"""Whether what hides labelled mouths is kept, and free mouths are redrawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from wild_scores import Label, Span, in_spans, share

from latentsync.faces.occlusion import OcclusionMasker
from latentsync.faces.tracking.occlusion import MIN_SHARE
from latentsync.faces.tracking.survey import Survey, Track, usable
from latentsync.media.frame_reader import FrameReader, FrameTimes
from latentsync.pipeline.analysis import Placements, aligner_for
from latentsync.pipeline.occlusions import Occlusions, find_occlusions

MIN_SIZE = 32.0
HAND = "hand"
# Labels by eye are that many frames off where a hand comes or goes, which takes .3 to .5 s: frames
# nearer than that to an end of a span, on either side, are doubtful and count for nothing.
EDGE_FRAMES = 5

NamedTracks = Sequence[tuple[Track, str | None]]


def occlusion_figures(
    path: Path,
    survey: Survey,
    times: FrameTimes,
    named: NamedTracks,
    label: Label,
    *,
    max_yaw: float,
    masker: OcclusionMasker | None,
    edge: int = EDGE_FRAMES,
) -> dict[str, int]:
    """Counts of frames of the people whose mouths are hidden at times, for clips with such labels.

    Hidden mouths, by hands and by other things: all, those whose face is left alone anyway, and
    those masked. Free faces that would be redrawn: all, and those of which nothing is masked.
    `edge`: frames on either side of each end of a span that count for nothing.
    """
    spans = label["occlusion_spans"]
    tracks = {
        index: usable(track, min_size=MIN_SIZE, max_yaw=max_yaw)[0]
        for index, (track, name) in enumerate(named)
        if any(span["person"] == name for span in spans)
    }
    seen = Occlusions()
    if masker is not None and tracks:
        seen = occlusions_in(path, survey, times, tracks, masker)
    counts: Counter[str] = Counter()
    for span in spans:
        if not span.get("doubtful"):
            counts += hidden_frames(span, named, tracks, seen, edge=edge)
    for index, fine in tracks.items():
        track, name = named[index]
        own = [
            (span["span"][0] - edge, span["span"][1] + edge)
            for span in spans
            if span["person"] == name
        ]
        counts += free_frames(index, track, fine, own, seen)
    return dict(counts)


def occlusions_in(
    path: Path,
    survey: Survey,
    times: FrameTimes,
    tracks: Mapping[int, Bool[np.ndarray, " _"]],
    masker: OcclusionMasker,
) -> Occlusions:
    """What hides the faces of these tracks in their usable frames, as a run looks for it."""
    wanted = {
        index: frozenset((survey.tracks[index].first + np.flatnonzero(fine)).tolist())
        for index, fine in tracks.items()
    }
    numbers = np.array(sorted(frozenset().union(*wanted.values())), dtype=np.int32)
    rate = len(times) / max(times.seconds, 1e-3)
    return find_occlusions(
        masker,
        FrameReader(path, times).pictures(numbers.tolist()),
        numbers,
        wanted,
        Placements(survey, partial(aligner_for, "smooth", 256, fps=rate)),
        mask="mask",
    )


def hidden_frames(
    span: Label,
    named: NamedTracks,
    tracks: Mapping[int, Bool[np.ndarray, " _"]],
    seen: Occlusions,
    *,
    edge: int,
) -> Counter[str]:
    """Counts of the frames of a span in which something hides the mouth, `edge` from its ends."""
    kind = HAND if HAND in span.get("by", "") else "other"
    first, last = span["span"]
    counts: Counter[str] = Counter()
    for number in range(first + edge, last - edge + 1):
        redrawn = [
            index
            for index, fine in tracks.items()
            if named[index][1] == span["person"] and is_fine(named[index][0], fine, number)
        ]
        counts[f"{kind}_frames"] += 1
        counts[f"{kind}_left_alone"] += not redrawn
        shares = [seen.share(index, number) for index in redrawn]
        counts[f"{kind}_masked"] += bool(shares) and min(shares) > MIN_SHARE
    return counts


def is_fine(track: Track, fine: Bool[np.ndarray, " _"], number: int) -> bool:
    place = number - track.first
    return 0 <= place < len(fine) and bool(fine[place])


def free_frames(
    index: int, track: Track, fine: Bool[np.ndarray, " n"], hidden: Sequence[Span], seen: Occlusions
) -> Counter[str]:
    """Counts of the frames in which nothing hides the mouth of a face that would be redrawn."""
    counts: Counter[str] = Counter()
    for number in (track.first + np.flatnonzero(fine)).tolist():
        if not in_spans(number, hidden):
            counts["free_frames"] += 1
            counts["free_painted"] += seen.share(index, number) <= MIN_SHARE
    return counts


def occlusion_rates(sums: Mapping[str, int]) -> dict[str, float | None]:
    """Shares of hidden frames that stay the source's, and of free frames that are redrawn."""
    rates = {
        f"{kind}_kept_share": share(
            sums.get(f"{kind}_masked", 0) + sums.get(f"{kind}_left_alone", 0),
            sums.get(f"{kind}_frames", 0),
        )
        for kind in (HAND, "other")
    }
    return {
        **rates,
        "painted_share": share(sums.get("free_painted", 0), sums.get("free_frames", 0)),
    }
