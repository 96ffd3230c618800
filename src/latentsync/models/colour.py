"""Colour of the drawn part, matched to what surrounds it."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FAR = 1e-3


def match_surroundings(
    decoded: Float[Tensor, "b f 3 h w"],
    pixels: Float[Tensor, "b f 3 h w"],
    mask: Float[Tensor, "h w"],
    *,
    reach: float = 0.08,
) -> Float[Tensor, "b f 3 h w"]:
    """Decoded faces with the slow part of their error outside the mask taken off inside it too.

    A VAE shifts colours a little, and a shifted patch shows its border. The network decodes the
    kept part as well, so there the shift is known; a Gaussian mean of it (`reach` is its deviation
    in shares of the side) carries it on into the painted part, weighted by nearness.
    """
    known = (mask > 0.999).to(decoded)
    size = decoded.shape[-1]
    kernel = gaussian(reach * size).to(decoded)
    shift = rearrange((pixels - decoded) * known, "b f c h w -> (b f c) 1 h w")
    weight = blur(known[None, None], kernel)
    # Far from everything known, the mean of all that is known.
    mean = shift.sum(dim=(-2, -1), keepdim=True) / known.sum().clamp(min=1)
    slow = (blur(shift, kernel) + FAR * mean) / (weight + FAR)
    return decoded + rearrange(
        slow, "(b f c) 1 h w -> b f c h w", b=decoded.shape[0], f=decoded.shape[1]
    )


def gaussian(deviation: float) -> Float[Tensor, " k"]:
    """A normalised Gaussian, long enough that the middle of the mask still sees its edges."""
    radius = round(4 * deviation)
    places = torch.arange(-radius, radius + 1)
    weights = torch.exp(-((places / deviation) ** 2) / 2)
    return weights / weights.sum()


def blur(images: Float[Tensor, "n 1 h w"], kernel: Float[Tensor, " k"]) -> Float[Tensor, "n 1 h w"]:
    """Separable convolution; beyond the picture lies nothing."""
    radius = len(kernel) // 2
    rows = functional.conv2d(images, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(radius, 0))
