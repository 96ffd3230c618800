"""A few convolutions that turn many audio rows into few attention tokens."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class AudioProjection(nn.Module):
    """Audio rows around one frame => fewer, wider tokens with positional embeddings."""

    def __init__(self, *, tokens_in: int, dim_in: int, tokens_out: int, dim_out: int) -> None:
        super().__init__()
        num_halvings = (tokens_in // tokens_out).bit_length() - 1
        if tokens_out * 2**num_halvings != tokens_in:
            raise ValueError(
                "the audio projection halves the number of tokens a whole number of times, "
                f"which does not lead from tokens_in={tokens_in} to tokens_out={tokens_out}"
            )
        strides = [1] + [2] * num_halvings + [1]
        widths = [dim_in] + [dim_out] * len(strides)
        self.convs = nn.ModuleList(
            nn.Conv1d(width_in, width_out, kernel_size=3, stride=stride, padding=1)
            for width_in, width_out, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.position = nn.Parameter(torch.randn(tokens_out, dim_out) * 0.02)

    def forward(self, audio: Float[Tensor, "n tokens_in dim_in"]) -> Float[Tensor, "n s d"]:
        rows = rearrange(audio, "n s d -> n d s")
        for conv in self.convs[:-1]:
            rows = F.silu(conv(rows))
        rows = self.convs[-1](rows)
        return rearrange(rows, "n d s -> n s d") + self.position
