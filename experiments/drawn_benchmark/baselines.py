"""What every method of the drawn benchmark should be better than.

PYTHONPATH=experiments/drawn_benchmark python evaluate.py benchmark=drawn method=baselines:copy
"""

from pathlib import Path

import numpy as np
import torch

from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoWriter, read_frames
from latentsync.metrics.mouth import MEL_FRAMES_PER_SECOND

FPS, CRF = 25.0, 14
# Sound around a frame by which it is retrieved, in frames of the mel spectrogram.
CONTEXT = 4


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
