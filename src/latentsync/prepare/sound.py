"""Measures of a clip's sound: how loud it is, and how much of it is silent, clipped or speech."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from latentsync.media.audio import SAMPLE_RATE
from latentsync.media.silence import BLOCK_SECONDS, SilenceGate
from latentsync.prepare.stage import AlignedSegment

VADS = ("level", "silero")
FLOOR_DB = -120.0  # of digital silence
QUANTUM = 1 / 32768  # of 16-bit sound, which dither toggles
FULL_SCALE = 0.999


@dataclass(kw_only=True)
class MeasureSound:
    """Adds `level_db` and `loudest_db` (RMS of all and of the loudest second, in dB of full scale),
    `digital_silence`, `clipping` and `speech_share` (shares of the clip).

    Speech is what is not silent by level (`SilenceGate`), or what Silero VAD detects.
    """

    name: ClassVar[str] = "sound"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment
    columns: ClassVar[tuple[str, ...]] = (
        "level_db",
        "loudest_db",
        "digital_silence",
        "clipping",
        "speech_share",
    )

    vad: str = "level"

    def __post_init__(self) -> None:
        if self.vad not in VADS:
            raise ValueError(f"vad={self.vad} must be one of {', '.join(VADS)}")

    @cached_property
    def speech_share(self) -> Callable[[Float[Tensor, " t"]], float]:
        return speech_by_level if self.vad == "level" else SileroVad()

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        waveform = aligned.waveform
        yield aligned.with_measures(
            level_db=level_db(waveform),
            loudest_db=loudest_db(waveform),
            digital_silence=digital_silence(waveform),
            clipping=clipping(waveform),
            speech_share=self.speech_share(waveform),
        )


def level_db(waveform: Float[Tensor, " t"]) -> float:
    """RMS in dB of full scale: a sine from -1 to 1 has -3.01; digital silence is -120."""
    return _decibels(waveform.double().square().mean())


def loudest_db(waveform: Float[Tensor, " t"], seconds: float = 1.0) -> float:
    """The level of the loudest second, by tenths of a second; of all sound if it is shorter."""
    step = SAMPLE_RATE // 10
    width = round(seconds * 10)
    if len(waveform) < width * step:
        return level_db(waveform)
    whole = waveform[: len(waveform) // step * step].double().square()
    power = whole.view(-1, step).mean(dim=1)[None, None]
    return _decibels(functional.avg_pool1d(power, width, stride=1).max())


def digital_silence(waveform: Float[Tensor, " t"]) -> float:
    """Share of 10 ms blocks that hold nothing but zeros, or their dither."""
    block = round(BLOCK_SECONDS * SAMPLE_RATE)
    whole = waveform[: len(waveform) // block * block].view(-1, block)
    return float((whole.abs().amax(dim=1) <= QUANTUM).float().mean())


def clipping(waveform: Float[Tensor, " t"]) -> float:
    """Share of samples at full scale."""
    return float((waveform.abs() >= FULL_SCALE).float().mean())


def speech_by_level(waveform: Float[Tensor, " t"]) -> float:
    """Share of the sound that is in no silence."""
    return 1 - float(np.mean(SilenceGate().silent(waveform, SAMPLE_RATE)))


class SileroVad:
    """Share of the sound that is speech, by Silero VAD; its package holds its weights."""

    def __init__(self) -> None:
        try:
            silero = import_module("silero_vad")
        except ModuleNotFoundError as error:
            raise ValueError(
                "prepare.vad=silero needs Silero VAD: pip install silero-vad, or give "
                "prepare.vad=level"
            ) from error
        self.spans_of = silero.get_speech_timestamps
        self.net = silero.load_silero_vad()

    def __call__(self, waveform: Float[Tensor, " t"]) -> float:
        with torch.no_grad():
            spans = self.spans_of(waveform, self.net, sampling_rate=SAMPLE_RATE)
        return sum(span["end"] - span["start"] for span in spans) / len(waveform)


def _decibels(power: Tensor) -> float:
    return float(10 * power.clamp(min=10 ** (FLOOR_DB / 10)).log10())
