"""Colour of the drawn part, matched to what surrounds it."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FAR = 1e-3
TOLERANCE = 0.1


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
    in shares of the side) carries it on into the painted part, weighted by nearness. Places that
    are off by more than `TOLERANCE` count little.
    """
    kernel = gaussian(reach * decoded.shape[-1]).to(decoded)
    shift = (pixels - decoded) * (mask > 0.999).to(decoded)
    # Clothes and hair may be far off for reasons of their own, and skin must not take that on.
    trust = 1 / (1 + (shift.square().mean(dim=2, keepdim=True) / TOLERANCE**2))
    trust = trust * (mask > 0.999).to(decoded)
    weighted = rearrange(shift * trust, "b f c h w -> (b f c) 1 h w")
    weight = rearrange(trust.expand_as(shift), "b f c h w -> (b f c) 1 h w")
    # Far from everything known, the mean of all that is known.
    mean = weighted.sum(dim=(-2, -1), keepdim=True) / weight.sum(dim=(-2, -1), keepdim=True)
    slow = (blur(weighted, kernel) + FAR * mean) / (blur(weight, kernel) + FAR)
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
