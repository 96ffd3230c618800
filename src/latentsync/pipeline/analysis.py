"""The first pass: analyze the video and encode the voices, using cached results if possible."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.faces import ALIGNERS, FaceDetector, Placement, SmoothAligner
from latentsync.faces.align import Aligner
from latentsync.faces.tracking.shots import SHOT_RULE
from latentsync.faces.tracking.survey import Survey, survey
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.container import Damage
from latentsync.media.deinterlace import Deinterlacer
from latentsync.media.frame import UnreadFrame
from latentsync.media.frame_reader import FrameTimes, TimesLog, unread_frames
from latentsync.media.mel import mel_spectrogram
from latentsync.media.silence import SilenceGate, levels_db
from latentsync.models.audio.encoders import TokenStream
from latentsync.models.audio.stream import StateStream
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache, tensor_hash
from latentsync.pipeline.checks import Inputs, Source, count_frames
from latentsync.runtime import Bar, Progress

TRACKS_AT_HAND = 8
SMOOTH_FPS = 25.0  # the frame rate for which the smoothing width is defined


@dataclass(frozen=True, slots=True)
class VideoAnalysis:
    """Results of the first pass over a video."""

    survey: Survey
    times: FrameTimes
    damages: list[Damage]
    num_deinterlaced: int = 0


@dataclass(frozen=True, slots=True)
class Speech:
    """A voice: audio tokens, computed on demand; for each block of 10 ms its level (dB of full
    scale) and whether it is silent; and, if a SyncNet scores the result, its mel."""

    tokens: TokenStream
    seconds: float
    silent: Bool[np.ndarray, " n"]
    levels: Float[np.ndarray, " m"]
    mel: Float[Tensor, "80 k"] | None = None
    damages: tuple[Damage, ...] = ()


def analyze_video(
    source: Source,
    detector: FaceDetector,
    aligner: str,
    resolution: int,
    *,
    cache: Cache | None,
    progress: Progress,
    deinterlace: str = "auto",
    inputs: Inputs | None = None,
) -> VideoAnalysis:
    """The first pass over a video, or its cached results.

    `inputs`, created before the pass, detects whether the video has changed.
    """
    inputs = inputs or Inputs(source.path)
    key = detector.cache_key
    paths = None
    if cache is not None and key is not None:
        name = (source.content_hash, key, str(SHOT_RULE), aligner, deinterlace)
        paths = cache.path("faces", *name), cache.path("times", *name)
        known, stored = cache.read(paths[0], Survey.load), cache.read(paths[1], _load_times)
        if known is not None and stored is not None and known.num_frames == len(stored[0]):
            return VideoAnalysis(known, stored[0], [], stored[1])
    log = TimesLog(source.info.time_base)
    damages: list[Damage] = []
    deinterlacer = Deinterlacer(deinterlace)
    bar = Bar("faces", source.info.num_frames, progress)

    def pictures() -> Iterator[UnreadFrame]:
        stored = unread_frames(
            source.path, on_damage=damages.append, quick=True, deinterlacer=deinterlacer
        )
        for start, duration, frame in stored:
            log.add(start, duration)
            bar.update()
            yield frame

    with bar, inputs.watched():
        seen = survey(pictures(), detector, aligner_for(aligner, resolution, fps=25).points_of)
    found = VideoAnalysis(seen, log.times(), damages, deinterlacer.num_frames)
    # Damage must be reported in every run, so damaged videos are analyzed again each time.
    if cache is not None and paths is not None and not damages:
        cache.write(paths[0], seen.save)
        cache.write(paths[1], partial(_save_times, found))
        cache.prune()
    return found


def _save_times(found: VideoAnalysis, path: Path) -> None:
    times, ratio = found.times, found.times.time_base
    base = torch.tensor([ratio.numerator, ratio.denominator, times.end, found.num_deinterlaced])
    save_file({"starts": torch.from_numpy(times.starts), "base": base}, path)


def _load_times(path: Path) -> tuple[FrameTimes, int]:
    held = load_file(path)
    numerator, denominator, end, num_deinterlaced = held["base"].tolist()
    times = FrameTimes(Fraction(numerator, denominator), held["starts"].numpy(), end)
    return times, num_deinterlaced


def encode_speech(
    audio: Path,
    model: LipSyncModel,
    gate: SilenceGate,
    *,
    overlap: bool,
    cache: Cache | None,
    with_mel: bool = False,
) -> Speech:
    """Encode a voice; silences are replaced by digital silence if the gate says so.

    The file is read once. `overlap`: see `AudioEncoder`. `with_mel`: add the mel for a SyncNet, 26
    kB per second of sound.
    """
    damages: list[Damage] = []
    waveform = read_waveform(audio, SAMPLE_RATE, on_damage=damages.append)
    count_frames(audio, len(waveform) / SAMPLE_RATE, model.format.fps)
    levels = levels_db(waveform, SAMPLE_RATE)
    silent = gate.silent_at(levels) if gate.mode != "off" else np.zeros(0, bool)
    heard = gate.gated(waveform, SAMPLE_RATE, silent)
    states = model.audio_encoder.stream(heard, overlap=overlap)
    net = getattr(model.audio_encoder, "net", None)
    if cache is not None and net is not None:
        windows = "overlapping" if overlap else "side by side"
        states = _cached(
            states, cache, tensor_hash(heard), model.audio_encoder.states_name, windows
        )
    form = model.format
    tokens = TokenStream(
        states,
        before=form.audio_before,
        after=form.audio_after,
        fps=form.fps,
        rate=model.audio_encoder.rate,
    )
    mel = mel_spectrogram(waveform) if with_mel else None
    seconds = len(waveform) / SAMPLE_RATE
    return Speech(tokens, seconds, silent, levels, mel, tuple(joined(damages)))


def joined(damages: list[Damage]) -> list[Damage]:
    """Join consecutive damages that have the same reason."""
    joined: list[Damage] = []
    for damage in damages:
        last = joined[-1] if joined else None
        if last and last.reason == damage.reason and last.end_seconds == damage.start_seconds:
            joined[-1] = replace(last, end_seconds=damage.end_seconds)
        else:
            joined.append(damage)
    return joined


def _cached(states: StateStream, cache: Cache, *key: str) -> StateStream:
    """The same states, with windows read from the cache if an earlier run has computed them."""

    def window(index: int) -> Tensor:
        return cache.tensor("states", *key, str(index), make=lambda: states.make(index))

    return StateStream(states.spans, window)


class Placements:
    """Placements by track and stored frame, computed for a whole track at its first use."""

    def __init__(self, survey: Survey, make_aligner: Callable[[], Aligner]) -> None:
        self.survey = survey
        self.make_aligner = make_aligner
        self.of_track = lru_cache(maxsize=TRACKS_AT_HAND)(self._of_track)

    def at(self, track: int, number: int) -> Placement | None:
        """None if the face was not seen, or outside the track."""
        place = number - self.survey.tracks[track].first
        placements = self.of_track(track)
        return placements[place] if 0 <= place < len(placements) else None

    def _of_track(self, track: int) -> list[Placement | None]:
        seen = (
            None if np.isnan(points).any() else points.astype(np.float64)
            for points in self.survey.tracks[track].points
        )
        return list(self.make_aligner().placements(seen))


def aligner_for(name: str, resolution: int, *, fps: float) -> Aligner:
    """A new aligner; smoothing covers the same time at every frame rate."""
    if name == "smooth":
        scale = max(1.0, fps / SMOOTH_FPS)
        return SmoothAligner(resolution, sigma_frames=1.5 * scale, radius=round(4 * scale))
    return ALIGNERS[name](resolution)
