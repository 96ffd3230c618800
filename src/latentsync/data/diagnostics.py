"""Defects of clips for SyncNet training that can be detected without a network."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha1

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.media.mel import mel_window
from latentsync.media.video import open_clip

# Standard deviation in log-mel, which lies in [-4, 4]; in speech it is 1 or more.
SILENT_DEVIATION = 0.05
MAX_OFFSET = 12
# A clip's lead (see `lead_curve`) has no threshold that suits all faces: 24 synthetic clips of 4 s
# gave .26-.45, 55 recorded ones .05-.26, and both up to .37 with the sound of another clip. So it
# is compared with the lead of the same motion over other clips' sounds. Requiring this factor over
# all of 6, 13 of the 24 and 13 of the 55 have an offset, 13 and 11 of them within 3 frames of zero.
# With fewer to compare with, chance exceeds it: such clips have no offset of their own.
LEAD = 1.25
NUM_OTHERS = 6
POOLED_OTHERS = 12  # other sounds that all clips together are compared with
NUM_MOTIONS, NUM_BANDS = 8, 8
SLOW = 12  # changes over more frames than this on either side are not speech
# The mouth in an aligned face, as fractions of its side.
MOUTH_ROWS, MOUTH_COLUMNS = (0.58, 0.86), (0.28, 0.72)

Motion = Float[np.ndarray, "f k"]
Sound = Float[np.ndarray, "f b"]
Curve = Float[np.ndarray, " s"]  # one value per shift of the sound, -MAX_OFFSET..MAX_OFFSET


@dataclass(frozen=True, slots=True)
class Health:
    """Findings on `num_clips` clips; `offsets` counts clips by the delay of their sound in frames,
    where it can be determined: with seven or more clips to compare.

    `common_offset` is that of all clips combined, by their lengths. `together` is how much better
    their motion correlates with their own sounds at that offset than with the best of other clips'
    sounds at any: at most about 1 by chance, None if there are no two clips to compare.
    """

    num_clips: int
    silent: list[str]
    same_sound: list[list[str]]
    same_pictures: list[list[str]]
    offsets: dict[int, int]
    common_offset: int = 0
    together: float | None = None

    @property
    def num_with_offset(self) -> int:
        return sum(self.offsets.values())


def measure_health(clips: Sequence[Clip], *, num_clips: int = 64) -> Health:
    """Read `num_clips` whole clips, evenly spaced over the list."""
    count = min(num_clips, len(clips))
    chosen = [clips[index] for index in np.linspace(0, len(clips) - 1, count).round().astype(int)]
    silent: list[str] = []
    sounds: dict[Hashable, list[str]] = defaultdict(list)
    pictures: dict[Hashable, list[str]] = defaultdict(list)
    heard: list[Heard] = []
    for clip in chosen:
        clip.bring()
        mel = load_file(clip.features_path)["mel"]
        frames = open_clip(clip.path).frames(range(clip.num_frames))
        sounds[_fingerprint(mel.numpy())].append(clip.name)
        pictures[_fingerprint(frames[:: max(1, len(frames) // 4)])].append(clip.name)
        if mel.std(dim=1).mean() < SILENT_DEVIATION:
            silent.append(clip.name)
            continue
        bands = frame_bands(mel, len(frames), fps=clip.fps)
        heard.append(Heard(clip.source, mouth_motions(frames), bands))
    fits = (fit_of(number, heard) for number in range(len(heard)))
    usable = [fit for fit in fits if fit is not None]
    judged = (
        offset_of(fit.own, fit.others[:NUM_OTHERS])
        for fit in usable
        if len(fit.others) >= NUM_OTHERS
    )
    offsets = Counter(offset for offset in judged if offset is not None)
    common, together = pool(usable)
    return Health(
        num_clips=count,
        silent=silent,
        same_sound=[names for names in sounds.values() if len(names) > 1],
        same_pictures=[names for names in pictures.values() if len(names) > 1],
        offsets=dict(sorted(offsets.items())),
        common_offset=common,
        together=together,
    )


def frame_bands(
    mel: Float[Tensor, "80 n"], num_frames: int, *, fps: float
) -> Float[np.ndarray, "f bands"]:
    """Mean log-mel of each frame in a few bands."""
    columns = [
        mel_window(mel, index, num_frames=1, fps=fps).mean(dim=1) for index in range(num_frames)
    ]
    return rearrange(torch.stack(columns), "f (b m) -> f b m", b=NUM_BANDS).mean(2).double().numpy()


def mouth_motions(frames: UInt8[np.ndarray, "f h w 3"]) -> Float[np.ndarray, "f k"]:
    """The first principal components of the mouth region."""
    height, width = frames.shape[1:3]
    rows = slice(*(int(share * height) for share in MOUTH_ROWS))
    columns = slice(*(int(share * width) for share in MOUTH_COLUMNS))
    mouths = shrink_grey(frames[:, rows, columns])
    around_mean = mouths - mouths.mean(axis=0)
    directions, sizes, _ = np.linalg.svd(around_mean, full_matrices=False)
    return directions[:, :NUM_MOTIONS] * sizes[:NUM_MOTIONS]


def shrink_grey(frames: UInt8[np.ndarray, "f h w 3"], side: int = 16) -> Float[np.ndarray, "f n"]:
    """Grey images of side x side, flattened."""
    small = [cv2.resize(frame.mean(axis=2), (side, side), interpolation=cv2.INTER_AREA)
             for frame in frames]  # fmt: skip
    return np.stack(small).reshape(len(frames), -1)


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip with sound: features of its mouth motion and of its audio."""

    source: str
    motion: Motion
    sound: Sound


@dataclass(frozen=True, slots=True)
class Fit:
    """Lead curves of a clip's motion with its own sound and with others'; its length in frames."""

    own: Curve
    others: list[Curve]
    length: int


def fit_of(number: int, clips: Sequence[Heard]) -> Fit | None:
    """The fit of a clip to its own sound and to sounds of other sources, or of the same if there
    are no others; None if the clip is too short or alone."""
    clip = clips[number]
    own = lead_curve(clip.motion, clip.sound)
    others = [each for each in clips if each is not clip and each.source != clip.source]
    others = others or [each for each in clips if each is not clip]
    # Every clip begins elsewhere, so that the same sound is not compared with all clips at once.
    step, count = max(1, len(others) // POOLED_OTHERS), min(POOLED_OTHERS, len(others))
    picked = [others[(number + place * step) % len(others)] for place in range(count)]
    curves = [lead_curve(clip.motion, each.sound) for each in picked]
    foreign = [curve for curve in curves if curve is not None]
    return Fit(own, foreign, len(clip.motion)) if own is not None and foreign else None


def lead_curve(motion: Motion, sound: Sound) -> Curve | None:
    """R^2 of the sound explained by the motion at each shift, minus the median over shifts; None if
    the clip is too short.

    By ridge regression of sound on motion, both high-pass filtered.
    """
    length = min(len(motion), len(sound))
    if length <= 3 * MAX_OFFSET:
        return None
    motion, sound = without_slow(motion[:length]), without_slow(sound[:length])
    explained = np.array(
        [
            _explained(*_shifted(motion, sound, late)[::-1])
            for late in range(-MAX_OFFSET, MAX_OFFSET + 1)
        ]
    )
    return explained - np.median(explained)


def offset_of(own: Curve, others: Sequence[Curve]) -> int | None:
    """Delay of the sound in frames; None if another clip's sound would fit nearly as well."""
    best = max(float(curve.max()) for curve in others)
    return int(own.argmax()) - MAX_OFFSET if own.max() > max(LEAD * best, 0) else None


def pool(fits: Sequence[Fit]) -> tuple[int, float | None]:
    """Offset of all clips combined, and their lead relative to the best with other clips'
    sounds. Long clips, whose curves are less noisy, count by their length."""
    if not fits:
        return 0, None
    lengths = [fit.length for fit in fits]
    own = np.average([fit.own for fit in fits], axis=0, weights=lengths)
    foreign = [
        np.average([fit.others[k] for fit in fits], axis=0, weights=lengths)
        for k in range(min(len(fit.others) for fit in fits))
    ]
    best = max(float(curve.max() - np.median(curve)) for curve in foreign)
    together = float(own.max() - np.median(own)) / best if best > 0 else None
    return int(own.argmax()) - MAX_OFFSET, together


def without_slow(track: Float[np.ndarray, "f k"]) -> Float[np.ndarray, "f k"]:
    """Subtract the moving average."""
    sums = np.concatenate([np.zeros((1, track.shape[1])), np.cumsum(track, axis=0)])
    numbers = np.arange(len(track))
    first, end = np.maximum(numbers - SLOW, 0), np.minimum(numbers + SLOW + 1, len(track))
    return track - (sums[end] - sums[first]) / (end - first)[:, None]


def _shifted(
    motion: Float[np.ndarray, "f k"], sound: Float[np.ndarray, "f b"], late: int
) -> tuple[Float[np.ndarray, "g k"], Float[np.ndarray, "g b"]]:
    length = len(motion)
    return motion[max(0, -late) : length - max(0, late)], sound[
        max(0, late) : length + min(0, late)
    ]


def _explained(sound: Float[np.ndarray, "g b"], motion: Float[np.ndarray, "g k"]) -> float:
    """R^2 of the ridge regression of sound on motion; 0 if either is constant."""
    motion, sound = motion - motion.mean(axis=0), sound - sound.mean(axis=0)
    power = np.square(motion).mean()
    if power == 0 or not sound.any():
        return 0.0
    penalty = 0.01 * len(motion) * power * np.eye(motion.shape[1])
    weights = np.linalg.solve(motion.T @ motion + penalty, motion.T @ sound)
    return 1 - float(np.square(sound - motion @ weights).sum() / np.square(sound).sum())


def _fingerprint(values: np.ndarray) -> bytes:
    return sha1(np.ascontiguousarray(values).tobytes(), usedforsecurity=False).digest()
