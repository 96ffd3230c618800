"""What is requested for a video, with which profile, and the resources to do it with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.faces.mask import ALL_ROWS
from latentsync.faces.occlusion import OcclusionMasker
from latentsync.media.deinterlace import MODES
from latentsync.media.formats import CODECS
from latentsync.media.silence import SilenceGate
from latentsync.media.soundtrack import CopyAudio
from latentsync.models.audio.encoders import TokenStream, num_official_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache, model_hash
from latentsync.pipeline.checks import Source
from latentsync.pipeline.chunks import Reference
from latentsync.pipeline.plan import Choice, Plan
from latentsync.pipeline.speakers import SpeakerChoice
from latentsync.runtime import Progress, Stopwatch


@dataclass(frozen=True, slots=True)
class Timing:
    """`fps`: "source" keeps the video's frames and times, "model" uses the model's grid, a number
    any other grid. `loop`: how a video shorter than the voice continues; `tail`: whether the rest
    of a longer one is kept ("keep") or cut. `deinterlace`: "auto" deinterlaces frames marked as
    interlaced, "off" leaves them."""

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
    """How the output is encoded: quality (0 is lossless), x264 or x265 ("auto": x265 for sources
    with more than 8 bits), and whether the voice's stream is copied if the container supports
    it."""

    crf: float = 18
    codec: str = "auto"
    preset: str = "medium"
    copy_audio: CopyAudio = "auto"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"encoding.codec={self.codec} must be one of {', '.join(CODECS)}")


@dataclass(frozen=True, slots=True)
class Generation:
    """How faces are generated: slots shared by neighbouring chunks, chunks per call of the network,
    what the mouth does in silence, and the reference faces (see `Options`)."""

    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 1247
    overlap: int = 4
    batch: int = 1
    silence: SilenceGate = field(default_factory=SilenceGate)
    reference: Reference = "auto"


@dataclass(frozen=True, slots=True)
class Profile:
    """Those rules of a pipeline that are not options of their own; the defaults are this project's.

    `overlap_audio`: windows of the audio encoder overlap and cross-fade. `reference`: the default
    for `Generation.reference`. `short_last_chunk`: see `cut_chunks`. `region`: the pasted part of a
    generated face, see `Pasting`. `round_faces`: generated faces are rounded to levels before
    pasting.
    """

    overlap_audio: bool = True
    reference: Reference = "previous"
    short_last_chunk: bool = False
    region: str = "mask"
    round_faces: bool = True

    def generation(self, asked: Generation) -> Generation:
        reference = self.reference if asked.reference == "auto" else asked.reference
        return replace(asked, reference=reference)

    def choice(self, asked: Choice) -> Choice:
        return asked

    def timing(self, asked: Timing) -> Timing:
        return asked

    def seconds_spoken(self, tokens: TokenStream, seconds: float) -> float:
        """How long mouths move for voices of `seconds`; `tokens` are those of the first voice."""
        return seconds


@dataclass(frozen=True, slots=True)
class OfficialProfile(Profile):
    """The official pipeline, reproduced number by number, for any model: `preset=official`.

    Latents are sampled, timestep spacing is "leading", colours are not matched; audio is cut every
    30 s and generation extends two frames beyond its end; faces are their own reference, and whole
    crops are pasted. Silence and unsuitable faces are not treated specially, and only the model's
    frame rate and the published mask are used.
    """

    overlap_audio: bool = False
    reference: Reference = "self"
    short_last_chunk: bool = True
    region: str = "crop"
    round_faces: bool = False

    def generation(self, asked: Generation) -> Generation:
        sampler = replace(
            asked.sampler,
            spacing="leading",
            guides_below_one=False,
            sample_latents=True,
            match_colours=False,
        )
        asked = replace(asked, sampler=sampler, overlap=0, silence=SilenceGate("off"))
        return Profile.generation(self, asked)

    def choice(self, asked: Choice) -> Choice:
        if asked.mask_rows != ALL_ROWS:
            raise ValueError(
                "faces.mask_top and faces.mask_bottom are not part of the official pipeline: leave "
                "them out, or choose another preset"
            )
        return replace(asked, min_size=0, max_yaw=360, min_seconds=0, fade_slots=0, occlusion="off")

    def timing(self, asked: Timing) -> Timing:
        return replace(asked, fps="model", tail="cut")

    def seconds_spoken(self, tokens: TokenStream, seconds: float) -> float:
        num_frames = num_official_frames(len(tokens.states), fps=tokens.fps, rate=tokens.rate)
        return num_frames / tokens.fps


# Values of `profile=`.
PROFILES: dict[str, Profile] = {"own": Profile(), "official": OfficialProfile()}


@dataclass(frozen=True, slots=True)
class Request:
    """What is requested for a video: whose mouths, which voices, when and how. `assign`: voices of
    individual persons or turns ("turn3"); all others speak `audio`, which is also the sound of the
    output."""

    source: Source
    audio: Path
    assign: Mapping[int | str, Path] = field(default_factory=dict)
    generation: Generation = field(default_factory=Generation)
    choice: Choice = field(default_factory=Choice)
    timing: Timing = field(default_factory=Timing)
    encoding: Encoding = field(default_factory=Encoding)
    plan: Plan | None = None
    speakers: SpeakerChoice = field(default_factory=SpeakerChoice)
    profile: Profile = field(default_factory=lambda: PROFILES["own"])

    def __post_init__(self) -> None:
        """Apply the profile to the requested options."""
        object.__setattr__(self, "generation", self.profile.generation(self.generation))
        object.__setattr__(self, "choice", self.profile.choice(self.choice))
        object.__setattr__(self, "timing", self.profile.timing(self.timing))

    @property
    def voices(self) -> list[Path]:
        return [self.audio, *self.assign.values()]


@dataclass(frozen=True)
class Session:
    """Resources of a run: model, detector, cache, progress display, stopwatch."""

    model: LipSyncModel
    detector: FaceDetector
    masker: OcclusionMasker | None = field(default=None, kw_only=True)
    cache: Cache | None = None
    progress: Progress = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    started: float = field(default_factory=time.perf_counter)

    @cached_property
    def model_name(self) -> str:
        """Twelve characters that identify the model."""
        return model_hash(self.model)[:12]
