"""What every method of the drawn benchmark should be better than.

PYTHONPATH=experiments/drawn_benchmark python evaluate.py benchmark=drawn method=baselines:copy
"""

from pathlib import Path

import cv2
import numpy as np
import torch

from latentsync.evaluation.landmarks import lips_of
from latentsync.faces import Face, MeshDetector, track
from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoWriter, read_frames
from latentsync.metrics.lips import LIPS, shape_of
from latentsync.metrics.mouth import MEL_FRAMES_PER_SECOND

FPS, CRF = 25.0, 14
# Sound around a frame by which it is retrieved, in frames of the mel spectrogram.
CONTEXT = 4
# Weight of the ridge, relative to the features' mean square: chosen before anything was measured.
RIDGE = 0.1
# Points of the face mesh that speech does not move: eye corners, bridge and tip of the nose.
STILL = [33, 133, 362, 263, 168, 6, 4]
# How far a pasted mouth reaches beyond its lips, and how soft its border is, in mouth widths.
REACH, SOFT = 0.3, 0.12


def copy(video: Path, audio: Path, out: Path) -> None:
    """The source as it is, with the voice as its sound."""
    frames = list(read_frames(video, fps=FPS))
    _write(out, frames, audio, range(len(frames)))


def shuffled(video: Path, audio: Path, out: Path) -> None:
    """The source's frames from its middle on, then those before: speech, but another one."""
    frames = list(read_frames(video, fps=FPS))
    _write(out, frames, audio, np.roll(np.arange(len(frames)), len(frames) // 2))


def retrieval(video: Path, audio: Path, out: Path) -> None:
    """For every moment of the voice the frame of the source whose own sound is nearest.

    With its own voice this finds every frame itself.
    """
    frames = list(read_frames(video, fps=FPS))
    heard, wanted = (_sounds(path, len(frames)) for path in (video, audio))
    _write(out, frames, audio, torch.cdist(wanted, heard).argmin(dim=1).tolist())


def regression(video: Path, audio: Path, out: Path) -> None:
    """For every moment of the voice the mouth of the source's frame with the opening that a ridge
    regression from sound, learnt on the source itself, predicts; pasted onto the frame as it is.

    With its own voice it has seen the answer.
    """
    frames = list(read_frames(video, fps=FPS))
    found = list(track(frames, MeshDetector()))
    openings = shape_of(lips_of(found))[:, 0].double()
    seen = torch.nonzero(~openings.isnan()).flatten()
    if not len(seen):
        raise ValueError(f"no face found in {video}")
    heard, wanted = (_sounds(path, len(frames)).double() for path in (video, audio))
    predicted = ridge(heard[seen], openings[seen], wanted)
    donors = seen[(predicted[:, None] - openings[seen]).abs().argmin(dim=1)].tolist()
    shown = []
    for frame, face, donor in zip(frames, found, donors, strict=False):
        other = found[donor]
        both = face is not None and other is not None
        shown.append(_with_mouth(frame, face, frames[donor], other) if both else frame)
    _write(out, shown, audio, range(len(shown)))


def ridge(inputs: torch.Tensor, targets: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Ridge regression of `targets` (n) on `inputs` (n d), evaluated at `others` (m d)."""
    center = inputs.mean(dim=0)
    inputs, others = inputs - center, others - center
    products = inputs @ inputs.T
    weight = RIDGE * products.diagonal().mean() * torch.eye(len(inputs), dtype=inputs.dtype)
    solved = torch.linalg.solve(products + weight, targets - targets.mean())
    return others @ inputs.T @ solved + targets.mean()


def _with_mouth(frame: np.ndarray, face: Face, donor: np.ndarray, other: Face) -> np.ndarray:
    """The frame with the mouth of the donor, brought to its place by points that do not speak."""
    matrix, _ = cv2.estimateAffinePartial2D(other.points[STILL], face.points[STILL])
    if matrix is None:
        return frame
    height, width = frame.shape[:2]
    brought = cv2.warpAffine(donor, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    lips = face.points[list(LIPS)]
    moved = other.points[list(LIPS)] @ matrix[:, :2].T + matrix[:, 2]
    mouth_width = float(np.ptp(lips[:, 0]))
    mask = np.zeros((height, width), np.float32)
    hull = cv2.convexHull(np.concatenate([lips, moved]).round().astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    side = 2 * round(REACH * mouth_width) + 1
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    mask = cv2.GaussianBlur(mask, (0, 0), max(SOFT * mouth_width, 1.0))[..., None]
    return np.rint(mask * brought + (1 - mask) * frame).astype(np.uint8)


def _sounds(path: Path, num_frames: int) -> torch.Tensor:
    """The mel spectrogram around every frame, without its mean loudness over the clip."""
    mel = mel_spectrogram(read_waveform(path))
    mel = torch.nn.functional.pad(mel - mel.mean(), (CONTEXT, CONTEXT), value=float(mel.min()))
    per_frame = MEL_FRAMES_PER_SECOND / FPS
    starts = (torch.arange(num_frames) * per_frame).long().clamp(max=mel.shape[1] - 2 * CONTEXT)
    return torch.stack([mel[:, start : start + 2 * CONTEXT].flatten() for start in starts.tolist()])


def _write(out: Path, frames: list[np.ndarray], audio: Path, order: object) -> None:
    height, width = frames[0].shape[:2]
    seconds = len(frames) / FPS
    form = {"fps": FPS, "width": width, "height": height, "crf": CRF}
    with VideoWriter(out, **form, audio=audio, audio_seconds=seconds) as writer:
        for index in np.asarray(order).tolist():
            writer.write(frames[index])
