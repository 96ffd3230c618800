"""A small network that measures the shape of the mouth in an aligned face.

It is trained on the ground truth of the synthetic world and used for measurement only, never in a
generator's loss, which would invalidate its readings.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MOUTH_TRAITS = ("open", "width", "round", "teeth")

# Mouth, lips and chin of an officially aligned face, as fractions of its side.
TOP, BOTTOM, LEFT, RIGHT = 0.5, 0.875, 0.125, 0.875


class MouthReader(ModelMixin, ConfigMixin):
    """Aligned faces in [-1, 1] => (open, width, round, teeth), each in about [0, 1]."""

    @register_to_config
    def __init__(
        self,
        resolution: int = 128,
        block_out_channels: Sequence[int] = (24, 48, 64, 96),
        norm_num_groups: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        widths = [3, *block_out_channels]
        self.blocks = nn.Sequential(
            *(_block(before, after, norm_num_groups) for before, after in pairwise(widths))
        )
        height, width = mouth_box(torch.zeros(1, 3, resolution, resolution)).shape[-2:]
        scale = 2 ** len(block_out_channels)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1] * (height // scale) * (width // scale), 64),
            nn.SiLU(),
            nn.Linear(64, len(MOUTH_TRAITS)),
        )

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 4"]:
        return self.read_box(self.box_of(pixels))

    def box_of(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 y x"]:
        """What it sees of faces of any resolution."""
        side = self.config.resolution
        if pixels.shape[-1] != side:
            pixels = functional.interpolate(
                pixels, size=(side, side), mode="bilinear", antialias=True
            )
        return mouth_box(pixels)

    def read_box(self, box: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n 4"]:
        """The same from the `mouth_box` crop of faces at the reader's resolution."""
        return self.head(self.blocks(box))


def mouth_box(pixels: Float[Tensor, "n c h w"], *, margin: float = 0.0) -> Float[Tensor, "n c y x"]:
    """Crop an aligned face to the mouth and a margin, 48 x 96 of 128 x 128."""
    height, width = pixels.shape[-2:]
    rows = slice(int((TOP - margin) * height), int((BOTTOM + margin) * height))
    columns = slice(int((LEFT - margin) * width), int((RIGHT + margin) * width))
    return pixels[..., rows, columns]


def _block(before: int, after: int, num_groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1),
        nn.GroupNorm(num_groups, after),
        nn.SiLU(),
        nn.Conv2d(after, after, kernel_size=3, padding=1, groups=num_groups),
        nn.GroupNorm(num_groups, after),
        nn.SiLU(),
    )
