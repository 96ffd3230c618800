"""Colour of the drawn part, matched to what surrounds it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FAR = 1e-3
TOLERANCE = 0.1
TINY = 1e-6
CELLS = 32  # along a side; the slow part of an error is wider than one of them


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
    return match_cells(decoded, colour_cells(pixels, mask), mask, reach=reach)


def colour_cells(
    pixels: Float[Tensor, "*f 3 h w"], mask: Float[Tensor, "h w"]
) -> Float[Tensor, "*f 3 c c"]:
    """The mean colour of what is kept in each cell of a grid of at most 32, 0 where nothing is:
    all that `match_cells` must know of a face."""
    known = (mask > 0.999).to(pixels)
    share = _by_cell(known[None, None])
    kept = _by_cell((pixels * known).flatten(0, -4)) / share.clamp(min=TINY)
    return kept.unflatten(0, pixels.shape[:-3])


def match_cells(
    decoded: Float[Tensor, "b f 3 h w"],
    cells: Float[Tensor, "b f 3 c c"],
    mask: Float[Tensor, "h w"],
    *,
    reach: float = 0.08,
) -> Float[Tensor, "b f 3 h w"]:
    """`match_surroundings` from the cells of the faces."""
    share = _by_cell((mask > 0.999).to(decoded)[None, None])[0, 0]
    shift = (cells - colour_cells(decoded, mask)) * (share > 0)
    # Clothes and hair may be far off for reasons of their own, and skin must not take that on.
    trust = share / (1 + shift.square().mean(dim=2, keepdim=True) / TOLERANCE**2)
    weighted = shift * trust
    # Far from everything known, the mean of all that is known.
    mean = weighted.sum(dim=(-2, -1), keepdim=True) / trust.sum(dim=(-2, -1), keepdim=True)
    down, across = (spreading(side, reach * side).to(decoded) for side in cells.shape[-2:])
    slow = (down @ weighted @ across + FAR * mean) / (down @ trust @ across + FAR)
    size = decoded.shape[-2:]
    wide = functional.interpolate(slow.flatten(0, 1), size=size, mode="bilinear")
    return decoded + wide.unflatten(0, slow.shape[:2])


def _by_cell(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    height, width = pictures.shape[-2:]
    return functional.adaptive_avg_pool2d(pictures, (min(CELLS, height), min(CELLS, width)))


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
