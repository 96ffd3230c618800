"""LSE of a video file, pre-processed as by its authors: face tracks, crops of 224 px, 25 fps.

What differs from their programs: crops are not encoded a second and third time before they are
measured, and only the largest face of each shot is followed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from scipy.signal import medfilt
from torch import Tensor

from latentsync.faces import Face, FaceDetector, track
from latentsync.faces.detectors.base import overlap
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.mfcc import ROWS_PER_SECOND, mfcc
from latentsync.media.video import read_frames
from latentsync.metrics.lse import MAX_SHIFT, shift_distances
from latentsync.models.syncnet_v2 import SyncNetV2

FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
ROWS_PER_FRAME = ROWS_PER_SECOND // FPS
WINDOW, WINDOW_ROWS, BATCH = 5, 20, 20
# A face track: its boxes overlap from frame to frame, or over a gap that is interpolated.
SAME_FACE, MAX_GAP, MIN_TRACK, MIN_SIZE = 0.5, 25, 50, 100
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


@dataclass(frozen=True, slots=True)
class LseScorer:
    """SyncNet v2 and the detector whose boxes are cropped; `faces` names it in the output."""

    net: SyncNetV2
    detector: FaceDetector
    faces: str

    def tracks(self, path: Path, *, seconds: float, with_backwards: bool = False) -> list[LseTrack]:
        """The embeddings of every face track of a video, and, at the cost of as much again, of its
        pictures backwards.

        NoTrack if it has none that the authors would have measured.
        """
        frames = read_frames(path, fps=FPS, num_frames=round(seconds * FPS))
        found = face_tracks(track(frames, self.detector))
        usable = [each for each in found if long_and_large(each)]
        if not usable:
            raise NoTrack(
                f"LSE is defined for a face of more than {MIN_SIZE} px in {MIN_TRACK} frames or "
                f"more, {path} has {_described(found)}"
            )
        sound = read_waveform(path)
        numbered = enumerate(read_frames(path, fps=FPS))
        embedded = []
        for each in usable:
            begin, end = each.first, each.first + len(each.boxes)
            crops = cropped(islice(_from(begin, numbered), end - begin), each)
            own_sound = sound[begin * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
            count = len(each.boxes)
            embedded.append(
                embed_track(self.net, crops, count, own_sound, with_backwards=with_backwards)
            )
        return embedded


def wide_curves(
    pairs: Iterable[tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]],
) -> Float[Tensor, "t 61"]:
    """Mean distance of pictures and sound at each shift, a row per pair, over what both last.

    Twice as many shifts as LSE looks at, so that no shifted sound needs a second look.
    """
    rows = []
    for vision, sound in pairs:
        length = min(len(vision), len(sound))
        distances = shift_distances(vision[:length], sound[:length], max_shift=2 * MAX_SHIFT)
        rows.append(distances.mean(dim=1))
    return torch.stack(rows)


def _from(first: int, numbered: Iterable[tuple[int, Frame]]) -> Iterator[Frame]:
    return (frame for index, frame in numbered if index >= first)


def long_and_large(face_track: FaceTrack) -> bool:
    """Whether the authors would have measured it."""
    return len(face_track.boxes) >= MIN_TRACK and face_track.size > MIN_SIZE


def _described(tracks: list[FaceTrack]) -> str:
    longest = max(tracks, key=lambda each: len(each.boxes), default=None)
    if longest is None:
        return "none"
    return f"one of {longest.size:.0f} px in {len(longest.boxes)} frames at most"


def face_tracks(faces: Iterable[Face | None]) -> list[FaceTrack]:
    """Runs of overlapping boxes; frames without a face are interpolated."""
    tracks: list[tuple[list[int], list[np.ndarray]]] = []
    for index, face in enumerate(faces):
        if face is None:
            continue
        if tracks:
            where, boxes = tracks[-1]
            near = index - where[-1] <= MAX_GAP
            if near and overlap(boxes[-1], face.box[None])[0] > SAME_FACE:
                where.append(index)
                boxes.append(face.box)
                continue
        tracks.append(([index], [face.box]))
    return [_without_gaps(where, np.stack(boxes)) for where, boxes in tracks]


def _without_gaps(where: list[int], boxes: Float[np.ndarray, "n 4"]) -> FaceTrack:
    every = np.arange(where[0], where[-1] + 1)
    return FaceTrack(where[0], np.stack([np.interp(every, where, row) for row in boxes.T], axis=1))


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
