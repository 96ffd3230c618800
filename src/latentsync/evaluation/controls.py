"""Controls of the metrics of sync: the inputs of a clip, spoiled in known ways.

A metric of sync must be worse on a spoiled truth than on the truth. Inputs of the picture and of
the sound are changed apart, so that no video is measured again.
"""

import math

from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.base import Sample
from latentsync.metrics.sync import MAX_SHIFT

TRUTH = "ground truth"
COPIED, SHUFFLED = "copied source", "shuffled audio"
REVERSED, EXAGGERATED = "reversed", "motion x1.5"
FACTOR = 1.5
SHIFTS = {num_frames: f"{num_frames} frames late" for num_frames in range(1, MAX_SHIFT + 1)}
CONTROLS = (TRUTH, COPIED, SHUFFLED, *SHIFTS.values(), REVERSED, EXAGGERATED)

# Inputs of the picture, and of the sound.
OF_FACE = ("reading", "landmarks", "lips")
OF_VOICE = ("driving", "driving_landmarks", "driving_lips")
# LSE's curves over as many more shifts as sounds are shifted by.
WIDE_LSE = "wide_lse_curves"
# Fewer frames cannot show that a mouth follows a sound.
MIN_FRAMES = 8


def shifted(sample: Sample, num_frames: int) -> Sample:
    """The picture with its sound so many frames late; the ends without a partner are cut off."""
    faces = {name: track[num_frames:] for name, track in sample.items() if name in OF_FACE}
    voices = {
        name: track[: max(len(track) - num_frames, 0)]
        for name, track in sample.items()
        if name in OF_VOICE
    }
    late = as_long(faces | voices)
    if "sync_cosines" in sample:
        cosines = sample["sync_cosines"].roll(num_frames, dims=1)
        cosines[:, :num_frames] = math.nan
        late["sync_cosines"] = cosines
    if WIDE_LSE in sample:
        late["lse_curves"] = middle_of(sample[WIDE_LSE].roll(num_frames, dims=1))
    return late


def with_voice(sample: Sample, other: Sample) -> Sample:
    """The picture of one clip with the sound of another."""
    faces = {name: track for name, track in sample.items() if name in OF_FACE}
    return as_long(faces | {name: track for name, track in other.items() if name in OF_VOICE})


def reversed_in_time(sample: Sample) -> Sample:
    """The picture from its end to its beginning, with the sound as it was."""
    faces = {name: track.flip(0) for name, track in sample.items() if name in OF_FACE}
    return as_long(faces | {name: track for name, track in sample.items() if name in OF_VOICE})


def as_long(tracks: Sample) -> Sample:
    """Tracks cut to the shortest one; none if it is too short."""
    num_frames = min(map(len, tracks.values()), default=0)
    if num_frames < MIN_FRAMES:
        return {}
    return {name: track[:num_frames] for name, track in tracks.items()}


def middle_of(curves: Float[Tensor, "t w"]) -> Float[Tensor, "t k"]:
    """Of curves over more shifts, those that LSE is defined by."""
    margin = (curves.shape[1] - 2 * MAX_SHIFT - 1) // 2
    return curves[:, margin : margin + 2 * MAX_SHIFT + 1]
