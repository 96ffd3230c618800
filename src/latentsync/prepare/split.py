"""Clips => training, validation and test, with no source and no person in two of them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import ClassVar

from latentsync.data.clips import SPLIT, TRAIN, VAL, Clip
from latentsync.prepare.stage import Outcome

TEST = "test"
PERSON = "person"
SPEAKER = "speaker"  # a column that a list of recordings gives

Node = tuple[str, str]  # what kind of name, and the name


@dataclass(frozen=True, kw_only=True)
class Split:
    """Adds the column `split` to the clips, unless both shares of seconds are 0.

    What belongs together is never divided: clips of a source, and those of a person, if `person` is
    a name (a number counts the people of one source), or of a `speaker`. With `folders=n` the first
    n folders of a source's path name its speaker. The order in which they are taken depends on
    their names and the seed, so that a set which grows keeps most of its splits.
    """

    val: float = 0.0
    test: float = 0.0
    seed: int = 0
    folders: int = 0

    name: ClassVar[str] = "split"

    def __post_init__(self) -> None:
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise ValueError(
                f"the shares val={self.val:g} and test={self.test:g} must not be negative, and "
                "leave something for training"
            )
        if self.folders < 0:
            raise ValueError(f"folders={self.folders} must be 0 or more")

    def __call__(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if not self.val and not self.test:
            return list(outcomes)
        if any(SPLIT in clip.measures for outcome in outcomes for clip in outcome.clips):
            raise ValueError(
                f"the list of recordings says which split each is for: give val=0 and test=0, not "
                f"val={self.val:g} test={self.test:g}, or leave its column {SPLIT} out"
            )
        groups = self._groups(outcomes)
        if len(groups) < 1 + bool(self.val) + bool(self.test):
            raise ValueError(
                f"the clips come from {len(groups)} group(s) that share no recording and no "
                f"person: too few for val={self.val:g} and test={self.test:g}; add recordings, or "
                "give 0 and validate on another set"
            )
        chosen = self._chosen(groups)
        return [
            replace(outcome, clips=[_labelled(clip, chosen[clip.name]) for clip in outcome.clips])
            for outcome in outcomes
        ]

    def _groups(self, outcomes: Iterable[Outcome]) -> list[list[Clip]]:
        """Clips that belong together, in the order in which they are taken."""
        union = Union()
        names: dict[Node, str] = {}
        clips: dict[Node, list[Clip]] = defaultdict(list)
        for outcome in outcomes:
            source = ("source", outcome.source.name)
            # Parts of a recording have names of their own.
            union.join(source, ("recording", str(outcome.source.path)))
            folders = PurePosixPath(outcome.source.name).parts[:-1][: self.folders]
            if folders:
                union.join(source, ("folders", "/".join(folders)))
            for clip in outcome.clips:
                for kind in (PERSON, SPEAKER):
                    name = clip.measures.get(kind)
                    if isinstance(name, str):
                        union.join(source, (kind, name))
                clips[source].append(clip)
        groups: dict[Node, list[Clip]] = defaultdict(list)
        for source, own in clips.items():
            root = union.root(source)
            groups[root] += own
            names[root] = min(names.get(root, source[1]), source[1])
        return [groups[root] for root in sorted(groups, key=lambda root: self._rank(names[root]))]

    def _rank(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed} {name}".encode("utf-8", "surrogateescape")).hexdigest()

    def _chosen(self, groups: Sequence[Sequence[Clip]]) -> dict[str, str]:
        """Split of each clip: the first groups until a share is reached, one at least."""
        total = sum(map(seconds_of, groups))
        wanted = [(name, share) for name, share in ((VAL, self.val), (TEST, self.test)) if share]
        chosen: dict[str, str] = {}
        waiting = list(groups)
        for number, (name, share) in enumerate(wanted):
            reached = 0.0
            # One is left for each of those that come after, and for training.
            while len(waiting) > len(wanted) - number and reached < share * total:
                group = waiting.pop(0)
                reached += seconds_of(group)
                chosen |= dict.fromkeys((clip.name for clip in group), name)
        return chosen | {clip.name: TRAIN for group in waiting for clip in group}


class Union:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self.parents: dict[Node, Node] = {}

    def root(self, name: Node) -> Node:
        """The representative of a set, the same for all in it."""
        while (parent := self.parents.get(name, name)) != name:
            self.parents[name] = self.parents.get(parent, parent)
            name = parent
        return name

    def join(self, first: Node, second: Node) -> None:
        self.parents[self.root(first)] = self.root(second)


def seconds_of(clips: Iterable[Clip]) -> float:
    return sum(clip.num_frames / clip.fps for clip in clips)


def _labelled(clip: Clip, split: str) -> Clip:
    return replace(clip, measures={**clip.measures, SPLIT: split})
