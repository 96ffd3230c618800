"""Waveform => audio states for the UNet, and the tokens of video frames among them."""

from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from latentsync.media.mel import mel_spectrogram
from latentsync.media.tokens import STATES_PER_SECOND, token_rows
from latentsync.models.audio.stream import StateStream

# Both mels have 100 columns a second, of which two make a state.
HOP = 160
WINDOW_MEL_FRAMES = 3000
# Extra columns computed on both sides: spectra are wrong where the sound was cut.
MARGIN_MEL_FRAMES = 4
# Mel rows in [-1, 1] span 100 dB (`latentsync.media.mel`).
NUM_LEVELS = 101
SPEECH_DB, LOUDEST_SHARE = 25, 0.02


@runtime_checkable
class AudioEncoder(Protocol):
    """Turns a 16 kHz waveform into `l` states of width `d`, `rate` per second.

    `overlap`: whether windows of long sounds overlap and cross-fade, which avoids seams; the
    official code does not. `stream` gives the same states lazily in windows: hours of sound need
    memory for a few minutes. It keeps the waveform (which may be memory-mapped) and reads slices of
    it. `to` moves its networks in place; states are returned on the device of the waveform. `save`
    writes a folder, created only if there is anything to write, and `load` reads it. Model folders
    store the encoder there and identify its class by `name`. `states_name` is used in data sets:
    encoders with the same one produce the same states.
    """

    name: ClassVar[str]

    @property
    def rate(self) -> float: ...

    @property
    def width(self) -> int: ...

    @property
    def states_name(self) -> str: ...

    def __call__(
        self, waveform: Float[Tensor, " t"], *, overlap: bool = True
    ) -> Float[Tensor, "n l d"]: ...

    def stream(self, waveform: Float[Tensor, " t"], *, overlap: bool = True) -> StateStream: ...

    def to(self, device: torch.device | str) -> Self: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path | str) -> Self: ...


class MelAudioEncoder:
    """Audio states without a network: two log-mel rows of 10 ms per state, in [-1, 1].

    Its windows have no seams: `overlap` has no effect.
    """

    name: ClassVar[str] = "mel"
    rate = float(STATES_PER_SECOND)
    width = 80
    states_name = "mel"

    def __call__(
        self, waveform: Float[Tensor, " t"], *, overlap: bool = True
    ) -> Float[Tensor, "n 2 80"]:
        states = self.stream(waveform, overlap=overlap)
        return states.read(0, len(states))

    def stream(self, waveform: Float[Tensor, " t"], *, overlap: bool = True) -> StateStream:
        num_states = (len(waveform) // HOP + 1) // 2
        step = WINDOW_MEL_FRAMES // 2
        spans = [
            (start, min(start + step, num_states)) for start in range(0, max(num_states, 1), step)
        ]

        def make(index: int) -> Float[Tensor, "n 2 80"]:
            first, end = (2 * place for place in spans[index])
            sound, skipped = around(waveform, first, end)
            mel = mel_spectrogram(sound, hop_length=HOP)[:, skipped : skipped + end - first] / 4
            return rearrange(mel, "m (n l) -> n l m", l=2)

        return StateStream(spans, make)

    def to(self, device: torch.device | str) -> Self:
        """Nothing to move: it computes on the device of the waveform."""
        return self

    def save(self, folder: Path) -> None:
        """Nothing to write."""

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """A new encoder: there is nothing to read."""
        return cls()


class CentredMelAudioEncoder(MelAudioEncoder):
    """The states of `MelAudioEncoder` less the mean row of the sound's speech.

    A room, a microphone and the length of a vocal tract colour all rows alike; without them a
    stranger's voice is nearer to the ones that were learned (experiments/real_speakers). The mean
    is that of the whole sound, which is read once before its first state.
    """

    name: ClassVar[str] = "centred_mel"
    states_name = "centred_mel"

    def stream(self, waveform: Float[Tensor, " t"], *, overlap: bool = True) -> StateStream:
        rows = super().stream(waveform, overlap=overlap)
        mean = cache(partial(_mean_of_speech, rows))
        return StateStream(rows.spans, lambda index: rows.read(*rows.spans[index]) - mean())


def _mean_of_speech(rows: StateStream) -> Float[Tensor, " 80"]:
    """The mean mel row of what is at most SPEECH_DB below the loudest fiftieth.

    Rows are summed by their level in steps of a decibel, so that the sound is read once.
    """
    sums = torch.zeros(NUM_LEVELS, MelAudioEncoder.width, dtype=torch.float64)
    counts = torch.zeros(NUM_LEVELS, dtype=torch.float64)
    for first, end in rows.spans:
        found = rearrange(rows.read(first, end), "n l d -> (n l) d").cpu().double()
        levels = ((found.mean(1) + 1) / 2 * (NUM_LEVELS - 1)).round().long().clamp(0)
        sums.index_add_(0, levels, found)
        counts.index_add_(0, levels, torch.ones(len(levels), dtype=torch.float64))
    above = counts.flip(0).cumsum(0).flip(0)  # how many rows are as loud as this level, or louder
    loudest = int((above >= LOUDEST_SHARE * counts.sum()).nonzero().max())
    speech = slice(max(loudest - SPEECH_DB, 0), None)
    return (sums[speech].sum(0) / counts[speech].sum().clamp(min=1)).to(torch.float32)


class TokenStream:
    """The audio tokens of frames in any order, cheapest in ascending order; see `frame_tokens`."""

    def __init__(
        self,
        states: StateStream,
        *,
        before: int = 4,
        after: int = 6,
        fps: float = 25.0,
        rate: float = STATES_PER_SECOND,
    ) -> None:
        self.states = states
        self.before = before
        self.after = after
        self.fps = fps
        self.rate = rate

    def tokens(self, frames: Int[Tensor, " f"]) -> Float[Tensor, "f s d"]:
        """The states around each frame, time outer and layer inner; edges are repeated."""
        rows = token_rows(
            frames, before=self.before, after=self.after, fps=self.fps, rate=self.rate
        )
        rows = rows.clamp(0, len(self.states) - 1)
        needed = rows.unique().tolist()
        breaks = [place for place in range(1, len(needed)) if needed[place] > needed[place - 1] + 1]
        bounds = [0, *breaks, len(needed)]
        states = torch.cat(
            [
                self.states.read(needed[start], needed[stop - 1] + 1)
                for start, stop in pairwise(bounds)
            ]
        )
        places = torch.searchsorted(torch.tensor(needed), rows)
        return rearrange(states[places], "f n l d -> f (n l) d")


def num_official_frames(
    num_states: int, *, fps: float = 25.0, rate: float = STATES_PER_SECOND
) -> int:
    """Number of video frames the official code assigns to `l` states: two more than their duration.

    It counts up to and including the first frame whose centre lies beyond the states.
    """
    frame = 0
    while int(frame * rate / fps) <= num_states:
        frame += 1
    return frame + 1


def around(waveform: Float[Tensor, " t"], first: int, end: int) -> tuple[Float[Tensor, " t2"], int]:
    """The sound needed for the mel columns `first` to `end`, and by how many columns it starts
    early."""
    start = max(0, first - MARGIN_MEL_FRAMES)
    return waveform[start * HOP : (end + MARGIN_MEL_FRAMES) * HOP], first - start
