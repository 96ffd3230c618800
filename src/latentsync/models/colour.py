"""Colour of the drawn part, matched to what surrounds it."""

import torch
from jaxtyping import Float
from torch import Tensor

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
    known = (mask > 0.999).to(decoded)
    shift = (pixels - decoded) * known
    # Clothes and hair may be far off for reasons of their own, and skin must not take that on.
    trust = known / (1 + shift.square().mean(dim=2, keepdim=True) / TOLERANCE**2)
    weighted = shift * trust
    # Far from everything known, the mean of all that is known.
    mean = weighted.sum(dim=(-2, -1), keepdim=True) / trust.sum(dim=(-2, -1), keepdim=True)
    height, width = decoded.shape[-2:]
    down, across = (spreading(side, reach * width).to(decoded) for side in (height, width))
    slow = (down @ weighted @ across + FAR * mean) / (down @ trust @ across + FAR)
    return decoded + slow


def spreading(side: int, deviation: float) -> Float[Tensor, "s s"]:
    """A Gaussian blur of `side` values as a matrix; beyond them lies nothing.

    As a product of matrices it takes a tenth of the time of a convolution of such width.
    """
    weights = gaussian(deviation)
    places = torch.arange(side)
    apart = places[:, None] - places + len(weights) // 2
    inside = (apart >= 0) & (apart < len(weights))
    return weights[apart.clamp(0, len(weights) - 1)] * inside


def gaussian(deviation: float) -> Float[Tensor, " k"]:
    """A normalised Gaussian, long enough that the middle of the mask still sees its edges."""
    radius = round(4 * deviation)
    places = torch.arange(-radius, radius + 1)
    weights = torch.exp(-((places / deviation) ** 2) / 2)
    return weights / weights.sum()
