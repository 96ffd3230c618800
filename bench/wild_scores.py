"""Scores of detections against labels; pure arithmetic, nothing is read or decoded.

Labels are those of a `labels.json`: frames are inclusive; `doubtful` ones count neither as missed
nor as false. Counts of several clips can be added; `rates` turns them into fractions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float

# A track shows somebody if at least this fraction of it lies where the person is labelled.
MIN_INSIDE = 0.3

Label = Mapping
Span = Sequence[int]
# By index of the track and person.
Hints = Mapping[tuple[int, str], float]


def match_cuts(found: Sequence[int], cuts: Sequence[Label], *, tolerance: int = 1) -> Counter[str]:
    """Numbers of found, missed, false and double cuts; `found` are the first frames of all shots
    but the first."""
    counts = Counter(found=0, missed=0, false=0, double=0)
    matched: set[int] = set()
    for cut in cuts:
        first, last = cut["at"]
        hits = {at for at in found if first - tolerance <= at <= last + tolerance}
        if not cut.get("doubtful"):
            counts["found" if hits - matched else "missed"] += 1
            counts["double"] += max(len(hits - matched) - 1, 0)
        matched |= hits
    counts["false"] = len(set(found) - matched)
    return counts


def cut_rates(counts: Mapping[str, int]) -> dict[str, float | None]:
    """Precision (a double counts as false) and recall."""
    found, wrong = counts["found"], counts["false"] + counts["double"]
    return {
        "P": share(found, found + wrong),
        "R": share(found, found + counts["missed"]),
    }


def share(part: float, whole: float) -> float | None:
    """A ratio rounded to 4 digits; None if the whole is 0."""
    return round(part / whole, 4) if whole else None


def in_spans(number: int, spans: Iterable[Span]) -> bool:
    return any(first <= number <= last for first, last in spans)


def presence(num_found: Sequence[int], people: Sequence[Label]) -> Counter[str]:
    """Expected and found faces over the frames, by number per frame: labels have no boxes.

    Faces beyond the number of all labelled people, including doubtful ones, are `unlabelled`:
    false, or people whom nobody labelled.
    """
    counts = Counter(expected=0, found=0, unlabelled=0, unlabelled_frames=0)
    for number, seen in enumerate(num_found):
        there = [person for person in people if in_spans(number, person["spans"])]
        sure = sum(not person.get("doubtful") for person in there)
        counts["expected"] += sure
        counts["found"] += min(seen, sure)
        if seen > len(there):
            counts["unlabelled"] += seen - len(there)
            counts["unlabelled_frames"] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Seen:
    """A track as far as scores need it: its assigned person, and frames `first` to `end`
    (exclusive)."""

    person: int
    shot: int
    first: int
    end: int

    def meets(self, other: "Seen") -> bool:
        return self.first < other.end and other.first < self.end

    def overlap(self, spans: Iterable[Span]) -> int:
        """Number of frames inside the spans."""
        return sum(max(min(self.end, last + 1) - max(self.first, at), 0) for at, last in spans)


def name_tracks(
    tracks: Sequence[Seen], people: Sequence[Label], hints: Hints | None = None
) -> list[str | None]:
    """The labelled person each track shows, None if nobody is labelled there.

    Labels state when, not where. Simultaneous tracks are different people; among possible
    assignments, the one is chosen that best fits the person shown by most other tracks with this
    number, which gives the detector the benefit of the doubt. `hints` state, from 0 to 1, how well
    a track otherwise fits a person.
    """
    names: list[str | None] = [None] * len(tracks)
    for _, shot in product(range(3), sorted({track.shot for track in tracks})):
        votes = _votes(tracks, names, people, besides=shot)
        inside = [index for index, track in enumerate(tracks) if track.shot == shot]
        fitting = {
            (place, person): hint
            for place, index in enumerate(inside)
            for (hinted, person), hint in (hints or {}).items()
            if hinted == index
        }
        best = _best_names([tracks[index] for index in inside], people, votes, fitting)
        for index, name in zip(inside, best, strict=True):
            names[index] = name
    return names


def _votes(
    tracks: Sequence[Seen], names: Sequence[str | None], people: Sequence[Label], *, besides: int
) -> dict[tuple[int, str], float]:
    """By number and person: the frames shared with that person by tracks of that number in other
    shots; persons they were named after count more than persons who are merely present."""
    votes: Counter = Counter()
    for track, name in zip(tracks, names, strict=True):
        if track.shot == besides:
            continue
        there = {person["id"]: track.overlap(person["spans"]) for person in people}
        for person, frames in there.items():
            votes[track.person, person] += frames / max(sum(map(bool, there.values())), 1)
        if name is not None:
            votes[track.person, name] += 3 * there[name]
    return votes


def _best_names(
    tracks: Sequence[Seen],
    people: Sequence[Label],
    votes: Mapping[tuple[int, str], float],
    hints: Hints,
) -> list[str | None]:
    """The most certain first; nobody twice at the same time. People who are present throughout are
    matched with long tracks rather than with brief ones."""
    fits = []
    shot = (min(track.first for track in tracks), max(track.end for track in tracks) - 1)
    for index, track in enumerate(tracks):
        total = sum(votes.get((track.person, person["id"]), 0) for person in people)
        for person in people:
            inside = track.overlap(person["spans"]) / (track.end - track.first)
            liked = votes.get((track.person, person["id"]), 0) / max(total, 1e-9)
            if inside > MIN_INSIDE:
                covered = track.overlap(person["spans"]) / frames_within(shot, person["spans"])
                hint = hints.get((index, person["id"]), 0.5)
                fits.append((inside + covered + liked / 2 + hint / 2, index, person["id"]))
    names: list[str | None] = [None] * len(tracks)
    for _, index, name in sorted(fits, key=lambda fit: -fit[0]):
        taken = any(
            other == name and tracks[index].meets(track)
            for track, other in zip(tracks, names, strict=True)
        )
        if names[index] is None and not taken:
            names[index] = name
    return names


def frames_within(shot: Span, spans: Iterable[Span]) -> int:
    """Frames of spans within a shot; ends are inclusive."""
    return sum(max(min(shot[1], last) - max(shot[0], at) + 1, 0) for at, last in spans)


def same_people(people: Sequence[Label]) -> dict[str, str]:
    """The person each label belongs to: `same_as` joins two labels unless both are visible at once
    (a face that appears twice in a picture is two tracks, which must not be joined)."""
    by_id = {person["id"]: person for person in people}
    joined = {}
    for person in people:
        other = by_id.get((person.get("same_as") or "").partition(" ")[0])
        joined[person["id"]] = (
            person["id"] if other is None or _meet(person, other) else other["id"]
        )
    return joined


def _meet(one: Label, other: Label) -> bool:
    return any(a[0] <= b[1] and b[0] <= a[1] for a in one["spans"] for b in other["spans"])


def identities(tracks: Sequence[Seen], people: Sequence[Label], hints: Hints | None = None) -> dict:
    """Persons found compared with labelled ones, and wrongly assigned pairs of tracks.

    `persons` counts numbers whose tracks show somebody labelled with certainty; `right` is whether
    it equals the number of those people shown by any track. A merged pair is two people with one
    number, a split pair one person with two.
    """
    joined = same_people(people)
    doubtful = {person["id"] for person in people if person.get("doubtful")}
    named = [
        (track.person, joined[name])
        for track, name in zip(tracks, name_tracks(tracks, people, hints), strict=True)
        if name is not None and name not in doubtful
    ]
    pairs = list(combinations(named, 2))
    numbers = {number for number, _ in named}
    shown = {name for _, name in named}
    return {
        "tracks": len(tracks),
        "persons": len(numbers),
        "people": len(shown),
        "all_numbers": len({track.person for track in tracks}),
        "right": len(numbers) == len(shown),
        "merged_pairs": sum(a[0] == b[0] and a[1] != b[1] for a, b in pairs),
        "split_pairs": sum(a[0] != b[0] and a[1] == b[1] for a, b in pairs),
        "splits": sum(
            len({number for number, name in named if name == person}) - 1 for person in shown
        ),
        "merges": sum(
            len({name for number, name in named if number == one}) - 1 for one in numbers
        ),
    }


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """The fraction of pairs in which the positive is larger, ties counting half; None without
    both."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(np.asarray(negative, float))
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return round(float((below + upto).mean() / 2 / len(ordered)), 4)


def lags(
    placed: Float[np.ndarray, "n p 2"], own: Float[np.ndarray, "n p 2"]
) -> Float[np.ndarray, " n"]:
    """The largest distance of each frame's points from their target."""
    return np.linalg.norm(placed - own, axis=2).max(axis=1)


def jitter(places: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, " m"]:
    """Distance of points from the mean of their positions in the neighbouring frames: 0 for steady
    motion; for independent errors 1.2 times their spread in each direction times 1.4."""
    return np.linalg.norm(places[1:-1] - (places[2:] + places[:-2]) / 2, axis=2).max(axis=1)


def turn_accuracy(
    chosen: Sequence[str | None], truth: Sequence[str | None], num_faces: Sequence[int]
) -> Counter[str]:
    """Slots of labelled speech by whether the right person, another or nobody was chosen.

    Slots with a visible speaker count if two or more faces are visible; `off_screen` ones, whose
    speaker is not visible (None), always count.
    """
    counts = Counter(right=0, wrong=0, nobody=0, off_screen=0, off_screen_nobody=0)
    for who, speaker, seen in zip(chosen, truth, num_faces, strict=True):
        if speaker is None:
            counts["off_screen"] += 1
            counts["off_screen_nobody"] += who is None
        elif seen > 1:
            counts["nobody" if who is None else "right" if who == speaker else "wrong"] += 1
    return counts
