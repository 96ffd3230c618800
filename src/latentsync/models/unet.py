"""The denoising network: diffusers' motion UNet with LatentSync's norm scopes and audio tokens.

Latents are "b c f h w", audio is "b f s d"; frames are folded into the batch at the input and
unfolded at the output.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from diffusers import UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn
from diffusers.models.unets.unet_motion_model import (
    CrossAttnDownBlockMotion,
    CrossAttnUpBlockMotion,
    DownBlockMotion,
    UpBlockMotion,
)
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.models.audio.projection import AudioProjection
from latentsync.models.unet_layers import (
    ClipResnetBlock,
    MotionTransformer,
    NoMotion,
    ScaledAttention,
    SpatialTransformer,
    norm_over_clip,
)

MotionBlock: TypeAlias = (
    CrossAttnDownBlockMotion | DownBlockMotion | CrossAttnUpBlockMotion | UpBlockMotion
)


class UNet(UNetMotionModel):
    """Predicts noise, velocity or clean latents of a chunk of frames from noisy ones and audio.

    Norms of residual blocks and of the output are over the whole chunk, norms of attentions over
    one frame. `attention_levels`, finest level first, says where frames have self-attention and
    cross-attention to audio; the bottom always has. `motion` says where motion modules are: none,
    decoder or all.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913  every one is a line of config.json
        self,
        *,
        in_channels: int = 13,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        attention_levels: Sequence[bool] = (True, True, True, False),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 384,
        num_attention_heads: int = 8,
        motion: str = "none",
        motion_num_attention_heads: int = 8,
        motion_max_seq_length: int = 24,
        audio_projection: Mapping[str, int] | None = None,
        zero_init: bool = False,
    ) -> None:
        if motion not in ("none", "decoder", "all"):
            raise ValueError(f"motion must be none, decoder or all, got {motion!r}")
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(
                "CrossAttnDownBlockMotion" if attends else "DownBlockMotion"
                for attends in attention_levels
            ),
            up_block_types=tuple(
                "CrossAttnUpBlockMotion" if attends else "UpBlockMotion"
                for attends in reversed(attention_levels)
            ),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            num_attention_heads=num_attention_heads,
            motion_num_attention_heads=motion_num_attention_heads,
            motion_max_seq_length=motion_max_seq_length,
            use_motion_mid_block=False,
        )
        take_over_layers(self.mid_block)
        for block in self.down_blocks:
            take_over_layers(block)
            take_over_motion(block, keep=motion == "all")
        for block in self.up_blocks:
            take_over_layers(block)
            take_over_motion(block, keep=motion != "none")
        self.project_audio = (
            AudioProjection(**audio_projection, dim_out=cross_attention_dim)
            if audio_projection is not None
            else None
        )
        self.set_attn_processor(ScaledAttention())
        if zero_init:
            zero_outputs(self)

    def forward(
        self,
        sample: Float[Tensor, "b c_in f h w"],
        timestep: Num[Tensor, " b"] | Num[Tensor, ""] | int,
        audio: Float[Tensor, "b f s d"] | None = None,
    ) -> Float[Tensor, "b c_out f h w"]:
        num_clips, _, num_frames, height, width = sample.shape
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(num_clips)
        temb, audio = self.embed(timesteps, audio)
        hidden = self.conv_in(rearrange(sample, "b c f h w -> (b f) c h w"))
        skips = (hidden,)
        for block in self.down_blocks:
            context = {"encoder_hidden_states": audio} if hasattr(block, "attentions") else {}
            hidden, outputs = block(hidden, temb=temb, num_frames=num_frames, **context)
            skips += outputs

        hidden = self.mid_block(hidden, temb, encoder_hidden_states=audio)

        num_halvings = len(self.up_blocks) - 1
        odd_size = height % 2**num_halvings or width % 2**num_halvings
        for block in self.up_blocks:
            context = {"encoder_hidden_states": audio} if hasattr(block, "attentions") else {}
            skips, block_skips = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
            hidden = block(
                hidden,
                res_hidden_states_tuple=block_skips,
                temb=temb,
                num_frames=num_frames,
                upsample_size=skips[-1].shape[-2:] if odd_size and skips else None,
                **context,
            )

        hidden = self.conv_out(F.silu(norm_over_clip(self.conv_norm_out, hidden, num_frames)))
        return rearrange(hidden, "(b f) c h w -> b c f h w", f=num_frames)

    def embed(
        self, timesteps: Num[Tensor, " b"], audio: Float[Tensor, "b f s d"] | None
    ) -> tuple[Float[Tensor, "b t"], Float[Tensor, "bf s2 d2"] | None]:
        """The conditioning of every layer: time embedding per clip, audio tokens per frame."""
        temb = self.time_embedding(self.time_proj(timesteps).to(self.conv_in.weight.dtype))
        if audio is None:
            return temb, None
        tokens = rearrange(audio, "b f s d -> (b f) s d")
        return temb, tokens if self.project_audio is None else self.project_audio(tokens)

    def load_spatial(self, state: Mapping[str, Tensor]) -> None:
        """Load all but the motion modules from a state dict without them; strict otherwise."""
        motion = {key: value for key, value in self.state_dict().items() if ".motion_" in key}
        self.load_state_dict({**motion, **state}, strict=True)


# Other diffusers options keep their defaults and stay out of our config.json.
UNet.ignore_for_config = sorted(
    set(inspect.signature(UNetMotionModel.__init__).parameters)
    - set(inspect.signature(UNet.__init__).parameters)
)


def take_over_layers(block: MotionBlock | UNetMidBlock2DCrossAttn) -> None:
    """Replace diffusers' residual blocks and spatial transformers with ours, in place."""
    block.resnets = nn.ModuleList(map(ClipResnetBlock, block.resnets))
    if hasattr(block, "attentions"):
        block.attentions = nn.ModuleList(map(SpatialTransformer, block.attentions))


def take_over_motion(block: MotionBlock, *, keep: bool) -> None:
    """Replace diffusers' motion modules with ours, or with nothing, in place."""
    block.motion_modules = nn.ModuleList(
        MotionTransformer(module) if keep else NoMotion() for module in block.motion_modules
    )


def zero_outputs(unet: UNet) -> None:
    """Initialise so that every residual block is its shortcut and the network outputs zero."""
    blocks = [module for module in unet.modules() if isinstance(module, ClipResnetBlock)]
    for conv in [unet.conv_out, *(block.conv2 for block in blocks)]:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
