"""SyncNet v2's embeddings of a face and its sound: crops of 224 px, 25 fps, as by its authors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from scipy.signal import medfilt
from torch import Tensor

from latentsync.media.audio import SAMPLE_RATE
from latentsync.media.mfcc import ROWS_PER_SECOND, mfcc
from latentsync.models.syncnet_v2 import SyncNetV2

FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
ROWS_PER_FRAME = ROWS_PER_SECOND // FPS
WINDOW, WINDOW_ROWS, BATCH = 5, 20, 20
# The crop: so much more than half the side of the box around it, grey where the frame ends.
CROP_SCALE, SMOOTHED_OVER, BORDER_LEVEL, SIDE = 0.4, 13, 110, 224

Frame = UInt8[np.ndarray, "h w 3"]
Crop = UInt8[np.ndarray, "224 224 3"]


class NoTrack(ValueError):
    """A video in which there is nothing that LSE is defined for."""


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """The boxes x0, y0, x1, y1 of a face in consecutive frames."""

    first: int
    boxes: Float[np.ndarray, "n 4"]

    @property
    def size(self) -> float:
        """The larger of mean width and mean height in pixels."""
        return float((self.boxes[:, 2:] - self.boxes[:, :2]).mean(axis=0).max())


@dataclass(frozen=True, slots=True)
class LseTrack:
    """SyncNet v2's embeddings of every window of a face track, of the sound that begins with it,
    and, where asked for, of the windows of its pictures from the last to the first."""

    vision: Float[Tensor, "n d"]
    sound: Float[Tensor, "n d"]
    backwards: Float[Tensor, "n d"] | None = None


def cropped(frames: Iterable[Frame], face_track: FaceTrack) -> Iterator[Crop]:
    """The face in every frame of its track, blue first."""
    corners = face_track.boxes
    half = medfilt((corners[:, 2:] - corners[:, :2]).max(axis=1) / 2, SMOOTHED_OVER)
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    across, down = (medfilt(each, SMOOTHED_OVER) for each in centers.T)
    # Sound may end before the track, and then so do the crops that are asked for.
    for frame, size, x, y in zip(frames, half, across, down, strict=True):
        border = int(size * (1 + 2 * CROP_SCALE))
        padded = np.pad(
            frame, ((border, border), (border, border), (0, 0)), constant_values=BORDER_LEVEL
        )
        left, top = x + border, y + border
        rows = slice(int(top - size), int(top + size * (1 + 2 * CROP_SCALE)))
        columns = slice(int(left - size * (1 + CROP_SCALE)), int(left + size * (1 + CROP_SCALE)))
        yield cv2.resize(padded[rows, columns], (SIDE, SIDE))[..., ::-1]


@torch.inference_mode()
def embed_track(
    net: SyncNetV2,
    crops: Iterator[Crop],
    num_frames: int,
    sound: Float[Tensor, " t"],
    *,
    with_backwards: bool,
) -> LseTrack:
    """The embeddings of a track and of the sound that begins with it."""
    num_windows = min(num_frames, len(sound) // SAMPLES_PER_FRAME) - WINDOW
    if num_windows < 1:
        raise NoTrack(
            f"LSE needs more than {WINDOW} frames with sound, got {num_frames} frames and "
            f"{len(sound) / SAMPLE_RATE:.2f} s"
        )
    weight = next(net.parameters())
    vision, backwards = [], []
    for part in windows(crops, num_windows):
        vision.append(net.forward_lip(part.to(weight)).cpu())
        if with_backwards:
            backwards.append(net.forward_lip(part.flip(2).to(weight)).cpu())
    rows = mfcc(sound).to(weight)
    cepstra = rows.unfold(0, WINDOW_ROWS, ROWS_PER_FRAME)[:num_windows, None]
    audio = [net.forward_aud(part).cpu() for part in cepstra.split(BATCH)]
    reverse = torch.cat(backwards).flip(0) if with_backwards else None
    return LseTrack(torch.cat(vision), torch.cat(audio), reverse)


def windows(crops: Iterator[Crop], num_windows: int) -> Iterator[Float[Tensor, "b 3 5 224 224"]]:
    """Five consecutive crops each, BATCH windows at a time."""
    held: list[Crop] = []
    for first in range(0, num_windows, BATCH):
        count = min(BATCH, num_windows - first)
        held += islice(crops, count + WINDOW - 1 - len(held))
        stacked = torch.from_numpy(np.stack(held)).unfold(0, WINDOW, 1)
        yield rearrange(stacked, "n h w c f -> n c f h w").float()
        held = held[count:]
