"""Cuts of real clips: labelled ones are detected, and no others."""

from collections import Counter
from pathlib import Path

import pytest
from wild_scores import cut_rates, match_cuts

from latentsync.faces.tracking.shots import shots_of
from latentsync.media.frame_reader import stored_frames

# A few seconds of every difficulty: blends, dark jump cuts, flashes, a black frame, fast heads, a
# fade.
SHORT = [
    "cs_movie.mp4",
    "fr_hamilton.mp4",
    "gh_dance.mp4",
    "gh_nggyup.mp4",
    "kb_avenger2.mp4",
    "kb_friends.mp4",
    "lp_d12.mp4",
    "luoyebai.mp4",
    "pf_face_noface.mov",
    "vd_news.mp4",
]


def cuts_of(path: Path) -> list[int]:
    frames = (frame for _, _, frame in stored_frames(path, quick=True))
    lengths = [sum(1 for _ in shot) for shot in shots_of(frames)]
    return [sum(lengths[:index]) for index in range(1, len(lengths))]


def counted(names: list[str], labels: dict[str, dict], clips: dict[str, Path]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(match_cuts(cuts_of(clips[name]), labels[name]["cuts"]))
    return counts


def test_hard_clips_have_all_their_cuts_and_no_others(
    labels: dict[str, dict], clips: dict[str, Path]
) -> None:
    counts = counted(SHORT, labels, clips)
    assert counts["false"] == counts["double"] == 0
    assert counts["missed"] <= 1  # of vd_news: the same man in the same picture
    assert counts["found"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "precision", "recall"),
    [({"photo"}, 0.98, 0.97), ({"game", "drawn", "none"}, 0.7, 0.7)],
)
def test_precision_and_recall(
    kinds: set[str],
    precision: float,
    recall: float,
    labels: dict[str, dict],
    clips: dict[str, Path],
) -> None:
    """Enough of the others that all together stay above .93 and .95."""
    names = [name for name, label in labels.items() if label["kind"] in kinds]
    rates = cut_rates(counted(names, labels, clips))
    assert rates["P"] >= precision
    assert rates["R"] >= recall
