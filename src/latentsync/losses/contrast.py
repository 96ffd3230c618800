"""The losses of SyncNet: which sound belongs to which frames."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


def cosine_bce(
    vision: Float[Tensor, "b d"], audio: Float[Tensor, "b d"], in_sync: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy on the cosine of unit embeddings (the official SyncNet loss).

    The cosine is treated as a probability. Embeddings that end in a ReLU keep it in [0, 1]; it is
    clamped anyway, because rounding can leave that interval.
    """
    probability = (vision.float() * audio.float()).sum(dim=-1).clamp(0, 1)
    return functional.binary_cross_entropy(probability, in_sync.float())


class InfoNCE(nn.Module):
    """Contrastive loss: each window must match its own sound among all in the batch, and back.

    InfoNCE (arXiv 1807.03748) with a learned temperature; experiments/syncnet_stuck compares it
    with the official loss. Negatives from the same clip are the hard ones, since neither face nor
    voice gives them away: each counts `same_clip_weight` times.
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
        """`too_near` marks pairs too close in time to be negatives, `same_clip` pairs from one
        clip; the diagonals are ignored.
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
    """Predicts the offset of every pair from one clip, from both embeddings.

    In sync or not does not distinguish an offset of 3 frames from one of 30; to predict it, the
    embeddings must encode when in its window the mouth moved how.
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
        """The number of frames by which sound j comes after picture i, for all pairs."""
        hidden = self.vision(vision)[:, None] + self.audio(audio)[None]
        return self.out(functional.gelu(hidden))[..., 0] * self.max_offset_frames

    def valid_pairs(
        self, offsets: Float[Tensor, "b b"], same_clip: Bool[Tensor, "b b"]
    ) -> Bool[Tensor, "b b"]:
        """The pairs with a defined offset: from one clip, at most `max_offset_frames` apart."""
        return same_clip & (offsets.abs() <= self.max_offset_frames)

    def error(
        self,
        vision: Float[Tensor, "b d"],
        audio: Float[Tensor, "b d"],
        offsets: Float[Tensor, "b b"],
        same_clip: Bool[Tensor, "b b"],
    ) -> Float[Tensor, ""]:
        """Mean absolute error in frames over the valid pairs, smooth within one frame.

        `offsets[i, j]`: the first frame of window j minus that of window i.
        """
        valid_pairs = self.valid_pairs(offsets, same_clip)
        error = functional.smooth_l1_loss(self(vision, audio), offsets, reduction="none")
        # No boolean index: its size would force a synchronisation on a GPU.
        return torch.where(valid_pairs, error, 0).sum() / valid_pairs.sum()
