"""Whether a clip shows one person, and which of its recording, judged by a network."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import linkage

from latentsync.faces.detectors.model_files import OPENCV_ZOO, SFACE, NotFetched, model_path
from latentsync.faces.tracking.identity import SFace, mean_direction
from latentsync.prepare.stage import AlignedSegment, Source

logger = logging.getLogger(__name__)

FETCHED = "sface"
MAX_LOOKS = 16
# Fewer faces that differ from the rest are blurred, hidden or turned, not somebody else.
MIN_GROUP = 2

Embedding = Float[np.ndarray, " d"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip made before: its person, frames `first` to `end` (exclusive), embedding."""

    person: int
    first: int
    end: int
    embedding: Embedding


@dataclass(kw_only=True)
class MeasureIdentity:
    """Adds `identity_gap`, how different two groups of a clip's faces are, and `person`, numbered
    from 0 in every source.

    Distances are those of SFace's embeddings, 0 to 2; both are None where it cannot judge: without
    its file, or the five points it is aligned by. `network`: "sface", whose file is fetched once, a
    path of such a file, or None, which does not look.
    """

    name: ClassVar[str] = "identity"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment

    network: Path | str | None = None
    _source: Source | None = field(default=None, init=False, repr=False)
    _shown: list[Shown] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def embedder(self) -> SFace | None:
        if self.network is None:
            return None
        if self.network != FETCHED:
            return SFace(self.network)
        try:
            return SFace(model_path(SFACE, OPENCV_ZOO))
        except NotFetched as error:
            logger.warning(
                "%s; until then identity is not judged: no clip is dropped for it", error
            )
            return None

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        embeddings = self._embeddings(aligned)
        if not embeddings:
            yield aligned.with_measures(identity_gap=None, person=None)
            return
        person = self._person(aligned, mean_direction(embeddings))
        yield aligned.with_measures(identity_gap=identity_gap(embeddings), person=person)

    def _embeddings(self, aligned: AlignedSegment) -> list[Embedding]:
        if not aligned.looks or self.embedder is None:
            return []
        count = min(MAX_LOOKS, len(aligned.looks))
        chosen = (aligned.looks[index * len(aligned.looks) // count] for index in range(count))
        return [self.embedder.embed(look) for look in chosen]

    def _person(self, aligned: AlignedSegment, embedding: Embedding) -> int:
        """The person of earlier clips of the source who is nearest on average, else a new one."""
        if aligned.source != self._source:
            self._source, self._shown = aligned.source, []
        assert self.embedder is not None
        first, end = aligned.start_frame, aligned.start_frame + len(aligned.faces)
        distances: dict[int, list[float]] = {}
        for shown in self._shown:
            apart = float(np.linalg.norm(embedding - shown.embedding))
            is_together = first < shown.end and shown.first < end
            distances.setdefault(shown.person, []).append(np.inf if is_together else apart)
        means = {person: float(np.mean(each)) for person, each in distances.items()}
        nearest = min(means, key=lambda person: means[person], default=0)
        if means.get(nearest, np.inf) >= self.embedder.limit:
            nearest = len(means)
        self._shown.append(Shown(nearest, first, end, embedding))
        return nearest


def identity_gap(embeddings: Sequence[Embedding]) -> float | None:
    """The mean distance between two groups of faces, where they part best by average linkage.

    Groups have `MIN_GROUP` faces or more; None if there are too few.
    """
    if len(embeddings) < 2 * MIN_GROUP:
        return None
    merges = linkage(np.stack(embeddings).astype(np.float64), "average")
    sizes = [*[1] * len(embeddings), *merges[:, 3].astype(int)]
    heights = [
        float(height)
        for one, other, height, _ in merges
        if min(sizes[int(one)], sizes[int(other)]) >= MIN_GROUP
    ]
    return max(heights, default=0.0)
