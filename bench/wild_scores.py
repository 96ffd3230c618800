"""How well what was found fits what is labelled; arithmetic only, nothing is read or decoded.

Labels are those of a `labels.json`: frames are inclusive, what is `doubtful` is neither missed nor
false. Counts of several clips add up; `rates` turns them into shares.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float

# A track shows somebody if this share of it, or more, lies where the person is labelled.
MIN_INSIDE = 0.3

Label = Mapping
Span = Sequence[int]
# By the place of a track in a list, and a person.
Hints = Mapping[tuple[int, str], float]


def match_cuts(found: Sequence[int], cuts: Sequence[Label], *, tolerance: int = 1) -> Counter[str]:
    """found, missed, false and double cuts; `found` are first frames of shots but the first."""
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
    """Precision (a double is false) and recall."""
    found, wrong = counts["found"], counts["false"] + counts["double"]
    return {
        "P": share(found, found + wrong),
        "R": share(found, found + counts["missed"]),
    }


def share(part: float, whole: float) -> float | None:
    """Rounded to 4 digits; None of nothing."""
    return round(part / whole, 4) if whole else None


def in_spans(number: int, spans: Iterable[Span]) -> bool:
    return any(first <= number <= last for first, last in spans)


def presence(
    num_found: Sequence[int], people: Sequence[Label], *, others: bool = False
) -> Counter[str]:
    """Faces expected, found and false over the frames, by how many are there: labels have no boxes.

    False is what exceeds everybody who is labelled, doubtful ones too; nothing is where `others`
    says that the picture may show more people than are labelled.
    """
    counts = Counter(expected=0, found=0, false=0, false_frames=0)
    for number, seen in enumerate(num_found):
        there = [person for person in people if in_spans(number, person["spans"])]
        sure = sum(not person.get("doubtful") for person in there)
        counts["expected"] += sure
        counts["found"] += min(seen, sure)
        if not others and seen > len(there):
            counts["false"] += seen - len(there)
            counts["false_frames"] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Seen:
    """A track as far as scores need it: who it was said to be, frames `first` to `end`, not
    included."""

    person: int
    shot: int
    first: int
    end: int

    def meets(self, other: "Seen") -> bool:
        return self.first < other.end and other.first < self.end

    def overlap(self, spans: Iterable[Span]) -> int:
        """Frames inside the spans."""
        return sum(max(min(self.end, last + 1) - max(self.first, at), 0) for at, last in spans)


def name_tracks(
    tracks: Sequence[Seen], people: Sequence[Label], hints: Hints | None = None
) -> list[str | None]:
    """Which labelled person each track shows, None where nobody is labelled there.

    Labels say when, not where. Tracks that are seen at one time are different people; among several
    ways the one is taken that fits best with the person whom most other tracks of this number show:
    the score leaves the benefit of the doubt. `hints` say, 0 to 1, how well a track otherwise fits
    a person.
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
    """By number and person: the frames that such tracks of other shots share with it; whom they
    show counts more than who is there."""
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
    """The surest first; nobody twice at one time. Who is there all along is rather the one whose
    track lasts than somebody who is found for a moment."""
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
    """Frames of spans that lie in a shot; ends are inclusive."""
    return sum(max(min(shot[1], last) - max(shot[0], at) + 1, 0) for at, last in spans)


def same_people(people: Sequence[Label]) -> dict[str, str]:
    """Whom each label is: one who is `same_as` another is that one, unless both are seen at once
    (a face twice in a picture is two tracks that nothing may join)."""
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
    """Persons found against labelled ones, and the pairs of tracks that are told wrongly.

    `persons` counts numbers whose tracks show somebody who is labelled for certain, and `right`
    says whether there are as many as of those people that any track shows. A merged pair are two
    people under one number, a split pair one under two.
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
    """The share of pairs in which the positive one is larger, ties half; None without both."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(np.asarray(negative, float))
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return round(float((below + upto).mean() / 2 / len(ordered)), 4)


def lags(
    placed: Float[np.ndarray, "n p 2"], own: Float[np.ndarray, "n p 2"]
) -> Float[np.ndarray, " n"]:
    """How far the points of each frame come to lie from where they belong: the farthest of them."""
    return np.linalg.norm(placed - own, axis=2).max(axis=1)


def jitter(places: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, " m"]:
    """How far points are from the middle of their places a frame before and after: 0 for steady
    motion, of independent errors 1.2 times their spread in each direction times 1.4."""
    return np.linalg.norm(places[1:-1] - (places[2:] + places[:-2]) / 2, axis=2).max(axis=1)


def turn_accuracy(
    chosen: Sequence[str | None], truth: Sequence[str | None], num_faces: Sequence[int]
) -> Counter[str]:
    """Slots of labelled speech by whether the right person was chosen, another, or nobody.

    Slots in which a face speaks count where two or more are seen; `off_screen` ones, in which
    somebody speaks who is not seen (None), everywhere.
    """
    counts = Counter(right=0, wrong=0, nobody=0, off_screen=0, off_screen_nobody=0)
    for who, speaker, seen in zip(chosen, truth, num_faces, strict=True):
        if speaker is None:
            counts["off_screen"] += 1
            counts["off_screen_nobody"] += who is None
        elif seen > 1:
            counts["nobody" if who is None else "right" if who == speaker else "wrong"] += 1
    return counts
