"""StableSyncNet: a unit vector for 16 lower half-faces, and one for the sound beside them."""

from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path
from typing import TypeAlias, TypedDict

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.models.serialization import load_network

MEL_BANDS = 80
# Values of `trained_on`: the kind of faces a network was trained on.
SYNTHETIC, RECORDED = "drawn", "recorded"
MIN_EMBEDDING = 4
Factor: TypeAlias = int | Sequence[int]


class TowerConfig(TypedDict):
    """One encoder tower: input channels, and width, downsampling and attention of each level."""

    in_channels: int
    block_out_channels: Sequence[int]
    downsample_factors: Sequence[Factor]  # a number, or [vertical, horizontal]
    attn_blocks: Sequence[int]  # 1: attention after this level
    dropout: float


class StableSyncNet(ModelMixin, ConfigMixin):
    """Two convolutional towers; the cosine of their outputs, in [0, 1], measures sync.

    `resolution` is the side of the square frames of the visual tower; with `lower_half` it reads
    their lower half. `trained_on` records the kind of training faces, outside of which its scores
    are not valid: drawn, recorded, both, or None if unknown.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        audio_encoder: TowerConfig,
        visual_encoder: TowerConfig,
        num_frames: int = 16,
        resolution: int = 256,
        lower_half: bool = True,
        trained_on: str | None = None,
    ) -> None:
        super().__init__()
        num_mel_frames = -(-num_frames * 16 // 5)
        mel_size = end_size((MEL_BANDS, num_mel_frames), audio_encoder["downsample_factors"])
        height = resolution // 2 if lower_half else resolution
        face_size = end_size((height, resolution), visual_encoder["downsample_factors"])
        num_audio = audio_encoder["block_out_channels"][-1]
        num_visual = visual_encoder["block_out_channels"][-1]
        if mel_size != (1, 1) or face_size != (1, 1) or num_audio != num_visual:
            raise ValueError(
                "both towers of a SyncNet must end in the same number of channels at one place; "
                f"the mel of {num_mel_frames} frames ends in {num_audio} at {mel_size}, "
                f"faces of {height}x{resolution} end in {num_visual} at {face_size}"
            )
        if num_audio < MIN_EMBEDDING:
            raise ValueError(
                f"the last level of a SyncNet's towers must be {MIN_EMBEDDING} channels wide or "
                f"more, or its norm leaves nothing of an embedding; got {num_audio}"
            )
        self.audio_encoder = DownEncoder(**audio_encoder)
        self.visual_encoder = DownEncoder(**visual_encoder)

    @property
    def reads_latents(self) -> bool:
        """Whether it reads whole latents instead of RGB frames."""
        return self.config.visual_encoder["in_channels"] != 3 * self.config.num_frames

    def forward(
        self, frames: Float[Tensor, "b fc h w"], mel: Float[Tensor, "b 1 m t"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        return self.embed_frames(frames), self.embed_mel(mel)

    def embed_frames(self, frames: Float[Tensor, "b fc h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of stacks of frames made by `sync_input`."""
        return F.normalize(self.visual_encoder(frames).flatten(1), dim=1)

    def embed_mel(self, mel: Float[Tensor, "b 1 m t"]) -> Float[Tensor, "b d"]:
        """Unit vectors of mel windows."""
        return F.normalize(self.audio_encoder(mel).flatten(1), dim=1)


# diffusers looks names up in the config before the sub-modules; the towers are in both.
StableSyncNet.__getattr__ = nn.Module.__getattr__


def sync_input(
    pixels: Float[Tensor, "b f c h w"], resolution: int
) -> Float[Tensor, "b fc half resolution"]:
    """Stack the lower half of every frame along channels, frame by frame, as the network
    expects."""
    if pixels.shape[-2:] != (resolution, resolution):
        flat = resized(rearrange(pixels, "b f c h w -> (b f) c h w"), resolution)
        pixels = rearrange(flat, "(b f) c h w -> b f c h w", f=pixels.shape[1])
    return rearrange(pixels[..., resolution // 2 :, :], "b f c h w -> b (f c) h w")


def resized(
    pictures: Float[Tensor, "n c h w"], resolution: int
) -> Float[Tensor, "n c resolution resolution"]:
    if pictures.shape[-2:] == (resolution, resolution):
        return pictures
    return F.interpolate(pictures, size=(resolution, resolution), mode="bicubic")


def latent_sync_input(latents: Float[Tensor, "b f c x y"]) -> Float[Tensor, "b fc x y"]:
    """Stack the latents of all frames along channels, frame by frame."""
    return rearrange(latents, "b f c x y -> b (f c) x y")


def load_syncnet(folder: Path | str) -> StableSyncNet:
    """Load the SyncNet of a folder written by training."""
    return load_network(StableSyncNet, folder)


class DownEncoder(nn.Module):
    """Residual blocks that downsample to a single position; ends in a ReLU."""

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by the library

    def __init__(
        self,
        *,
        in_channels: int,
        block_out_channels: Sequence[int],
        downsample_factors: Sequence[Factor],
        attn_blocks: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        width = block_out_channels[0]
        self.conv_in = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
        # Attention is in the same list as the residual blocks, which keeps the official names.
        self.down_blocks = nn.ModuleList()
        levels = zip(block_out_channels, downsample_factors, attn_blocks, strict=True)
        for width_out, factor, attention in levels:
            self.down_blocks.append(ResnetBlock(width, width_out, factor, dropout))
            if attention:
                self.down_blocks.append(AttentionBlock(width_out))
            width = width_out
        self.norm_out = end_norm(width)
        self.gradient_checkpointing = False

    def forward(self, picture: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        hidden = self.conv_in(picture)
        for block in self.down_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = self._gradient_checkpointing_func(block, hidden)
            else:
                hidden = block(hidden)
        return F.relu(self.norm_out(hidden))


class ResnetBlock(nn.Module):
    """Two convolutions around a shortcut, then a strided one unless the factor is 1."""

    def __init__(self, width_in: int, width_out: int, factor: Factor, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, kernel_size=3, padding=1)
        self.norm2 = group_norm(width_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width_out, width_out, kernel_size=3, padding=1)
        self.conv_shortcut = (
            nn.Conv2d(width_in, width_out, kernel_size=1)
            if width_in != width_out
            else nn.Identity()
        )
        vertical, horizontal = strides(factor)
        self.downsample_conv = (
            nn.Conv2d(width_out, width_out, kernel_size=3, stride=(vertical, horizontal))
            if factor != 1
            else None
        )
        # left, right, top, bottom: an unstrided axis keeps its length
        self.pad = (int(horizontal == 1), 1, int(vertical == 1), 1)

    def forward(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        inner = self.conv1(F.silu(self.norm1(hidden)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner))))
        hidden = self.conv_shortcut(hidden) + inner
        if self.downsample_conv is None:
            return hidden
        return self.downsample_conv(F.pad(hidden, self.pad))


class AttentionBlock(nn.Module):
    """Self-attention over all positions, then a gated MLP."""

    def __init__(self, width: int, num_heads: int = 8) -> None:
        super().__init__()
        self.norm1 = group_norm(width)
        self.conv_in = nn.Conv2d(width, width, kernel_size=1)
        self.norm2 = nn.LayerNorm(width)
        self.attn = Attention(width, heads=num_heads, dim_head=width // num_heads, bias=True)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, activation_fn="geglu")
        self.conv_out = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        height = hidden.shape[-2]
        tokens = rearrange(self.conv_in(self.norm1(hidden)), "b c h w -> b (h w) c")
        tokens = self.attn(self.norm2(tokens)) + tokens
        tokens = self.ff(self.norm3(tokens)) + tokens
        return self.conv_out(rearrange(tokens, "b (h w) c -> b c h w", h=height)) + hidden


def group_norm(width: int) -> nn.GroupNorm:
    """Group norm with 32 groups as in the official networks, fewer if the width requires it."""
    return nn.GroupNorm(gcd(32, width), width, eps=1e-6)


def end_norm(width: int) -> nn.GroupNorm:
    """The same for the single position at the end of a tower, where a group of one channel would
    always normalise to zero: such narrow towers (none is official) use four channels per group."""
    norm = group_norm(width)
    return norm if norm.num_groups < width else nn.GroupNorm(max(1, width // 4), width, eps=1e-6)


def strides(factor: Factor) -> tuple[int, int]:
    """A downsampling factor as (vertical, horizontal)."""
    vertical, horizontal = (factor, factor) if isinstance(factor, int) else factor
    return vertical, horizontal


def end_size(size: tuple[int, int], factors: Sequence[Factor]) -> tuple[int, int]:
    """The (height, width) left after all levels."""
    height, width = size
    for vertical, horizontal in map(strides, factors):
        height, width = height // vertical, width // horizontal
    return height, width
