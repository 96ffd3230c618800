"""The first pass: what is seen in a video and heard in a voice, or what the cache kept of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentsync.faces import FaceDetector
from latentsync.faces.survey import Survey, survey
from latentsync.media.audio import read_waveform
from latentsync.media.container import Damage
from latentsync.media.deinterlace import Deinterlacer
from latentsync.media.mel import mel_spectrogram
from latentsync.media.timed import FrameTimes, TimesLog, stored_frames
from latentsync.media.video import probe
from latentsync.models.audio_encoder import TokenStream
from latentsync.models.audio_stream import StateStream
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache, content_hash, network_hash, tensor_hash
from latentsync.pipeline.checks import count_frames
from latentsync.pipeline.inputs import Inputs
from latentsync.pipeline.places import aligner_for
from latentsync.pipeline.progress import Bar, Progress
from latentsync.pipeline.silence import SilenceGate, levels_db

SAMPLE_RATE = 16000


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the first pass found."""

    survey: Survey
    times: FrameTimes
    damages: list[Damage]
    num_deinterlaced: int = 0


@dataclass(frozen=True, slots=True)
class Voice:
    """What a mouth hears, made when it is asked for; how loud each block of 10 ms is (dB of full
    scale) and whether it is silent; and, if a SyncNet shall judge, what that one hears."""

    tokens: TokenStream
    seconds: float
    silent: Bool[np.ndarray, " n"]
    levels: Float[np.ndarray, " m"]
    mel: Float[Tensor, "80 k"] | None = None
    damages: tuple[Damage, ...] = ()


def sight(
    video: Path,
    detector: FaceDetector,
    aligner: str,
    resolution: int,
    *,
    cache: Cache | None,
    progress: Progress,
    deinterlace: str = "auto",
    inputs: Inputs | None = None,
) -> Sighting:
    """The first pass over a video, or what an earlier run kept of it.

    `inputs`, looked at since before the pass, tells whether the video stayed as it was.
    """
    inputs = inputs or Inputs(video)
    key = detector.cache_key
    paths = None
    if cache is not None and key is not None:
        name = (content_hash(video), key, aligner, deinterlace)
        paths = cache.path("faces", *name), cache.path("times", *name)
        known, told = cache.read(paths[0], Survey.load), cache.read(paths[1], _load_times)
        if known is not None and told is not None and known.num_frames == len(told[0]):
            return Sighting(known, told[0], [], told[1])
    info = probe(video)
    log = TimesLog(info.time_base)
    damages: list[Damage] = []
    deinterlacer = Deinterlacer(deinterlace)
    bar = Bar("faces", info.num_frames, progress)

    def pictures() -> Iterator[np.ndarray]:
        stored = stored_frames(
            video, on_damage=damages.append, quick=True, deinterlacer=deinterlacer
        )
        for start, duration, frame in stored:
            log.add(start, duration)
            bar.update()
            yield frame

    with bar, inputs.watched():
        seen = survey(pictures(), detector, aligner_for(aligner, resolution, fps=25).points_of)
    found = Sighting(seen, log.times(), damages, deinterlacer.num_frames)
    # What was damaged is told each time, so it is looked at each time.
    if cache is not None and paths is not None and not damages:
        cache.write(paths[0], seen.save)
        cache.write(paths[1], partial(_save_times, found))
        cache.prune()
    return found


def _save_times(found: Sighting, path: Path) -> None:
    times, ratio = found.times, found.times.time_base
    base = torch.tensor([ratio.numerator, ratio.denominator, times.end, found.num_deinterlaced])
    save_file({"starts": torch.from_numpy(times.starts), "base": base}, path)


def _load_times(path: Path) -> tuple[FrameTimes, int]:
    held = load_file(path)
    numerator, denominator, end, num_deinterlaced = held["base"].tolist()
    times = FrameTimes(Fraction(numerator, denominator), held["starts"].numpy(), end)
    return times, num_deinterlaced


def listen(
    audio: Path,
    model: LipSyncModel,
    gate: SilenceGate,
    *,
    parity: bool,
    cache: Cache | None,
    with_mel: bool = False,
) -> Voice:
    """The voice as the model hears it; silences are nothing at all if the gate says so.

    The file is read once. `with_mel`: for a SyncNet, 26 kB a second of sound.
    """
    damages: list[Damage] = []
    waveform = read_waveform(audio, SAMPLE_RATE, on_damage=damages.append)
    count_frames(audio, len(waveform) / SAMPLE_RATE, model.format.fps)
    levels = levels_db(waveform, SAMPLE_RATE)
    silent = gate.silent_at(levels) if gate.mode != "off" else np.zeros(0, bool)
    heard = gate.gated(waveform, SAMPLE_RATE, silent)
    states = model.audio_encoder.stream(heard, parity=parity)
    net = getattr(model.audio_encoder, "net", None)
    if cache is not None and net is not None:
        states = _kept(states, cache, tensor_hash(heard), network_hash(net.net), str(parity))
    form = model.format
    tokens = TokenStream(states, before=form.audio_before, after=form.audio_after, fps=form.fps)
    mel = mel_spectrogram(waveform) if with_mel else None
    seconds = len(waveform) / SAMPLE_RATE
    return Voice(tokens, seconds, silent, levels, mel, tuple(joined(damages)))


def joined(damages: list[Damage]) -> list[Damage]:
    """Damages of one reason that follow each other, as one."""
    told: list[Damage] = []
    for damage in damages:
        last = told[-1] if told else None
        if last and last.reason == damage.reason and last.end_seconds == damage.start_seconds:
            told[-1] = replace(last, end_seconds=damage.end_seconds)
        else:
            told.append(damage)
    return told


def _kept(states: StateStream, cache: Cache, *key: str) -> StateStream:
    """The same states; a window that an earlier run heard is read from the cache."""

    def window(index: int) -> Tensor:
        return cache.tensor("states", *key, str(index), make=lambda: states.make(index))

    return StateStream(states.spans, window)
