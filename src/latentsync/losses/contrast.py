"""How SyncNet learns which sound belongs to which frames."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


def cosine_bce(
    vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], in_sync: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy on the cosine of unit embeddings, the official SyncNet loss.

    The cosine is read as a probability. Embeddings that end in a ReLU keep it in [0, 1]; it is
    clamped all the same, since rounding can leave the interval and the logarithm can not.
    """
    probability = (vision.float() * audio.float()).sum(dim=-1).clamp(0, 1)
    return functional.binary_cross_entropy(probability, in_sync.float())


class InfoNCE(nn.Module):
    """Every window must find its own sound among all others of the batch, and back.

    InfoNCE (arXiv 1807.03748) with a learned temperature. How it begins beside the official loss:
    see experiments/syncnet_stuck. A negative of the same
    clip is the hard case, as neither face nor voice tells it apart: it counts `same_clip_weight`
    times, as if the batch held that many of it.
    """

    def __init__(self, *, temperature: float = 0.07, same_clip_weight: float = 1.0) -> None:
        super().__init__()
        if same_clip_weight <= 0:
            raise ValueError(f"same_clip_weight must be more than 0, got {same_clip_weight}")
        self.same_clip_bonus = math.log(same_clip_weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(
        self,
        vision: Float[Tensor, "b d"],
        audio: Float[Tensor, "b d"],
        too_near: Bool[Tensor, "b b"],
        same_clip: Bool[Tensor, "b b"] | None = None,
    ) -> Float[Tensor, ""]:
        """`too_near` marks pairs that are no fair negatives, `same_clip` pairs of one clip; the
        diagonals are ignored.
        """
        scores = vision.float() @ audio.float().T * self.log_scale.exp().clamp(max=100)
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        if same_clip is not None:
            scores = scores + self.same_clip_bonus * (same_clip & ~own)
        scores = scores.masked_fill(too_near & ~own, -torch.inf)
        target = torch.arange(len(scores), device=scores.device)
        return (
            functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)
        ) / 2


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

    def valid_pairs(
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
        valid_pairs = self.valid_pairs(offsets, same_clip)
        error = functional.smooth_l1_loss(self(vision, audio), offsets, reduction="none")
        # No boolean index: its size would have to be waited for on a GPU.
        return torch.where(valid_pairs, error, 0).sum() / valid_pairs.sum()
