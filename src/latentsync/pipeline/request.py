"""What is asked of a video, and what the work is done with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.faces.mask import ALL_ROWS
from latentsync.media.deinterlace import MODES
from latentsync.media.formats import CODECS
from latentsync.media.soundtrack import CopyAudio
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache, model_hash
from latentsync.pipeline.inputs import Source
from latentsync.pipeline.plan import Choice, Plan
from latentsync.pipeline.silence import SilenceGate
from latentsync.pipeline.speakers import SpeakerChoice
from latentsync.runtime import Progress, Stopwatch


@dataclass(frozen=True, slots=True)
class Timing:
    """`fps`: "source" keeps the frames and times of the video, "model" the model's grid, a number
    any grid. `loop`: what a video shorter than the voice does; `tail`: whether the rest of a longer
    one passes through ("keep") or is cut. `deinterlace`: "auto" makes frames that are marked as
    interlaced progressive, "off" leaves their lines as they are."""

    fps: str | float = "source"
    loop: str = "to_and_fro"
    tail: str = "keep"
    deinterlace: str = "auto"

    def __post_init__(self) -> None:
        if self.deinterlace not in MODES:
            raise ValueError(
                f"timing.deinterlace={self.deinterlace} must be one of {', '.join(MODES)}"
            )


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the output is written: quality (0 is lossless), x264 or x265 ("auto": x265 for sources of
    more than 8 bits), and whether the voice's stream is copied where the file can hold it."""

    crf: float = 18
    codec: str = "auto"
    preset: str = "medium"
    copy_audio: CopyAudio = "auto"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"encoding.codec={self.codec} must be one of {', '.join(CODECS)}")


@dataclass(frozen=True, slots=True)
class Generation:
    """How windows are cut and drawn: slots that neighbours share, windows per pass of the network,
    what the mouth does in silence, and what is shown beside (see `lipsync`)."""

    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 1247
    overlap: int = 4
    batch: int = 1
    silence: SilenceGate = field(default_factory=SilenceGate)
    own_reference: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a video: whose mouths, to whose voices, when and how. `assign`: voices of
    single persons or turns ("turn3"); all others speak `audio`, which is also what is heard."""

    source: Source
    audio: Path
    assign: Mapping[int | str, Path] = field(default_factory=dict)
    generation: Generation = field(default_factory=Generation)
    choice: Choice = field(default_factory=Choice)
    timing: Timing = field(default_factory=Timing)
    encoding: Encoding = field(default_factory=Encoding)
    plan: Plan | None = None
    speakers: SpeakerChoice = field(default_factory=SpeakerChoice)

    @property
    def voices(self) -> list[Path]:
        return [self.audio, *self.assign.values()]

    def as_official(self) -> Self:
        """The official pipeline knows no silences, no face that is better left alone, no rate
        but the model's, and no mask but the published one."""
        if self.choice.mask_rows != ALL_ROWS:
            raise ValueError(
                "faces.mask_top and faces.mask_bottom are not part of the official pipeline: leave "
                "them out, or choose another preset"
            )
        return replace(
            self,
            generation=replace(self.generation, silence=SilenceGate("off")),
            choice=replace(self.choice, min_size=0, max_yaw=360, min_seconds=0, fade_slots=0),
            timing=replace(self.timing, fps="model", tail="cut"),
        )


@dataclass(frozen=True)
class Session:
    """What the work is done with, who is told of it, and since when."""

    model: LipSyncModel
    detector: FaceDetector
    cache: Cache | None = None
    progress: Progress = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    started: float = field(default_factory=time.perf_counter)

    @cached_property
    def model_name(self) -> str:
        """Twelve letters that tell models apart."""
        return model_hash(self.model)[:12]
