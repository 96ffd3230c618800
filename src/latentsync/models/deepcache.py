"""DeepCache (arXiv 2312.00858) for our UNet: its deep part changes little from step to step.

Branch 0: only the last layer of the last level, next to the output, runs in every step; its input
from the deeper levels is cached from the last full step, as in the helper of the official pipeline.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.models.unet import UNet
from latentsync.models.unet_layers import norm_over_clip


class DeepCache:
    """Replaces the UNet during one sampling loop: call it once per step, with the same clips.

    The first step is full, then every `interval`-th. A step may omit clips at the front of the
    batch (those without audio, in unguided steps); the step in which they return is full. Not for
    training.
    """

    def __init__(self, unet: UNet, interval: int) -> None:
        self.unet = unet
        self.interval = interval
        self.step = 0
        self.deep: Float[Tensor, "bf c h w"] | None = None

    def __call__(
        self,
        sample: Float[Tensor, "b c_in f h w"],
        timestep: Num[Tensor, " b"],
        audio: Float[Tensor, "b f s d"] | None = None,
    ) -> Float[Tensor, "b c_out f h w"]:
        full = is_full(self.step, self.interval)
        self.step += 1
        num_frames = sample.shape[0] * sample.shape[2]
        if full or self.deep is None or len(self.deep) < num_frames:
            return self._full(sample, timestep, audio)
        return self._shallow(self.deep[-num_frames:], sample, timestep, audio)

    def _full(self, sample: Tensor, timestep: Tensor, audio: Tensor | None) -> Tensor:
        num_shallow = self.unet.conv_in.out_channels

        def keep(_layer: nn.Module, _: tuple[()], inputs: dict[str, Tensor]) -> None:
            # The input from below comes before the skip connection, the output of `conv_in`.
            self.deep = inputs["input_tensor"][:, :-num_shallow]

        last = self.unet.up_blocks[-1].resnets[-1]
        hook = last.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            return self.unet(sample, timestep, audio)
        finally:
            hook.remove()

    def _shallow(
        self, deep: Tensor, sample: Tensor, timestep: Tensor, audio: Tensor | None
    ) -> Tensor:
        unet, num_frames = self.unet, sample.shape[2]
        temb, tokens = unet.embed(timestep, audio)
        last = unet.up_blocks[-1]
        skip = unet.conv_in(rearrange(sample, "b c f h w -> (b f) c h w"))
        hidden = last.resnets[-1](torch.cat([deep, skip], dim=1), temb)
        if hasattr(last, "attentions"):
            (hidden,) = last.attentions[-1](hidden, encoder_hidden_states=tokens)
        hidden = last.motion_modules[-1](hidden, num_frames=num_frames)
        hidden = unet.conv_out(F.silu(norm_over_clip(unet.conv_norm_out, hidden, num_frames)))
        return rearrange(hidden, "(b f) c h w -> b c f h w", f=num_frames)


def is_full(step: int, interval: int) -> bool:
    """Whether the whole UNet runs in this step, counted from 0: 7 of 20 steps for interval 3."""
    return step % interval == 0
