"""diffusers layers with the norm scopes LatentSync needs.

Each class reuses the sub-modules of a diffusers layer, which keeps the names in the state dict;
only the forward pass differs. Frames are folded into the batch throughout; layers that need the
number of frames per clip derive it from their inputs, so no state is kept between calls.
"""

from collections.abc import Callable

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Above this many keys the attention matrix costs more memory than it saves time.
MAX_EXPLICIT_TOKENS = 1024


def norm_over_clip(
    norm: nn.GroupNorm, frames: Float[Tensor, "bf c h w"], num_frames: int
) -> Float[Tensor, "bf c h w"]:
    """Group norm with statistics over all frames of a clip.

    In channels-last memory both permutations are free.
    """
    clips = rearrange(frames, "(b f) c h w -> b c f h w", f=num_frames)
    return rearrange(norm(clips), "b c f h w -> (b f) c h w")


class ClipResnetBlock(nn.Module):
    """Residual block with norms over the whole clip and one time embedding per clip."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.conv1 = block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2 = block.norm2
        self.conv2 = block.conv2
        self.conv_shortcut = nn.Identity() if block.conv_shortcut is None else block.conv_shortcut

    def forward(
        self, input_tensor: Float[Tensor, "bf c_in h w"], temb: Float[Tensor, "b t"]
    ) -> Float[Tensor, "bf c_out h w"]:
        num_frames = input_tensor.shape[0] // temb.shape[0]
        hidden = self.conv1(F.silu(norm_over_clip(self.norm1, input_tensor, num_frames)))
        shift = self.time_emb_proj(F.silu(temb)).repeat_interleave(num_frames, dim=0)
        hidden = hidden + shift[:, :, None, None]
        hidden = self.conv2(F.silu(norm_over_clip(self.norm2, hidden, num_frames)))
        return self.conv_shortcut(input_tensor) + hidden


class AudioBlock(nn.Module):
    """Self-attention within a frame, cross-attention to its audio (if any), MLP."""

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn1 = block.attn1
        self.norm2 = block.norm2
        self.attn2 = block.attn2
        self.norm3 = block.norm3
        self.ff = block.ff

    def forward(
        self, tokens: Float[Tensor, "n q c"], audio: Float[Tensor, "n s d"] | None
    ) -> Float[Tensor, "n q c"]:
        tokens = self.attn1(self.norm1(tokens)) + tokens
        if audio is not None:
            tokens = self.attn2(self.norm2(tokens), encoder_hidden_states=audio) + tokens
        return self.ff(self.norm3(tokens)) + tokens


class SpatialTransformer(nn.Module):
    """Attention within each frame; `encoder_hidden_states` is its audio."""

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by the library

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        self.norm = transformer.norm
        self.proj_in = transformer.proj_in
        self.transformer_blocks = nn.ModuleList(map(AudioBlock, transformer.transformer_blocks))
        self.proj_out = transformer.proj_out
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Float[Tensor, "bf c h w"],
        encoder_hidden_states: Float[Tensor, "bf s d"] | None = None,
        **_masks: object,
    ) -> tuple[Float[Tensor, "bf c h w"]]:
        height = hidden_states.shape[-2]
        tokens = rearrange(self.proj_in(self.norm(hidden_states)), "n c h w -> n (h w) c")
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = self._gradient_checkpointing_func(block, tokens, encoder_hidden_states)
            else:
                tokens = block(tokens, encoder_hidden_states)
        hidden = self.proj_out(rearrange(tokens, "n (h w) c -> n c h w", h=height))
        return (hidden + hidden_states,)


class MotionTransformer(nn.Module):
    """Attention along the frames of a clip at each position separately; its norm is per frame.

    The output projection is initialised to zero: a new module changes nothing.
    """

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by the library

    def __init__(self, transformer: AnimateDiffTransformer3D) -> None:
        super().__init__()
        self.norm = transformer.norm
        self.proj_in = transformer.proj_in
        self.transformer_blocks = transformer.transformer_blocks
        self.proj_out = transformer.proj_out
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        self.gradient_checkpointing = False

    def forward(
        self, hidden_states: Float[Tensor, "bf c h w"], num_frames: int
    ) -> Float[Tensor, "bf c h w"]:
        height, width = hidden_states.shape[-2:]
        tokens = rearrange(self.norm(hidden_states), "(b f) c h w -> (b h w) f c", f=num_frames)
        tokens = self.proj_in(tokens.contiguous())  # else torch multiplies position by position
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = self._gradient_checkpointing_func(block, tokens)
            else:
                tokens = block(tokens)
        hidden = rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)
        return hidden + hidden_states


class ScaledAttention:
    """Unmasked attention, as a processor for diffusers' attention layers."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "n q c"],
        encoder_hidden_states: Float[Tensor, "n k d"] | None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "n q c"]:
        assert attention_mask is None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            rearrange(tokens, "n t (h d) -> n h t d", h=attn.heads)
            for tokens in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        if trains_in_bfloat16_on_cpu(query) and key.shape[-2] <= MAX_EXPLICIT_TOKENS:
            weights = (query * attn.scale @ key.mT).softmax(dim=-1)
            attended = weights @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](rearrange(attended, "n h t d -> n t (h d)"))


def trains_in_bfloat16_on_cpu(query: Tensor) -> bool:
    """Whether torch's fused attention would be slow: in bfloat16 on a CPU its backward pass takes
    twice the time of plain products, twelve times with few keys (torch 2.14.1)."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and torch.is_grad_enabled()


class NoMotion(nn.Module):
    """Placeholder for a motion module: the identity."""

    def forward(
        self, hidden_states: Float[Tensor, "bf c h w"], num_frames: int
    ) -> Float[Tensor, "bf c h w"]:
        return hidden_states
