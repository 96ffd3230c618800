"""Stages of preparation, and the items they pass. A stage makes items from an item, or drops it.

Source (a raw file) -> Recording (with its properties) -> Resampled (streams at the model's rate) ->
Segment (a shot of them) -> AlignedSegment (up to 10 s of a face in it) -> Clip (written, with
features).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from math import inf, isfinite
from pathlib import Path
from time import perf_counter
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.data.clips import COLUMNS, Clip, Measures
from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.files import printable
from latentsync.media.video import VideoInfo
from latentsync.prepare.stored_sound import OwnSound, Sound

logger = logging.getLogger(__name__)

# Stage of files that ended with an error which no stage expects, and such errors.
ERROR = "error"
UNEXPECTED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    cv2.error,
    np.linalg.LinAlgError,
)
MAX_REASON = 300

Item = TypeVar("Item", contravariant=True)

Frame = UInt8[np.ndarray, "h w 3"]
Look = UInt8[np.ndarray, "112 112 3"]  # what face recognition networks take


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list of recordings says of one: the part to prepare, in seconds, and further columns
    of the manifest."""

    start_seconds: float = 0.0
    end_seconds: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A raw file, or a part of it that a list names.

    `name` is its path relative to the input folder, `key` a unique file name, `output_dir` the data
    set its clips are written to.
    """

    path: Path
    name: str
    key: str
    output_dir: Path
    listed: Listed | None = field(default=None, hash=False)

    @property
    def start_seconds(self) -> float:
        return self.listed.start_seconds if self.listed else 0.0

    @property
    def end_seconds(self) -> float | None:
        return self.listed.end_seconds if self.listed else None

    def recorded(self) -> dict:
        """What a record must hold of a source that its name does not say."""
        return {"path": str(self.path), **asdict(self.listed)} if self.listed else {}

    @classmethod
    def from_record(cls, row: Mapping, input_dir: Path, name: str, output_dir: Path) -> "Source":
        """The source of a recorded row."""
        noted = row.get("listed")
        if not noted:
            return cls(input_dir / name, name, "", output_dir)
        listed = Listed(**{each: value for each, value in noted.items() if each != "path"})
        return cls(Path(noted["path"]), name, "", output_dir, listed)


@dataclass(frozen=True, slots=True)
class Recording:
    source: Source
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class Resampled:
    """Frames at the model's rate, read anew by every call, and the audio from the first one on.

    Frames are RGB arrays, or become them when somebody looks (see `lazy_frame`); the first one is
    frame `start_frame` of the source. The audio is read when a slice of it is taken.
    """

    source: Source
    num_frames: int
    frames: Callable[[], Iterator[AnyFrame]]
    waveform: Sound
    start_frame: int = 0
    frames_from: Callable[[int], Iterator[AnyFrame]] | None = None
    """The frames from one on, found without reading those before; None: they cannot be had."""
    own_sound: OwnSound | None = None  # the whole source's; None: `waveform` is, or it is not kept


@dataclass(frozen=True, slots=True)
class Segment:
    """The frames of one shot, to be read before the next one is requested, and the audio from its
    first frame on, which may go on after the last."""

    source: Source
    index: int
    start_frame: int
    frames: Iterator[AnyFrame]
    waveform: Sound
    again: Callable[[], Iterator[AnyFrame]] | None = None
    """Reads the same frames once more, and those of later shots; None: they are read once."""
    own_sound: OwnSound | None = None


@dataclass(frozen=True, slots=True)
class AlignedSegment:
    source: Source
    index: int
    start_frame: int
    faces: Sequence[UInt8[np.ndarray, "r r 3"]]
    turns: Float[np.ndarray, " f"]
    """Turn of the head in each frame, in degrees; NaN if unknown."""
    waveform: Float[Tensor, " t"]
    measures: Measures = field(default_factory=dict)
    """What stages measured so far, by name: columns of the manifest. None: not measurable here."""
    stretch: int = 0
    """Number of those made of the same shot before."""
    looks: Sequence[Look] = ()
    """Every tenth face, if the detector shows eyes and mouth."""
    openings: Float[np.ndarray, " f"] | None = None
    """How far the mouth is open in each frame, by the detector; NaN or None if unknown."""
    own_sound: OwnSound | None = None  # at its own rate what `waveform` is at 16 kHz

    @property
    def name(self) -> str:
        stretch = f"_{self.stretch}" if self.stretch else ""
        return f"{self.source.key}_{self.index:03d}{stretch}"

    def with_measures(self, **measures: float | str | None) -> "AlignedSegment":
        """The same segment with more measures; numbers that are not finite become None.

        ValueError for a name that is taken.
        """
        taken = [name for name in measures if name in self.measures or name in COLUMNS]
        if taken:
            raise ValueError(f"the measure {taken[0]!r} has been taken: give it another name")
        return replace(self, measures=self.measures | plain(measures))


def plain(measures: Mapping[str, float | str | None]) -> Measures:
    """Measures as JSON holds them."""
    return {name: plain_value(value) for name, value in measures.items()}


def plain_value(value: float | str | None) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    # Six digits: measures are compared between machines, and read by people.
    return float(f"{value:.6g}") if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a source, or its part from `start_frame` on, did not become a clip.

    `start_seconds` and `end_seconds` are the bounds of the part, None if it is not a part. `value`
    and `threshold` are numbers that were compared, if the reason is a measure beyond its limit.
    """

    source: str
    stage: str
    reason: str
    start_frame: int | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    value: float | None = None
    threshold: float | None = None
    clip: str | None = None
    """The file in clips/ that shows it, if it was made."""

    @classmethod
    def part(
        cls, source: Source, stage: str, reason: str, *, start: int, end: int, fps: float
    ) -> "Dropped":
        """The frames `start` to `end` of a source, for one reason."""
        return cls(source.name, stage, reason, start, start / fps, end / fps)


class UnreadableError(Exception):
    """A file broke off while it was read."""


@runtime_checkable
class Stage(Protocol[Item]):
    """One step of preparation, a dataclass whose fields are the recorded parameters.

    Anything expensive or not picklable is created on first use (a `functools.cached_property`):
    every process has its own stages.
    """

    name: ClassVar[str]
    """Name of the stage in the lists of dropped items and in the record."""
    takes: ClassVar[type]
    makes: ClassVar[type]

    def run(self, item: Item, /) -> Iterator[object]:
        """The results for an item: items for the next stage, and `Dropped` ones."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results for one source, and where it ends in seconds: by its header, or the end of the
    part that a list names; None if it is no video."""

    source: Source
    clips: list[Clip] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    seconds: float | None = None
    work_seconds: float | None = None
    """How long the stages took."""

    def as_row(self, folder: Path) -> dict:
        listed = self.source.recorded()
        return {
            "clips": [clip.as_row(folder) for clip in self.clips],
            "dropped": [asdict(dropped) for dropped in self.dropped],
            "seconds": self.seconds,
            "work_seconds": self.work_seconds,
            **({"listed": listed} if listed else {}),
        }

    @classmethod
    def from_row(cls, row: Mapping, source: Source, folder: Path) -> "Outcome":
        """What was recorded, with the columns of a list."""
        labels = source.listed.labels if source.listed else {}
        clips = [clip | labels for clip in row["clips"]]
        return cls.as_recorded({**row, "clips": clips}, source, folder)

    @classmethod
    def as_recorded(cls, row: Mapping, source: Source, folder: Path) -> "Outcome":
        return cls(
            source=source,
            clips=[Clip.from_row(clip, folder) for clip in row["clips"]],
            dropped=[Dropped(**dropped) for dropped in row["dropped"]],
            seconds=row.get("seconds"),  # None in records of earlier versions
            work_seconds=row.get("work_seconds"),
        )


def check_stages(stages: Sequence[Stage]) -> None:
    """ValueError unless each stage takes what the one before makes, from Source to Clip."""
    for stage in stages:
        if not isinstance(stage, Stage) or not is_dataclass(stage):
            raise ValueError(
                f"{type(stage).__name__} is no stage of preparation: a stage is a dataclass with "
                "name, takes, makes and run (latentsync.prepare.Stage)"
            )
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages must have names of their own, got {', '.join(names)}")
    made: type = Source
    for stage in stages:
        if stage.takes is not made:
            raise ValueError(
                f"the stage {stage.name} takes a {stage.takes.__name__} and is given a "
                f"{made.__name__}: the stages are {', '.join(names)}"
            )
        made = stage.makes
    if made is not Clip:
        raise ValueError(
            f"the last stage must make a Clip, not a {made.__name__}: the stages are "
            f"{', '.join(names) or 'none'}"
        )


def run_stages(stages: Sequence[Stage], source: Source) -> Outcome:
    """Run a source through all stages, depth-first, one item at a time.

    What no stage expects of a file is logged and listed as dropped at the stage `error`. Errors
    that the user can fix (ValueError, OSError: missing weights, a full disk) concern every file and
    are raised.
    """
    outcome = Outcome(source)
    seconds, begin = None, perf_counter()
    try:
        for produced in _flow(stages, source):
            if isinstance(produced, Recording):
                seconds = min(produced.info.duration_seconds, source.end_seconds or inf)
            elif isinstance(produced, Dropped):
                outcome.dropped.append(produced)
            else:
                assert isinstance(produced, Clip)
                outcome.clips.append(produced)
    except UnreadableError as error:
        outcome.dropped.append(Dropped(source.name, "resample", str(error)))
    except FileNotFoundError:
        if source.path.exists():
            raise
        outcome.dropped.append(Dropped(source.name, "resample", "it vanished while it was read"))
    except UNEXPECTED as error:
        logger.exception("%s: unexpected error", printable(source.name))
        outcome.dropped.append(failed(source, error))
    return replace(
        outcome,
        dropped=[_bounded(dropped, source) for dropped in outcome.dropped],
        seconds=seconds,
        work_seconds=round(perf_counter() - begin, 3),
    )


def failed(source: Source, error: Exception) -> Dropped:
    """A source that ended with an unexpected error."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Dropped(source.name, ERROR, reason[:MAX_REASON])


def _bounded(dropped: Dropped, source: Source) -> Dropped:
    """All of a part, if all of the source was dropped and it is a part of a recording."""
    if source.listed is None or dropped.start_seconds is not None:
        return dropped
    return replace(dropped, start_seconds=source.start_seconds, end_seconds=source.end_seconds)


def _flow(stages: Sequence[Stage], item: object) -> Iterator[object]:
    """The clips and dropped parts of an item, and first the `Recording` that it is."""
    if isinstance(item, Dropped | Recording) or not stages:
        yield item
    if isinstance(item, Dropped) or not stages:
        return
    for produced in stages[0].run(item):
        yield from _flow(stages[1:], produced)
