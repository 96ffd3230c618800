"""How far apart a picture and a sound of one clip are, in frames: a task beside yes and no."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class OffsetHead(nn.Module):
    """Reads the offset of every pair of one clip off both embeddings.

    In or off says nothing about a pair that is off by 3 frames rather than by 30; to name the
    offset the embeddings must keep when in its window the mouth did what.
    """

    def __init__(self, num_channels: int, *, max_offset_frames: int) -> None:
        super().__init__()
        if max_offset_frames < 1:
            raise ValueError(f"max_offset_frames must be 1 or more, got {max_offset_frames}")
        self.max_offset_frames = max_offset_frames
        self.vision = nn.Linear(num_channels, num_channels)
        self.audio = nn.Linear(num_channels, num_channels)
        self.out = nn.Linear(num_channels, 1)

    def forward(
        self, vision: Float[Tensor, "b d"], audio: Float[Tensor, "c d"]
    ) -> Float[Tensor, "b c"]:
        """By how many frames sound j comes after picture i."""
        hidden = self.vision(vision)[:, None] + self.audio(audio)[None]
        return self.out(functional.gelu(hidden))[..., 0] * self.max_offset_frames

    def told(
        self, offsets: Float[Tensor, "b b"], same_clip: Bool[Tensor, "b b"]
    ) -> Bool[Tensor, "b b"]:
        """Which pairs have an offset to name: of one clip, `max_offset_frames` apart at most."""
        return same_clip & (offsets.abs() <= self.max_offset_frames)

    def error(
        self,
        vision: Float[Tensor, "b d"],
        audio: Float[Tensor, "b d"],
        offsets: Float[Tensor, "b b"],
        same_clip: Bool[Tensor, "b b"],
    ) -> Float[Tensor, ""]:
        """Mean absolute error in frames, smooth within one frame, over the pairs that count.

        `offsets[i, j]`: the first frame of window j less that of window i.
        """
        told = self.told(offsets, same_clip)
        error = functional.smooth_l1_loss(self(vision, audio), offsets, reduction="none")
        # No boolean index: its size would have to be waited for on a GPU.
        return torch.where(told, error, 0).sum() / told.sum()
