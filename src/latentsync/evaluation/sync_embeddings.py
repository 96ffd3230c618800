"""Faces and sound => SyncNet's embeddings and their cosines at every shift."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.media.mel import mel_window
from latentsync.metrics.blocks import pixel_blocks
from latentsync.metrics.sync import shift_cosines
from latentsync.models.syncnet import StableSyncNet, resized

SYNC_BATCH = 16

Pictures = Float[Tensor, "f 3 half r"]
Vision = Float[Tensor, "n d"]
Sound = Float[Tensor, "m d"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What SyncNet sees and hears of a clip, computed once: the lower halves of all faces at its
    resolution, the embeddings of every `stride`-th window of them, and those of the sound of every
    window."""

    pictures: Pictures
    vision: Vision
    sound: Sound


def lower_halves(syncnet: StableSyncNet, faces: UInt8[np.ndarray, "f h w 3"]) -> Pictures:
    """The part of aligned faces that SyncNet sees, in [-1, 1]; a few faces at a time, as all in
    float32 are slow to make."""
    side = syncnet.config.resolution
    halves = (resized(pixels[0], side)[..., side // 2 :, :] for pixels in pixel_blocks(faces))
    return torch.cat(list(halves))


@torch.no_grad()
def embed_pictures(syncnet: StableSyncNet, pictures: Pictures, *, stride: int) -> Vision:
    """The embedding of every `stride`-th window of `lower_halves`."""
    windows = pictures.unfold(0, syncnet.config.num_frames, stride)
    stacked = rearrange(windows, "n c h w f -> n (f c) h w")
    return _in_parts(syncnet.embed_frames, stacked.to(syncnet.device))


@torch.no_grad()
def sync_cosines(
    syncnet: StableSyncNet,
    pixels: Float[Tensor, "1 f 3 h w"],
    mel: Float[Tensor, "80 t"],
    *,
    fps: float,
    stride: int,
) -> Float[Tensor, "n k"]:
    """Cosines of every `stride`-th window of frames with the audio at every shift."""
    num_windows = count_windows(syncnet, pixels.shape[1])
    return shift_cosines(
        embed_windows(syncnet, pixels, stride=stride),
        embed_sound(syncnet, mel, num_windows, fps=fps),
        window_starts(num_windows, stride),
    )


def count_windows(syncnet: StableSyncNet, num_frames: int) -> int:
    """The windows that begin in a clip and do not leave it; ValueError if there is none."""
    length = syncnet.config.num_frames
    if num_frames < length:
        raise ValueError(f"sync needs {length} frames or more, got {num_frames}")
    return num_frames - length + 1


def window_starts(num_windows: int, stride: int) -> Tensor:
    """The first frames of the windows that are embedded."""
    return torch.arange(0, num_windows, stride)


@torch.no_grad()
def embed_windows(
    syncnet: StableSyncNet, pixels: Float[Tensor, "1 f 3 h w"], *, stride: int
) -> Float[Tensor, "n d"]:
    """The embedding of every `stride`-th window of frames."""
    # Before windows are taken, as they overlap.
    side = syncnet.config.resolution
    small = resized(pixels[0], side)[..., side // 2 :, :]
    return embed_pictures(syncnet, small, stride=stride)


@torch.no_grad()
def embed_sound(
    syncnet: StableSyncNet, mel: Float[Tensor, "80 t"], num_windows: int, *, fps: float
) -> Float[Tensor, "m d"]:
    """The embedding of the sound of every window."""
    length = syncnet.config.num_frames
    mels = torch.stack(
        [mel_window(mel, start, num_frames=length, fps=fps) for start in range(num_windows)]
    )
    return _in_parts(syncnet.embed_mel, mels[:, None].to(syncnet.device))


def _in_parts(embed: Callable[[Tensor], Tensor], inputs: Tensor) -> Float[Tensor, "n d"]:
    return torch.cat([embed(part) for part in inputs.split(SYNC_BATCH)]).float().cpu()
