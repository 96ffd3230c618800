"""Videos whose picture and sound encode their own frame number, so that shifts are detected."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from latentsync.faces import FixedDetector
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter

SIZE = 128
FPS = 25
RESOLUTION = 64
# Left brow, right brow, nose; the crop of a face of 64 pixels lies inside the frame.
POINTS = [[50.0, 50.0], [78.7, 50.0], [64.35, 64.0]]
LOUD = range(40, 48)
# A face of 64 pixels is cropped from columns 38.1 to 90.6 and rows 36 to 106 of the frame.
FIRST_COLUMN, NUM_COLUMNS = 38.1, 52.5
BITS = 8

make_detector = partial(FixedDetector, POINTS)


def write_coded_video(
    path: Path, num_frames: int, *, loud: range = range(0), fps: int = FPS, sound: bool = True
) -> Path:
    """Frame i shows i in Gray code as dark and light stripes; consecutive frames differ in one
    stripe, so none is detected as a cut. There is a tone during `loud` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound_path = path.with_suffix(".wav")
    write_wav(sound_path, coded_sound(num_frames, loud, fps))
    with VideoWriter(
        path, fps=fps, width=SIZE, height=SIZE, crf=4, audio=sound_path if sound else None
    ) as writer:
        for index in range(num_frames):
            writer.write(coded_frame(index))
    sound_path.unlink()
    return path


def coded_frame(number: int) -> np.ndarray:
    stripe = (np.arange(SIZE) + 0.5 - FIRST_COLUMN) * BITS / NUM_COLUMNS
    bit = (number ^ number >> 1) >> np.floor(stripe).astype(int).clip(0, BITS - 1) & 1
    level = np.where((stripe >= 0) & (stripe < BITS), 64 + 128 * bit, 128)
    return np.ascontiguousarray(
        np.broadcast_to(level[None, :, None], (SIZE, SIZE, 3)).astype(np.uint8)
    )


def coded_sound(num_frames: int, loud: range, fps: int = FPS) -> torch.Tensor:
    samples_per_frame = 16_000 // fps
    time = torch.arange(num_frames * samples_per_frame) / 16_000
    frame = torch.arange(num_frames * samples_per_frame) // samples_per_frame
    is_loud = (frame >= loud.start) & (frame < loud.stop)
    return 0.5 * torch.sin(2 * torch.pi * 440 * time) * is_loud


def frame_numbers(pixels: torch.Tensor) -> list[int]:
    """Frame numbers of aligned faces of a coded video: "f 3 h w" with mean 0."""
    columns = pixels.mean(dim=(1, 2))
    stripes = columns.unflatten(1, (BITS, -1))
    width = stripes.shape[-1]
    codes = stripes[..., width // 4 : width - width // 4].mean(dim=-1) > 0
    bits = codes.flip(1).cumsum(dim=1).flip(1) % 2
    return (bits * 2 ** torch.arange(BITS)).sum(dim=1).tolist()
