"""The drawn benchmark: unseen speakers under ten conditions, each known to the last frame.

Clip i is of speaker `FIRST_SEED + i` under condition i modulo ten, so that the first ten clips have
one of each. Whoever changes what is drawn raises VERSION: figures of two versions do not compare.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from latentsync.data.synthetic.occluders import draw_occluder, with_layers
from latentsync.data.synthetic.render import Motion, Portrait, at, head_motion, render
from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import (
    TRACES,
    TRACK_RATE,
    VISEMES,
    Track,
    Voice,
    speak,
    truth_of,
    viseme_track,
)
from latentsync.files import publish
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter

VERSION = 1
# Seeds of no training and of no other test set.
FIRST_SEED = 970_000
NUM_CLIPS, SECONDS, SIZE, CRF = 200, 4.0, 256, 12
TRUTH_FPS = 25.0
WANDERING = ("x", "y", "roll", "yaw", "pitch")
LISTENER_SIZE = 0.7


@dataclass(frozen=True, slots=True)
class Condition:
    """What differs from a clean clip; noise by its ratio to the speech, yaw as in `Portrait`."""

    speed: float = 1.0
    noise_db: tuple[float, ...] = ()
    pauses: float = 0.0
    motion: float = 1.0
    yaw: float = 0.0
    occluder: str | None = None
    listener: bool = False
    fps: float = TRUTH_FPS


CONDITIONS = {
    "clean": Condition(),
    "noise": Condition(noise_db=(10.0, 0.0)),
    "fast": Condition(speed=1.5),
    "slow": Condition(speed=0.65),
    "silences": Condition(pauses=0.5),
    "head motion": Condition(motion=2.5),
    "hand": Condition(occluder="hand"),
    "profile": Condition(yaw=0.45),
    "two people": Condition(listener=True),
    "30 fps": Condition(fps=30.0),
}


def condition_of(index: int) -> str:
    """The condition of a clip of the benchmark."""
    return list(CONDITIONS)[index % len(CONDITIONS)]


def render_benchmark_clip(
    stem: Path, index: int, *, seconds: float = SECONDS, size: int = SIZE
) -> Path:
    """Write STEM.mp4, STEM.wav and STEM.truth.npz of clip `index`, unless they are there."""
    video, wav, truth_path = (
        stem.with_name(stem.name + suffix) for suffix in (".mp4", ".wav", ".truth.npz")
    )
    if truth_path.is_file():
        return video
    condition = CONDITIONS[condition_of(index)]
    rng = np.random.default_rng(FIRST_SEED + index)
    speaker = Speaker.random(rng)
    track = spoken_track(condition, seconds, rng)
    sound = speak(track, Voice(speaker.f0, speaker.tract), rng)
    if condition.noise_db:
        levels = condition.noise_db
        sound = with_noise(sound, levels[index // len(CONDITIONS) % len(levels)], rng)
    write_wav(wav, torch.from_numpy(sound))
    portrait = Portrait(speaker, size)
    mouth = truth_of(track, condition.fps)
    motion = moved(condition, len(mouth["open"]), rng)
    frames = render(portrait, mouth, motion)
    if condition.occluder is not None:
        layers = draw_occluder(condition.occluder, portrait, mouth, motion, rng)
        frames = with_layers(frames, layers, [])
    if condition.listener:
        frames = beside_a_listener(frames, len(mouth["open"]), size, rng)
    width = size + (round(size * LISTENER_SIZE) if condition.listener else 0)
    with VideoWriter(
        video, fps=condition.fps, width=width, height=size, crf=CRF, audio=wav
    ) as writer:
        for frame in frames:
            writer.write(frame)
    arrays = {**truth_of(track, TRUTH_FPS), "fps": TRUTH_FPS, "version": VERSION, "index": index}
    with publish(truth_path) as path, path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types allow_pickle, no arrays
    return video


def spoken_track(condition: Condition, seconds: float, rng: np.random.Generator) -> Track:
    """Mouth shapes at the condition's speed, with its pauses."""
    track = viseme_track(seconds * condition.speed, rng)
    num = round(seconds * TRACK_RATE)
    place = np.linspace(0, len(track["open"]) - 1, num)
    track = {
        name: np.interp(place, np.arange(len(trace)), trace).astype(np.float32)
        for name, trace in track.items()
    }
    return with_pause(track, condition.pauses, rng) if condition.pauses else track


def with_pause(track: Track, share: float, rng: np.random.Generator) -> Track:
    """The track with a closed and silent mouth for a share of its time."""
    num = len(track["open"])
    begin = int(rng.uniform(0.1, 0.9 - share) * num)
    edge = round(0.1 * TRACK_RATE)
    spoken = np.ones(num, dtype=np.float32)
    spoken[begin : begin + round(share * num)] = 0
    ramp = np.ones(edge) / edge
    spoken = np.minimum(spoken, np.convolve(spoken, ramp, mode="same")).astype(np.float32)
    silent = dict(zip(TRACES, VISEMES["sil"], strict=True))
    return {
        name: (spoken * trace + (1 - spoken) * silent[name]).astype(np.float32)
        for name, trace in track.items()
    }


def with_noise(
    sound: Float[np.ndarray, " t"], decibels: float, rng: np.random.Generator
) -> Float[np.ndarray, " t"]:
    """The sound and pink noise so much quieter than it, scaled to stay within [-1, 1]."""
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), n=len(sound))
    wanted = float(np.sqrt(np.mean(sound**2))) * 10 ** (-decibels / 20)
    mixed = sound + noise * wanted / float(np.sqrt(np.mean(noise**2)))
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def moved(condition: Condition, num_frames: int, rng: np.random.Generator) -> Motion:
    """The head's motion under the condition."""
    motion = head_motion(num_frames, condition.fps, rng)
    if condition.motion != 1:
        for name in WANDERING:
            middle = motion[name].mean()
            motion[name] = middle + condition.motion * (motion[name] - middle)
    side = 1 if rng.random() < 0.5 else -1
    return {**motion, "yaw": motion["yaw"] + side * condition.yaw}


def beside_a_listener(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]],
    num_frames: int,
    size: int,
    rng: np.random.Generator,
) -> Iterator[UInt8[np.ndarray, "h w2 3"]]:
    """The speaker's frames beside somebody smaller whose mouth stays shut."""
    side = round(size * LISTENER_SIZE)
    portrait = Portrait(Speaker.random(rng), side)
    motion = head_motion(num_frames, TRUTH_FPS, rng)
    shut = dict(zip(TRACES, VISEMES["sil"], strict=True))
    for index, frame in enumerate(frames):
        other = portrait.frame(shut, at(motion, index))
        room = np.full((size - side, side, 3), other[0, 0], dtype=np.uint8)
        yield np.concatenate([frame, np.concatenate([room, other])], axis=1)
