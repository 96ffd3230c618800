"""What a clip looks and sounds like in a few bits, which another encoding of it shares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from latentsync.media.audio import SAMPLE_RATE
from latentsync.prepare.stage import AlignedSegment

NUM_FACES = 8
PICTURE_SIDE = 8  # bits of a face, each way
NUM_STEPS, NUM_BANDS = 33, 16
LOW_HZ, HIGH_HZ = 200.0, 3400.0  # what every codec and microphone keeps
WINDOW = 1024
HOP = 256
MIN_POWER = 1e-9  # of a sample's square: below is digital silence


@dataclass(kw_only=True)
class Fingerprint:
    """Adds `picture_hash` and `sound_hash`, by which copies in the set are found (`Dedupe`)."""

    name: ClassVar[str] = "fingerprint"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment
    columns: ClassVar[tuple[str, ...]] = ("picture_hash", "sound_hash")

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        yield aligned.with_measures(
            picture_hash=to_text(picture_bits(aligned.faces)),
            sound_hash=to_text(sound_bits(aligned.waveform)),
        )


def picture_bits(faces: Sequence[UInt8[np.ndarray, "r r 3"]]) -> Bool[np.ndarray, " b"]:
    """Whether it gets brighter to the right, in 8x8 places of 8 faces evenly spread over a clip."""
    places = ((np.arange(NUM_FACES) + 0.5) / NUM_FACES * len(faces)).astype(int)
    bits = []
    for index in places:
        grey = cv2.cvtColor(faces[index], cv2.COLOR_RGB2GRAY)
        size = (PICTURE_SIDE + 1, PICTURE_SIDE)
        small = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        bits.append(small[:, 1:] > small[:, :-1])
    return np.stack(bits).ravel()


def sound_bits(waveform: Float[Tensor, " t"]) -> Bool[np.ndarray, " b"] | None:
    """Whether the difference of two neighbouring bands grows from one of 33 equal steps to the
    next; None for silence, which all silent clips share."""
    if len(waveform) < 2 * WINDOW or float(waveform.square().mean()) < MIN_POWER:
        return None
    spectrum = torch.stft(
        waveform, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True
    )
    edges = torch.logspace(np.log10(LOW_HZ), np.log10(HIGH_HZ), NUM_BANDS + 2)
    rows = (edges / SAMPLE_RATE * WINDOW).round().long().tolist()
    power = spectrum.abs().square()
    bands = torch.stack([power[low : max(high, low + 1)].sum(0) for low, high in pairwise(rows)])
    steps = functional.adaptive_avg_pool1d(bands[None], NUM_STEPS)[0]
    levels = (steps + steps.mean() * 1e-4).log()
    return (levels.diff(dim=0).diff(dim=1) > 0).T.flatten().numpy()


def to_text(bits: Bool[np.ndarray, " b"] | None) -> str | None:
    """As hexadecimal digits."""
    return None if bits is None else np.packbits(bits).tobytes().hex()


def to_bytes(text: str) -> UInt8[np.ndarray, " n"]:
    """The bits of `to_text`, eight in a byte."""
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def share_of_different_bits(
    first: UInt8[np.ndarray, " n"], second: UInt8[np.ndarray, " n"]
) -> float:
    """0 for the same, about 0.5 for what has nothing in common."""
    return float(np.bitwise_count(first ^ second).sum()) / (8 * len(first))
