"""What can be wrong with clips that a sync judge is to learn from: seen without any network."""

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

# In units of log-mel, which lies in [-4, 4]: speech moves by one or more.
SILENT_DEVIATION = 0.05
MAX_OFFSET = 12
# What motion says of the sound at its best shift, above that at the median shift, has no size that
# holds for all faces: 24 drawn clips of 4 s gave .26-.45, 55 stretches of recorded ones .05-.26,
# and either with the sound of another clip up to .37. So a clip is compared with itself beside
# other clips' sounds. With this lead on all of 6, 13 of the 24 and 13 of the 55 have an offset, 13
# and 11 of them within 3 frames of none.
LEAD = 1.25
NUM_OTHERS = 6
NUM_MOTIONS, NUM_BANDS = 8, 8
SLOW = 12  # what changes over more frames than this to each side is no speech
# Where an aligned face has its mouth, as shares of its side.
MOUTH_ROWS, MOUTH_COLUMNS = (0.58, 0.86), (0.28, 0.72)

Motion = Float[np.ndarray, "f k"]
Sound = Float[np.ndarray, "f b"]
Curve = Float[np.ndarray, " s"]  # a value for each shift of the sound, -MAX_OFFSET..MAX_OFFSET


@dataclass(frozen=True, slots=True)
class Health:
    """Findings on `num_clips` clips; `offsets` counts clips by how many frames sound is late, where
    one can tell.

    `common_offset` is that of all clips taken together. `together` says how much better their
    motion goes with their own sounds there than with other clips' anywhere: about 1 is chance, None
    where there are no two clips to compare.
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
    """Read `num_clips` clips, evenly spread over the list, whole."""
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
    curves = [(lead_curve(each.motion, each.sound), foreign_curves(each, heard)) for each in heard]
    usable = [(own, others) for own, others in curves if own is not None and others]
    offsets = Counter(
        offset for offset in (offset_of(*each) for each in usable) if offset is not None
    )
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
    """Mean log-mel in a few bands over the time of each frame."""
    columns = [
        mel_window(mel, index, num_frames=1, fps=fps).mean(dim=1) for index in range(num_frames)
    ]
    return rearrange(torch.stack(columns), "f (b m) -> f b m", b=NUM_BANDS).mean(2).double().numpy()


def mouth_motions(frames: UInt8[np.ndarray, "f h w 3"]) -> Float[np.ndarray, "f k"]:
    """The mouth's region along its few directions of largest change."""
    height, width = frames.shape[1:3]
    rows = slice(*(int(share * height) for share in MOUTH_ROWS))
    columns = slice(*(int(share * width) for share in MOUTH_COLUMNS))
    mouths = shrink_grey(frames[:, rows, columns])
    around_mean = mouths - mouths.mean(axis=0)
    directions, sizes, _ = np.linalg.svd(around_mean, full_matrices=False)
    return directions[:, :NUM_MOTIONS] * sizes[:NUM_MOTIONS]


def shrink_grey(frames: UInt8[np.ndarray, "f h w 3"], side: int = 16) -> Float[np.ndarray, "f n"]:
    """Grey pictures of side x side as rows."""
    small = [cv2.resize(frame.mean(axis=2), (side, side), interpolation=cv2.INTER_AREA)
             for frame in frames]  # fmt: skip
    return np.stack(small).reshape(len(frames), -1)


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip with sound: how its mouth moves, and what is heard beside it."""

    source: str
    motion: Motion
    sound: Sound


def foreign_curves(clip: Heard, clips: Sequence[Heard]) -> list[Curve]:
    """The curves of a clip's motion with the sounds of some others, of other sources if there are
    any."""
    others = [each for each in clips if each is not clip and each.source != clip.source]
    others = others or [each for each in clips if each is not clip]
    picked = others[:: max(1, len(others) // NUM_OTHERS)][:NUM_OTHERS]
    curves = (lead_curve(clip.motion, each.sound) for each in picked)
    return [curve for curve in curves if curve is not None]


def lead_curve(motion: Motion, sound: Sound) -> Curve | None:
    """How much of the sound the motion explains at each shift, above what it does at the median
    shift; None for what is too short.

    By ridge regression of the sound on the motion, both without what changes slowly.
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
    """By how many frames the sound comes late; None if another clip's would do nearly as well."""
    best = max(float(curve.max()) for curve in others)
    return int(own.argmax()) - MAX_OFFSET if own.max() > max(LEAD * best, 0) else None


def pool(usable: Sequence[tuple[Curve, list[Curve]]]) -> tuple[int, float | None]:
    """The offset of all clips as one, and its lead as a multiple of the best with other sounds."""
    if not usable:
        return 0, None
    own = np.mean([curve for curve, _ in usable], axis=0)
    num_others = min(len(others) for _, others in usable)
    foreign = [np.mean([others[k] for _, others in usable], axis=0) for k in range(num_others)]
    best = max(float(curve.max() - np.median(curve)) for curve in foreign)
    together = float(own.max() - np.median(own)) / best if best > 0 else None
    return int(own.argmax()) - MAX_OFFSET, together


def without_slow(track: Float[np.ndarray, "f k"]) -> Float[np.ndarray, "f k"]:
    """Its values less the mean of those around."""
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
    """R^2 of the ridge regression of sound on motion; 0 where one of them never changes."""
    motion, sound = motion - motion.mean(axis=0), sound - sound.mean(axis=0)
    power = np.square(motion).mean()
    if power == 0 or not sound.any():
        return 0.0
    penalty = 0.01 * len(motion) * power * np.eye(motion.shape[1])
    weights = np.linalg.solve(motion.T @ motion + penalty, motion.T @ sound)
    return 1 - float(np.square(sound - motion @ weights).sum() / np.square(sound).sum())


def _fingerprint(values: np.ndarray) -> bytes:
    return sha1(np.ascontiguousarray(values).tobytes(), usedforsecurity=False).digest()
