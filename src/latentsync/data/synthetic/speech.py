"""Synthetic speech: one track of mouth shapes from which both picture and sound are made."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from latentsync.media.audio import SAMPLE_RATE

TRACK_RATE = 200
TRACES = ("open", "width", "round", "teeth", "tongue", "voice", "fric", "fric_hz", "nasal")

# Mouth shape and sound source of every viseme, in the order of TRACES; fric_hz in kHz.
VISEMES: dict[str, tuple[float, ...]] = {
    "sil": (0.00, 0.45, 0.00, 0.00, 0.00, 0.00, 0.00, 0.0, 0.0),
    "PP": (0.00, 0.42, 0.10, 0.00, 0.00, 0.10, 0.10, 1.0, 0.0),
    "MM": (0.00, 0.45, 0.05, 0.00, 0.00, 0.55, 0.00, 0.0, 1.0),
    "FF": (0.10, 0.52, 0.05, 0.80, 0.00, 0.05, 0.35, 7.0, 0.0),
    "AA": (1.00, 0.58, 0.00, 0.45, 0.35, 1.00, 0.00, 0.0, 0.0),
    "EE": (0.45, 0.92, 0.00, 0.80, 0.40, 0.95, 0.00, 0.0, 0.0),
    "II": (0.22, 1.00, 0.00, 0.90, 0.30, 0.85, 0.00, 0.0, 0.0),
    "OO": (0.62, 0.22, 0.80, 0.10, 0.20, 0.95, 0.00, 0.0, 0.0),
    "UU": (0.25, 0.05, 1.00, 0.00, 0.10, 0.80, 0.00, 0.0, 0.0),
    "SS": (0.14, 0.72, 0.00, 1.00, 0.20, 0.00, 0.60, 6.0, 0.0),
    "SH": (0.20, 0.25, 0.60, 0.80, 0.20, 0.00, 0.70, 3.0, 0.0),
    "LL": (0.35, 0.55, 0.05, 0.50, 1.00, 0.75, 0.00, 0.0, 0.3),
}
VOWELS = ("AA", "EE", "II", "OO", "UU")
CONSONANTS = ("PP", "MM", "FF", "SS", "SH", "LL")
SHAPE_TRACES = ("open", "width", "round", "teeth", "tongue")
SHAPE_SECONDS, SOURCE_SECONDS = 0.075, 0.035
FULL_WIDTH_TO_SIGMA = 1 / 2.355
LOUDEST = 0.95


@dataclass(frozen=True, slots=True)
class Voice:
    """f0 in Hz; `tract` scales the formants, as the length of the vocal tract does."""

    f0: float
    tract: float


Track = dict[str, Float[np.ndarray, " n"]]


def viseme_track(seconds: float, rng: np.random.Generator) -> Track:
    """Random syllables with pauses, as smooth traces at 200 Hz, each in about [0, 1]."""
    num = round(seconds * TRACK_RATE)
    steps = _spoken_steps(num, rng)
    track = {}
    for index, name in enumerate(TRACES):
        spread = SHAPE_SECONDS if name in SHAPE_TRACES else SOURCE_SECONDS
        sigma = spread * FULL_WIDTH_TO_SIGMA * TRACK_RATE
        track[name] = gaussian_filter1d(steps[:, index], sigma, mode="nearest").astype(np.float32)
    return track


def _spoken_steps(num: int, rng: np.random.Generator) -> Float[np.ndarray, "n 9"]:
    rows: list[np.ndarray] = []
    total = 0

    def say(viseme: str, seconds: float, effort: float = 1.0) -> None:
        nonlocal total
        count = max(1, round(seconds * TRACK_RATE))
        row = np.array(VISEMES[viseme], dtype=np.float32)
        row[0] *= effort
        rows.append(np.tile(row, (count, 1)))
        total += count

    say("sil", rng.uniform(0.05, 0.5))
    while total < num:
        for _ in range(int(rng.integers(4, 12))):
            effort = rng.uniform(0.75, 1.05)
            if rng.random() < 0.85:
                say(str(rng.choice(CONSONANTS)), rng.uniform(0.06, 0.13))
            say(str(rng.choice(VOWELS)), rng.uniform(0.09, 0.24), effort)
        say("sil", rng.uniform(0.2, 0.6))
    return np.concatenate(rows)[:num]


def speak(track: Track, voice: Voice, rng: np.random.Generator) -> Float[np.ndarray, " t"]:
    """The sound of a track in [-1, 1] at 16 kHz; its formants follow the mouth shapes."""
    num = len(track["open"])
    num_samples = num * SAMPLE_RATE // TRACK_RATE
    at_track = np.arange(num) / TRACK_RATE
    at_sample = np.arange(num_samples) / SAMPLE_RATE
    drift = gaussian_filter1d(rng.standard_normal(num), 0.15 * TRACK_RATE)
    drift *= 0.08 / max(float(np.std(drift)), 1e-6)
    f0 = voice.f0 * (1 + drift)
    phase = 2 * np.pi * np.cumsum(np.interp(at_sample, at_track, f0)) / SAMPLE_RATE
    sound = np.zeros(num_samples)
    formants = _formants(track, voice.tract)
    for harmonic in range(1, int(5500 / voice.f0) + 1):
        gain = _resonance(harmonic * f0, formants, track["nasal"]) * track["voice"]
        sound += np.interp(at_sample, at_track, gain) * np.sin(harmonic * phase)
    sound = 0.11 * sound + 0.5 * _frication(track, at_sample, at_track, rng)
    # Scale the whole sound down instead of clipping peaks: clipping adds sounds no mouth shape
    # makes.
    loudest = max(1.0, float(np.abs(sound).max()) / LOUDEST)
    return (sound / loudest).astype(np.float32)


def _formants(track: Track, tract: float) -> list[tuple[np.ndarray, float, float]]:
    # (centre in Hz, bandwidth, strength)
    opening, width, rounding = track["open"], track["width"], track["round"]
    return [
        ((250 + 560 * opening) * tract, 90.0, 1.0),
        ((1350 + 800 * width - 350 * rounding) * tract, 120.0, 0.6),
        ((2600 - 300 * rounding + 150 * width) * tract, 180.0, 0.3),
    ]


def _resonance(hz: np.ndarray, formants: list, nasal: np.ndarray) -> np.ndarray:
    gain = np.zeros_like(hz)
    for centre, bandwidth, strength in formants:
        gain += strength / np.sqrt(1 + ((hz - centre) / bandwidth) ** 2)
    return gain * (1 - 0.6 * nasal * (hz > 600))


def _frication(
    track: Track, at_sample: np.ndarray, at_track: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    noise = rng.standard_normal(len(at_sample))
    sound = np.zeros(len(at_sample))
    for low, high in ((600, 2000), (2000, 4500), (4500, 7600)):
        band = sosfilt(butter(4, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), noise)
        middle = (low + high) / 2000
        share = np.exp(-(((track["fric_hz"] - middle) / 1.6) ** 2))
        sound += band * np.interp(at_sample, at_track, track["fric"] * share)
    return sound


def truth_of(track: Track, fps: float = 25.0) -> dict[str, Float[np.ndarray, " f"]]:
    """The mouth shape at every video frame."""
    num_frames = int(len(track["open"]) / TRACK_RATE * fps)
    times = np.arange(num_frames) / fps
    at_track = np.arange(len(track["open"])) / TRACK_RATE
    return {
        name: np.interp(times, at_track, track[name]).astype(np.float32)
        for name in ("open", "width", "round", "teeth", "tongue")
    }
