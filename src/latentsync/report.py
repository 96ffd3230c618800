"""What one lip-sync run did: the numbers (report.json) and a picture (source above result)."""

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.files import publish

T = TypeVar("T")

SHEET_COLUMNS = 8
SHEET_CELL = 192


@dataclass(frozen=True, slots=True)
class SkippedSpan:
    """Consecutive frames of the output that are the source's own, and why."""

    start_seconds: float
    end_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `lipsync`: what went in, what came out, what was left alone, what it cost."""

    video: str
    audio: str
    out: str
    model: str
    model_format: dict[str, object]
    sampler: dict[str, object]
    seed: int
    reference: str
    crf: int
    source_fps: float
    fps: float
    num_frames: int
    num_frames_with_face: int
    video_seconds: float
    audio_seconds: float
    skipped: list[SkippedSpan]
    stage_seconds: dict[str, float]
    total_seconds: float
    peak_memory_mib: float

    def save(self, path: Path) -> None:
        with publish(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


class Stopwatch:
    """Seconds spent in each stage of nested generators, every moment counted once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block to `name`, except what stages inside it charge to themselves."""
        outer = self._stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def over(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time to make each is charged to `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _switch(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = name, now


class SkipLog:
    """Counts frames with a face and joins faceless neighbours into spans."""

    def __init__(self, *, fps: float) -> None:
        self.fps = fps
        self.num_frames = 0
        self.num_with_face = 0
        self.spans: list[SkippedSpan] = []

    def add(self, *, has_face: bool, reason: str = "no face found") -> None:
        start, self.num_frames = self.num_frames, self.num_frames + 1
        if has_face:
            self.num_with_face += 1
            return
        first = start / self.fps
        if self.spans and self.spans[-1].end_seconds == first:
            first = self.spans.pop().start_seconds
        self.spans.append(SkippedSpan(first, self.num_frames / self.fps, reason))


class ContactSheet:
    """A few frames of the run, cut around the face: source in the upper row, result below."""

    def __init__(self, num_frames: int) -> None:
        columns = min(SHEET_COLUMNS, num_frames)
        self.indices = set(np.linspace(0, num_frames - 1, columns).round().astype(int).tolist())
        self.cells: list[UInt8[np.ndarray, "h w 3"]] = []

    def add(
        self,
        index: int,
        source: UInt8[np.ndarray, "h w 3"],
        result: UInt8[np.ndarray, "h w 3"],
        box: Float[np.ndarray, "4"] | None,
    ) -> None:
        """Keep the pair if `index` is one of the columns; `box` is where to look, x0 y0 x1 y1."""
        if index in self.indices:
            self.cells.append(np.vstack([_close_up(source, box), _close_up(result, box)]))

    def save(self, path: Path) -> None:
        sheet = cv2.cvtColor(np.hstack(self.cells), cv2.COLOR_RGB2BGR)
        with publish(path) as partial:
            if not cv2.imwrite(str(partial), sheet):
                raise OSError(f"the contact sheet {path} could not be written")


def _close_up(
    frame: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"] | None
) -> UInt8[np.ndarray, "s s 3"]:
    """A square twice as wide as the box (the largest square there is without one), scaled."""
    height, width = frame.shape[:2]
    side = min(height, width)
    x, y = width / 2, height / 2
    if box is not None:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        side = int(min(side, max(16, 2 * max(box[2] - box[0], box[3] - box[1]))))
    left = int(np.clip(x - side / 2, 0, width - side))
    top = int(np.clip(y - side / 2, 0, height - side))
    square = frame[top : top + side, left : left + side]
    return cv2.resize(square, (SHEET_CELL, SHEET_CELL), interpolation=cv2.INTER_AREA)


def peak_memory_mib() -> float:
    """The most memory this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
