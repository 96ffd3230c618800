"""What one lip-sync run did: the numbers (report.json) and a picture (source above result)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.files import publish

SYNC_MEASURES = {
    "syncnet": "how well picture and voice go together by the model's own SyncNet: the cosine of "
    "what it makes of both, 0 to 1",
    "loudness": "how well the mouth follows the loudness of the voice: Pearson's r, -1 to 1",
}

SHEET_COLUMNS = 8
SHEET_CELL = 192
SHEET_QUALITY = 82  # of JPEG


@dataclass(frozen=True, slots=True)
class SkippedSpan:
    """Consecutive frames of the output that are the source's own, and why."""

    start_seconds: float
    end_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ShotReport:
    """What was done between two cuts; seconds of the output.

    `sync_before`, `sync_after`: how well the picture goes with the given voice, in the source and
    in the result, by the report's `sync_measure`; None where no mouth could be measured.
    """

    number: int
    start_seconds: float
    end_seconds: float
    persons: list[int]
    num_frames: int
    num_frames_drawn: int
    sync_before: float | None = None
    sync_after: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `lipsync`: what went in, what came out, what was left alone, what it cost.

    `stage_seconds` are seconds of work; stages work beside each other, so that together they may
    take longer than `total_seconds`. `frames_left`: how many frames are the source's own, by
    reason. `occlusion`: in how many redrawn frames something lay before the mouth, as a share of
    them, and the share of the mouth that stayed the source's there. `damage` says where the source
    could not be decoded, `notes` what else was not as asked. `sync_measure`: what the shots' sync
    is, one of `SYNC_MEASURES`.
    """

    video: str
    audio: str
    out: str
    model: str
    model_format: dict[str, object]
    sampler: dict[str, object]
    seed: int
    reference: str
    crf: float
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
    preset: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    shots: list[ShotReport] = field(default_factory=list)
    sync_measure: str = "loudness"
    frames_left: dict[str, int] = field(default_factory=dict)
    occlusion: dict[str, float] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it as JSON; what is not a number is null there."""
        with publish(path) as partial:
            text = json.dumps(plain(asdict(self)), indent=2, allow_nan=False)
            partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The report that `save` wrote; what was not a number is None in it."""
        data = json.loads(path.read_text(encoding="utf-8"))
        data["skipped"] = [SkippedSpan(**span) for span in data["skipped"]]
        data["shots"] = [ShotReport(**shot) for shot in data["shots"]]
        return cls(**data)


def plain(value: object) -> object:
    """The same value as JSON can hold it: NaN and infinities, which it has not, become None."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def custom_preset(name: str, preset: Mapping[str, object], chosen: Mapping[str, object]) -> str:
    """What a report calls a preset: its name, unless something else was chosen than it says."""
    changed = [f"{key}={value}" for key, value in chosen.items() if preset.get(key) != value]
    return f"custom ({name}) with {', '.join(changed)}" if changed else name


def skipped_spans(
    reasons: Sequence[str], starts: Sequence[float] | Float[np.ndarray, " n"], end: float
) -> list[SkippedSpan]:
    """Neighbouring frames with the same reason, joined; "" is a frame that was drawn.

    `starts`: when each frame is shown first, in seconds; `end`: when the last one ends.
    """
    edges = [*(float(start) for start in starts), float(end)]
    spans, position = [], 0
    for reason, group in groupby(reasons):
        first, position = position, position + len(list(group))
        if reason:
            spans.append(SkippedSpan(edges[first], edges[position], reason))
    return spans


class ContactSheet:
    """A few frames of the run, cut around the face: source in the upper row, result below.

    `columns` may be given as the frames' numbers; else they are spread over all `num_frames`.
    """

    def __init__(self, num_frames: int) -> None:
        spread = np.linspace(0, num_frames - 1, min(SHEET_COLUMNS, num_frames)).round().astype(int)
        self.indices = set(spread.tolist())
        self._cells: dict[int, tuple[UInt8[np.ndarray, "h w 3"], float | None]] = {}

    @property
    def cells(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The pictures in the order of their frames, whatever order they came in."""
        return [self._cells[index][0] for index in sorted(self._cells)]

    @property
    def seconds(self) -> list[float | None]:
        """When each is shown."""
        return [self._cells[index][1] for index in sorted(self._cells)]

    def add(
        self,
        index: int,
        source: UInt8[np.ndarray, "s s 3"],
        result: UInt8[np.ndarray, "s s 3"],
        *,
        seconds: float | None = None,
    ) -> None:
        """Keep the pair, the squares that `close_up` names, if `index` is one of the columns.

        `seconds`: when the frame is shown, for the line below the picture on the page.
        """
        if index in self.indices:
            cell = np.vstack([_scaled(source), _scaled(result)])
            self._cells[index] = cell, seconds

    def save(self, path: Path) -> None:
        """Write it as a PNG."""
        _, coded = cv2.imencode(".png", self._picture())
        with publish(path) as partial:
            partial.write_bytes(coded.tobytes())

    def jpeg(self) -> bytes:
        """The same picture, small enough for a page."""
        _, coded = cv2.imencode(".jpg", self._picture(), [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
        return coded.tobytes()

    def _picture(self) -> UInt8[np.ndarray, "h w 3"]:
        return cv2.cvtColor(np.hstack(self.cells), cv2.COLOR_RGB2BGR)


def close_up(
    size: tuple[int, int], box: Float[np.ndarray, "4"] | None
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a square of an (h, w) frame, twice as wide as the box; the largest square
    there is without one."""
    height, width = size
    side = min(height, width)
    x, y = width / 2, height / 2
    if box is not None:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        side = int(min(side, max(16, 2 * max(box[2] - box[0], box[3] - box[1]))))
    left = int(np.clip(x - side / 2, 0, width - side))
    top = int(np.clip(y - side / 2, 0, height - side))
    return left, top, left + side, top + side


def _scaled(square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "c c 3"]:
    return cv2.resize(square, (SHEET_CELL, SHEET_CELL), interpolation=cv2.INTER_AREA)
