"""Report of a lip-sync run: figures (report.json) and a contact sheet (source above result)."""

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
SHEET_QUALITY = 82  # JPEG quality


@dataclass(frozen=True, slots=True)
class SkippedSpan:
    """Consecutive frames of the output that are the source's, and why."""

    start_seconds: float
    end_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ShotReport:
    """What was done between two cuts; times in seconds of the output.

    `sync_before`, `sync_after`: sync of the picture with the given voice, in the source and in the
    result, by the report's `sync_measure`; None if no mouth could be measured.
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
    """One run of `lipsync`: input, output, what was left alone, and what it cost.

    `stage_seconds`: stages run in parallel, so their sum may exceed `total_seconds`. `frames_left`:
    number of frames that are the source's, by reason. `occlusion`: in how many redrawn frames
    something hid the mouth, also as a fraction of them, and the fraction of the mouth that stayed
    the source's there. `damage`: where the source could not be decoded; `notes`: other deviations
    from the request. `sync_measure`: the measure of the shots' sync, one of `SYNC_MEASURES`.
    `adapted_to`: name and hash of the recording of the one speaker the model was adapted to.
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
    adapted_to: dict[str, str] | None = None

    def save(self, path: Path) -> None:
        """Write JSON; NaN and infinities become null."""
        with publish(path) as partial:
            text = json.dumps(plain(asdict(self)), indent=2, allow_nan=False)
            partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a report written by `save`; NaN and infinities are None."""
        data = json.loads(path.read_text(encoding="utf-8"))
        data["skipped"] = [SkippedSpan(**span) for span in data["skipped"]]
        data["shots"] = [ShotReport(**shot) for shot in data["shots"]]
        return cls(**data)


def plain(value: object) -> object:
    """The value as JSON types: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def custom_preset(name: str, preset: Mapping[str, object], chosen: Mapping[str, object]) -> str:
    """Name of a preset for the report, marked if values were chosen that differ from it."""
    changed = [f"{key}={value}" for key, value in chosen.items() if preset.get(key) != value]
    return f"custom ({name}) with {', '.join(changed)}" if changed else name


def skipped_spans(
    reasons: Sequence[str], starts: Sequence[float] | Float[np.ndarray, " n"], end: float
) -> list[SkippedSpan]:
    """Spans of consecutive frames with the same reason; "" is a redrawn frame.

    `starts`: start of each frame in seconds; `end`: end of the last one.
    """
    edges = [*(float(start) for start in starts), float(end)]
    spans, position = [], 0
    for reason, group in groupby(reasons):
        first, position = position, position + len(list(group))
        if reason:
            spans.append(SkippedSpan(edges[first], edges[position], reason))
    return spans


class ContactSheet:
    """A few frames of the run, cropped around the face: source in the upper row, result below.

    `columns` may be given as frame numbers; otherwise they are spread over all `num_frames`.
    """

    def __init__(self, num_frames: int) -> None:
        spread = np.linspace(0, num_frames - 1, min(SHEET_COLUMNS, num_frames)).round().astype(int)
        self.indices = set(spread.tolist())
        self._cells: dict[int, tuple[UInt8[np.ndarray, "h w 3"], float | None]] = {}

    @property
    def cells(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The pairs in order of their frames, in whatever order they were added."""
        return [self._cells[index][0] for index in sorted(self._cells)]

    @property
    def seconds(self) -> list[float | None]:
        """Start of each pair's frame in seconds."""
        return [self._cells[index][1] for index in sorted(self._cells)]

    def add(
        self,
        index: int,
        source: UInt8[np.ndarray, "s s 3"],
        result: UInt8[np.ndarray, "s s 3"],
        *,
        seconds: float | None = None,
    ) -> None:
        """Add the pair of squares (see `close_up`) if frame `index` is one of the columns.

        `seconds`: start of the frame, shown below the picture on the page.
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
        """The same picture as JPEG, small enough for a page."""
        _, coded = cv2.imencode(".jpg", self._picture(), [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
        return coded.tobytes()

    def _picture(self) -> UInt8[np.ndarray, "h w 3"]:
        return cv2.cvtColor(np.hstack(self.cells), cv2.COLOR_RGB2BGR)


def close_up(
    size: tuple[int, int], box: Float[np.ndarray, "4"] | None
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a square in a frame of (h, w), twice as wide as the box; without a box, the
    largest square that fits."""
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
